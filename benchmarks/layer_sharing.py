"""What two ideas cost on the embedded model, layer by layer: scores shared between layers (`pod`), heads pruned.

`python -m benchmarks.layer_sharing` prints perplexities of the last 256 of 1,024 tokens of files that training never
read, under the model's own layers with another attention function, and ends with one JSON line.

* PoD (Ma et al. 2024) without its training: for tokens that are neither among the first 16 nor the newest 64, a layer
  takes the scores of the layer before, head by head, so that it needs no keys of theirs.
* SpAtten's cascade of heads (Wang et al. 2021): from a layer on, the key-value heads that put out least so far, in sums
  of magnitudes, put out nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer

from farspan.reference import path
from farspan.reference.corpus import LIBRARY

SINKS, RECENT, TOKENS, JUDGED = 16, 64, 1024, 256
FILES = ("argparse.py", "typing.py")
SHARED = {"layer 1 of 0": {1: 0}, "layer 2 of 1": {2: 1}, "layer 3 of 2": {3: 2}, "1 of 0, 3 of 2": {1: 0, 3: 2}}
PRUNED = {"one of four heads from layer 1": {1: 1}, "from layer 2": {2: 1}, "from layer 3": {3: 1}}


@dataclass
class Variant:
    """One way to attend, and what one pass left: scores by layer, and how alike neighbours' far attention was."""

    leaders: dict[int, int] = field(default_factory=dict)
    pruned: dict[int, int] = field(default_factory=dict)
    scores: dict[int, Tensor] = field(default_factory=dict)
    importance: Tensor | None = None
    gone: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    alike: dict[int, list[float]] = field(default_factory=dict)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """query [Hk, G, T, D], keys and values [Hk, T, D] -> [Hk, G, T, D]."""
        if layer in self.pruned:
            assert self.importance is not None
            self.gone = self.importance.argsort()[: self.pruned[layer]]
        at = torch.arange(query.shape[2])
        seen = at <= at[:, None]
        far = (at <= at[:, None] - RECENT) & (at >= SINKS)
        scores = torch.einsum("hgtd,hnd->hgtn", query, keys) * scaling
        self.scores[layer] = scores
        if layer:
            pair = [self.scores[n].masked_fill(~far, -math.inf)[:, :, -RECENT:].softmax(-1) for n in (layer - 1, layer)]
            self.alike[layer] = torch.minimum(*pair).sum(-1).mean((1, 2)).tolist()
        if layer in self.leaders:
            scores = torch.where(far, self.scores[self.leaders[layer]], scores)
        out = torch.einsum("hgtn,hnd->hgtd", scores.masked_fill(~seen, -math.inf).softmax(-1), values)
        out[self.gone] = 0
        drawn = out.abs().sum((1, 2, 3))
        self.importance = drawn if self.importance is None else self.importance + drawn
        return out


_current: list[Variant] = []


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, **more: Any) -> tuple[Tensor, None]:
    grouped = query[0].unflatten(0, (key.shape[1], -1))
    out = _current[-1].attend(module.layer_idx, grouped, key[0], value[0], more["scaling"])
    return out.flatten(0, 1).transpose(0, 1)[None], None


def main() -> None:
    """Measure every variant on every file."""
    AttentionInterface.register("layer-sharing", _attention)
    AttentionMaskInterface.register("layer-sharing", lambda *args, **kwargs: None)
    model = AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32).eval()
    model.set_attn_implementation("layer-sharing")
    tokenizer = AutoTokenizer.from_pretrained(path())
    texts = [torch.tensor(tokenizer((LIBRARY / name).read_text())["input_ids"][:TOKENS]) for name in FILES]

    def perplexity(name: str, **how: dict[int, int]) -> float:
        losses = []
        for ids in texts:
            _current[:] = [Variant(**how)]
            with torch.inference_mode():
                logits = model(ids[None], use_cache=False).logits[0, -JUDGED - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[-JUDGED:]).item())
        found = math.exp(sum(losses) / len(losses))
        print(f"{name:40} {found:6.2f}", flush=True)
        return round(found, 2)

    result: dict[str, Any] = {"full": perplexity("full")}
    alike = {f"{n - 1} and {n}": [round(x, 3) for x in its] for n, its in _current[0].alike.items()}
    result["far attention that layers share, by head"] = alike
    result["shared"] = {name: perplexity(f"shared: {name}", leaders=leaders) for name, leaders in SHARED.items()}
    result["pruned"] = {name: perplexity(f"pruned: {name}", pruned=pruned) for name, pruned in PRUNED.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
