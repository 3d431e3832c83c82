"""Peers answer requests in processes of their own, and their weights are the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from benchmarks.peers.child import Took
from benchmarks.peers.gguf_file import interleaved, named, tensors
from benchmarks.peers.process import Peer, PeerFailed
from tests.models import tiny


def test_a_peer_replies_to_what_it_is_asked() -> None:
    with Peer(sys.executable, "tests.echo_peer") as peer:
        assert peer.about == {"echo": "1"}
        assert peer.read([7, 8, 9]) == (0.5, 3)
        assert peer.ask([1], 3) == Took(0.25, 0.75, [1, 7, 8])
        assert peer.read([4]) == (0.5, 1) and peer.ask([], 1).tokens == [4], "requests go on"


def test_a_peer_that_fails_says_so_where_it_was_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with Peer(sys.executable, "tests.echo_peer") as peer:
        peer.read([1])
        with pytest.raises(PeerFailed, match="echo_peer ended with status 1"):
            peer.ask([], 5)
        with pytest.raises(PeerFailed, match="ended"):
            peer.read([1])
    assert "there is not so much" in capfd.readouterr().err


def test_neighbouring_dimensions_turned_are_the_halves_turned() -> None:
    heads, size, tokens = 3, 8, 5
    generator = torch.Generator().manual_seed(0)
    rows, hidden = (torch.randn(n, 16, generator=generator) for n in (heads * size, tokens))
    angles = torch.arange(tokens)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])[None]
    cos, sin = (torch.cat([f(angles)] * 2, -1)[None] for f in (torch.cos, torch.sin))
    plain = (hidden @ rows.T).view(1, tokens, heads, size).transpose(1, 2)
    truth, _ = apply_rotary_pos_emb(plain, plain, cos, sin)
    moved = torch.from_numpy(interleaved(rows.numpy(), heads))
    pairs = torch.view_as_complex((hidden @ moved.T).view(tokens, heads, size // 2, 2))
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None])
    theirs = turned.permute(1, 0, 3, 2).reshape(heads, tokens, size)  # back to halves
    torch.testing.assert_close(theirs, truth[0])


def test_every_weight_is_found_bit_for_bit_and_has_a_name(tmp_path: Path) -> None:
    model = tiny("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    found = tensors(tmp_path)
    state = {k: v for k, v in model.state_dict().items() if k in found}
    assert set(found) == set(state) and len(found) > 10
    for name, weight in found.items():
        assert np.array_equal(weight.view(np.int16), state[name].view(torch.int16).numpy())
    assert named("model.layers.3.self_attn.q_proj.weight") == "blk.3.attn_q.weight"
    assert len({named(name) for name in found}) == len(found)
