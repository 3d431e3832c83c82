"""What is noted of entries is the definition, however the text was cut into chunks and extents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.cache import LayerCache
from farspan.runtime.fetching import _keys
from farspan.runtime.noting import Notes

pytestmark = pytest.mark.usefixtures("poisoned")


@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    window=st.integers(1, 12),
    began=st.integers(0, 3),
    closes=st.booleans(),
)
def test_asked_is_the_mean_score_of_the_next_tokens(seed, sizes, window, began, closes) -> None:
    g = torch.Generator().manual_seed(seed)
    heads, group, size, total = 2, 2, 4, sum(sizes)
    keys, queries = torch.randn(heads, total, size, generator=g), torch.randn(heads * group, total, size, generator=g)
    layer, notes, at = LayerCache(0), Notes(window), 0
    for many in sizes:
        run = slice(at, at + many)
        layer.tail.append(keys[:, run], keys[:, run], began + at)
        notes.ask(layer, queries[:, run], began + at, 0.5, _keys)
        at += many
        if closes:
            layer.close_tail()
    if not closes:
        layer.seal_tail(None)
    found = torch.cat([notes.of("asked", 0, extent, slice(0, heads)) for extent in layer.extents], 1)
    for head in range(heads):
        for entry in range(total):
            later = queries.unflatten(0, (heads, group))[head, :, entry + 1 : entry + 1 + window].mean(0)
            expected = float((later @ keys[head, entry]).sum()) * 0.5 / window
            assert float(found[head, entry]) == pytest.approx(expected, abs=1e-5)


def test_entries_from_before_have_no_notes() -> None:
    layer, notes = LayerCache(0), Notes(8)
    layer.tail.append(torch.randn(1, 5, 4), torch.randn(1, 5, 4), 0)
    layer.seal_tail(None)
    layer.tail.append(torch.randn(1, 3, 4), torch.randn(1, 3, 4), 5)
    notes.ask(layer, torch.randn(1, 3, 4), 5, 1.0, _keys)
    notes.surprise(6, torch.tensor([1.5, 2.5]))
    assert notes.of("asked", 0, layer.extents[0], slice(0, 1)).tolist() == [[0.0] * 5]
    assert notes.of("surprisal", 0, layer.extents[0], slice(0, 1)).isnan().all()
    layer.seal_tail(None)
    (new,) = notes.of("surprisal", 0, layer.extents[-1], slice(0, 1)).tolist()
    assert new[-2:] == [1.5, 2.5] and new[-3] != new[-3]
