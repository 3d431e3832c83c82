"""The same model without us: transformers' own forward, cache and `generate`, to be measured beside ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

if TYPE_CHECKING:
    from farspan.runtime.hf import Prepared

NEVER = 2**31 - 1  # a token that no vocabulary has: answers go on to their last token


def endless(tokens: int) -> GenerationConfig:
    """Greedy, and no token ends an answer of `tokens` tokens."""
    return GenerationConfig(eos_token_id=NEVER, max_new_tokens=tokens)


class Took(NamedTuple):
    """Seconds to the first token and to the last, and the tokens."""

    first: float
    total: float
    tokens: tuple[int, ...]


class Plain:
    """Reads and answers with the model as transformers made it; ours is back afterwards."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    def read(self, ids: Tensor) -> tuple[DynamicCache, float]:
        """ids [T] -> a full cache, and the seconds that one forward took."""
        cache = DynamicCache(config=self._prepared.config)
        with self.alone() as model:
            began = time.perf_counter()
            model(input_ids=ids[None].to(model.device, torch.long), past_key_values=cache, logits_to_keep=1)
            _wait(model.device)
            return cache, time.perf_counter() - began

    def ask(self, cache: DynamicCache, before: Tensor, ids: Tensor, tokens: int) -> Took:
        """Answer ids [Q] after what is cached (`before` [T]) in `tokens` tokens; the cache is used up."""
        with self.alone() as model:
            clock = _Clock(model.device)
            whole = torch.cat([before, ids])[None].to(model.device, torch.long)
            out = model.generate(
                input_ids=whole,
                attention_mask=torch.ones_like(whole),
                past_key_values=cache,
                generation_config=endless(tokens),
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        return Took(clock.times[0], clock.times[-1], tuple(out[0, whole.shape[1] :].tolist()))

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """The model as transformers made it, for as long as the `with` lasts."""
        self._prepared.unplug()
        try:
            with torch.inference_mode():
                yield self._prepared.model
        finally:
            self._prepared.plug_in()


class _Clock(StoppingCriteria):
    """Notes when each token was there; stops nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, list[float]()
        self.began = time.perf_counter()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """One more token."""
        _wait(self.device)
        self.times.append(time.perf_counter() - self.began)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
