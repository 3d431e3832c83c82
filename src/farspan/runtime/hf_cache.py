"""Our caches as transformers sees them, and the attention and mask functions that read them.

The cache returns a handle in place of keys and values; transformers passes it on untouched to the attention function,
which runs our own step with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from farspan.attention.pairs import Pairs
from farspan.attention.scaling import Scaling
from farspan.cache import SequenceCache
from farspan.errors import CapacityError, ModelNotPrepared, OptionError, UnsupportedModel
from farspan.runtime.positions import PositionSpec
from farspan.runtime.step import Row, Step

NAME = "farspan"
IGNORED = frozenset(  # attention keywords that change nothing here: visibility comes from stored positions
    {
        *("position_ids", "cache_position", "position_embeddings", "use_cache", "is_causal", "head_mask"),
        *("output_attentions", "output_hidden_states", "output_router_logits", "logits_to_keep", "return_dict"),
        *("token_type_ids", "mm_token_type_ids", "sliding_window"),
    }
)


HONOURED = frozenset({"softcap", "s_aux"})  # see Scaling


class Handle:
    """What our cache returns in place of keys and values; only our attention function can open it."""

    __slots__ = ("_cache", "_keys", "_layer", "_values")

    def __init__(self, cache: FarspanCache, layer: int, keys: Tensor, values: Tensor) -> None:
        self._cache, self._layer, self._keys, self._values = cache, layer, keys, values

    def __getattr__(self, name: str) -> Any:
        raise ModelNotPrepared(
            "this model's attention is not farspan's, so it cannot read a farspan context. "
            "Prepare it first: farspan.prepare(model).generate(**context.inputs(question))"
        )

    def run(self, query: Tensor, scaling: float, window: int | None) -> Tensor:
        """query [1, Hq, ΣT, D] -> [1, ΣT, Hq, Dv]."""
        cache, real = self._cache, self._cache.real
        assert cache.step is not None
        asked, keys, values = (_packed(states, real) for states in (query, self._keys, self._values))
        asked = asked.to(values.dtype)  # float32 rotations come back wider than the model
        out = cache.step.layer(self._layer, asked, keys, values, scaling, cache.pairs)
        if cache.watch is not None:
            cache.watch(self._layer, query, self._keys, self._values, scaling, window)
        if real is None:
            return out[None]
        padded = out.new_zeros(*real.shape, *out.shape[1:])
        padded[real] = out
        return padded


def _packed(states: Tensor, real: Tensor | None) -> Tensor:
    """states [B, H, T, D] -> [H, ΣT, D] of the tokens that `real` [B, T] marks, row after row; one row is whole."""
    return states[0] if real is None else states.transpose(1, 2)[real].transpose(0, 1)


class _Layer(CacheLayerMixin):
    """A layer as transformers sees it: one does for all, because new entries go to the attention function."""

    is_sliding = False

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        """Of the longest row, all tokens seen and pads: `generate` slices its input by this."""
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: buffers belong to the sequence."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Refused: only the cache knows which layer this is."""
        raise UnsupportedModel("this model stores keys past its cache's update, where farspan cannot take them")

    def get_seq_length(self) -> int:
        """Slots of the longest row."""
        return self.slots

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As if all slots were held; no mask of this size is ever built."""
        return self.slots + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class FarspanCache(Cache):
    """A transformers cache over our own sequences: a packed batch of ours (`step`), or the rows of plain `generate`,
    one sequence each, for which a step is made at each forward from the tokens that are no padding.
    """

    def __init__(
        self,
        layers: int,
        positions: PositionSpec,
        *,
        step: Step | None = None,
        sequences: Sequence[SequenceCache] = (),
    ) -> None:
        self._all = _Layer(max((sequence.seen for sequence in sequences), default=0))
        super().__init__(layers=list(repeat(self._all, layers)))
        self.positions, self.step, self.sequences = positions, step, list(sequences)
        self.real: Tensor | None = None
        """[B, T] bool: which of this pass's tokens are no padding; None for one row without any."""
        self._make_row: Callable[[int, int], Row] | None = None
        self.watch: Callable[..., None] | None = None
        """Called with what each layer was asked; for the inspection at load."""
        self.pairs: Pairs | None = None
        """How positions depend on pairs of tokens; set by the model that runs."""

    @classmethod
    def for_generate(
        cls,
        layers: int,
        positions: PositionSpec,
        sequences: Sequence[SequenceCache],
        row: Callable[[int, int], Row],
    ) -> FarspanCache:
        """A cache to pass as `past_key_values`; it changes the sequences, so give it forks. `row(i, tokens)` is the
        i-th sequence's share of a pass.
        """
        cache = cls(layers, positions, sequences=sequences)
        cache._make_row = row
        return cache

    @property
    def rows(self) -> int:
        """Rows of the batch that transformers sees; a packed batch of ours is one."""
        return max(1, len(self.sequences))

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """New keys [B, Hk, T, D] and values of one layer -> a handle, twice."""
        if key_states.shape[0] != self.rows:
            raise OptionError(
                f"a batch of {key_states.shape[0]} rows reached a farspan context of {self.rows}; under plain "
                "generate give the rows that context.inputs([...]) made, without beams or several sequences each"
            )
        if self.step is None:
            self.step = self._begun(key_states.shape[2])
        handle = Handle(self, layer_idx, key_states, value_states)
        return handle, handle

    def _begun(self, tokens: int) -> Step:
        """Under plain generate: the first layer is about to store new tokens, `tokens` slots for every row."""
        assert self._make_row is not None
        counts = [tokens] if self.real is None else self.real.sum(1).tolist()
        return Step([self._make_row(i, count) for i, count in enumerate(counts)])

    def forward_begins(self, position_ids: Tensor | None, attention_mask: Tensor | None = None) -> None:
        """Under plain generate: note what is padding; positions must go on where each row's context ends."""
        if not self.sequences or position_ids is None:
            return
        tokens = position_ids.shape[-1]
        self.real = _real(attention_mask, self.rows, tokens, position_ids.device)
        for row, sequence in enumerate(self.sequences):
            its = position_ids.reshape(-1, tokens)[row if position_ids.numel() > tokens else 0]
            its = its if self.real is None else its[self.real[row]]
            first = int(its[0])
            if first != sequence.next_position:
                raise CapacityError(
                    f"the next position of this context is {sequence.next_position}, generate gave {first}; "
                    "pass everything that context.inputs() returns, unchanged"
                )
            self.positions.check(first + its.numel(), "generating")

    def forward_ends(self, input_ids: Tensor | None) -> None:
        """Under plain generate: note the tokens as seen."""
        if not self.sequences:
            return
        if input_ids is None:
            raise OptionError("a farspan context keeps token ids: call generate with input_ids, not inputs_embeds")
        for row, sequence in enumerate(self.sequences):
            sequence.feed(input_ids[row] if self.real is None else input_ids[row][self.real[row]])
        self._all.slots += input_ids.shape[1]
        self.step = self.real = None

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: what was evicted or sealed since cannot be brought back."""
        raise OptionError(
            "a farspan context cannot be cropped (assisted decoding is not supported); fork before asking instead"
        )


def attention(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Any,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function: our step for our handles, transformers' sdpa for anything else."""
    if not isinstance(key, Handle):
        if any(kwargs.get(name) is not None for name in HONOURED):  # torch's kernels have neither
            return _eager(module, query, key, value, attention_mask, scaling, sliding_window, **kwargs)
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            sliding_window=sliding_window,
            **kwargs,
        )
    factor = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
    if not kwargs.keys() <= IGNORED:
        factor = _scaling(module, factor, kwargs)
    return key.run(query, factor, sliding_window), None


def _scaling(module: nn.Module, factor: float, kwargs: dict[str, Any]) -> float:
    """The factor with what else a model passes to attention; raises UnsupportedModel for what nobody knows."""
    for name, given in kwargs.items():
        if given is not None and name not in IGNORED and name not in HONOURED:
            raise UnsupportedModel(
                f"{type(module).__name__} passes {name!r} to attention, which changes the result and is not handled "
                "yet; models that need it are refused"
            )
    if all(kwargs.get(name) is None for name in HONOURED):
        return factor
    return Scaling(factor, softcap=kwargs.get("softcap"), sinks=kwargs.get("s_aux"))


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    scaling: float | None,
    window: int | None,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """The model's own plain attention, which wants a mask of numbers, and always one."""
    if seen is None:
        old = key.shape[2] - query.shape[2]
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(old)
        seen = seen if window is None else seen.triu(old - window + 1)
    if seen.dtype == torch.bool:
        seen = torch.zeros_like(seen, dtype=query.dtype).masked_fill_(~seen, torch.finfo(query.dtype).min)
    own = sys.modules[type(module).__module__].eager_attention_forward
    return own(module, query, key, value, seen, scaling=scaling, sliding_window=window, **kwargs)


running: list[FarspanCache] = []  # caches of the forwards now running, innermost last


def mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The mask function: nothing to build for our caches, transformers' own mask for anything else."""
    if not running:
        return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
    if not running[-1].sequences and attention_mask is not None and not bool(attention_mask.all()):
        raise OptionError("padding reached a farspan context; ask several questions at once with context.ask([...])")
    return None


def _real(attention_mask: Tensor | None, rows: int, tokens: int, device: torch.device) -> Tensor | None:
    """-> [B, T] bool: which of the last `tokens` slots hold tokens; None for one row of them all."""
    if attention_mask is None or attention_mask.ndim != 2:
        return None if rows == 1 else torch.ones(rows, tokens, dtype=torch.bool, device=device)
    real = attention_mask[:, -tokens:].bool()
    if rows == 1 and bool(real.all()):
        return None
    if not bool(real[:, -1].all()) or bool((real[:, :-1] & ~real[:, 1:]).any()):
        raise OptionError("padding stands behind tokens of a row; rows of a farspan context are padded on the left")
    return real
