"""Choosing the next token: transformers' own GenerationConfig and LogitsProcessors, nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from farspan.errors import OptionError

DEFAULT_NEW_TOKENS = 256
HONOURED = frozenset(
    {
        *("max_new_tokens", "eos_token_id", "stop_strings", "repetition_penalty", "no_repeat_ngram_size"),
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    }
)
HARMLESS = frozenset(  # say nothing about which token comes next, or repeat what holds anyway
    {
        *("bos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "_from_model_config"),
        *("use_cache", "cache_implementation", "max_length", "num_beams", "num_return_sequences"),
        *("return_dict_in_generate", "output_scores", "output_logits"),
    }
)


@dataclass(frozen=True)
class Sampling:
    """How an answer is decoded: greedy unless a configuration says otherwise."""

    max_new_tokens: int
    eos: frozenset[int]
    stop: tuple[str, ...] = ()
    do_sample: bool = False
    seed: int | None = None
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)

    def generator(self) -> torch.Generator:
        """A fresh source of randomness: seeded alike for every question, so that an answer does not depend on what
        else was asked beside it.
        """
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator

    def choose(self, logits: Tensor, context_ids: Callable[[], Tensor], generator: torch.Generator) -> int:
        """logits [V] of one sequence whose tokens so far are context_ids() [n] -> the next token."""
        if self.processors:
            ids = context_ids()[None].to(logits.device, torch.long)
            logits = self.processors(ids, logits[None].float())[0]  # type: ignore[arg-type]
        if not self.do_sample:
            return int(logits.max(-1).indices)  # the first of the largest, as argmax, which takes three times as long
        weights = logits.float().softmax(-1).cpu()
        return int(torch.multinomial(weights, 1, generator=generator))


def sampling(
    model_config: GenerationConfig,
    config: GenerationConfig | None,
    *,
    eos_token_id: int | None,
    max_new_tokens: int | None = None,
    stop: str | list[str] | tuple[str, ...] | None = None,
    seed: int | None = None,
    logits_processor: LogitsProcessorList | None = None,
) -> Sampling:
    """Resolve what a call says over what its configuration says. Raises OptionError for a setting that would change
    the answer and is not honoured, rather than dropping it.
    """
    chosen = config or GenerationConfig()
    _refuse_unhonoured(chosen)
    limit = max_new_tokens if max_new_tokens is not None else chosen.max_new_tokens or DEFAULT_NEW_TOKENS
    if not isinstance(limit, int) or limit < 1:
        raise OptionError(f"max_new_tokens={limit!r} leaves no room for an answer; give 1 or more")
    stops = stop if stop is not None else chosen.stop_strings or ()
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    if not all(stops):
        raise OptionError("an empty stop string would stop every answer at once; leave it out")
    processors = _processors(chosen)
    processors.extend(logits_processor or [])
    return Sampling(
        max_new_tokens=limit,
        eos=_eos(chosen, model_config, eos_token_id),
        stop=stops,
        do_sample=bool(chosen.do_sample),
        seed=seed,
        processors=processors,
    )


def _refuse_unhonoured(config: GenerationConfig) -> None:
    for name, value in config.to_diff_dict().items():
        beams = name in ("num_beams", "num_return_sequences") and value not in (None, 1)
        if beams or (name not in HONOURED | HARMLESS and value is not None):
            raise OptionError(
                f"GenerationConfig({name}={value!r}) is not supported when asking a context; "
                f"honoured are {', '.join(sorted(HONOURED))}"
            )


def _eos(config: GenerationConfig, model_config: GenerationConfig, tokenizer_eos: int | None) -> frozenset[int]:
    ids: set[int] = set()
    for given in (config.eos_token_id, model_config.eos_token_id, tokenizer_eos):
        if given is not None:
            ids |= set(given) if isinstance(given, (list, tuple)) else {int(given)}
        if ids and given is config.eos_token_id:
            break  # what the call says is all there is
    return frozenset(ids)


def _processors(config: GenerationConfig) -> LogitsProcessorList:
    """In transformers' own order: penalties first, then temperature, then what cuts the tail."""
    chosen = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        chosen.append(RepetitionPenaltyLogitsProcessor(penalty=config.repetition_penalty))
    if config.no_repeat_ngram_size:
        chosen.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if not config.do_sample:
        return chosen
    warpers: list[tuple[Any, Any, Any]] = [
        (config.temperature, 1.0, TemperatureLogitsWarper),
        (config.top_k or None, None, TopKLogitsWarper),
        (config.top_p, 1.0, TopPLogitsWarper),
        (config.min_p, None, MinPLogitsWarper),
        (config.typical_p, 1.0, TypicalLogitsWarper),
    ]
    chosen.extend(warper(value) for value, neutral, warper in warpers if value is not None and value != neutral)
    return chosen
