"""Contexts that stand side by side: pieces, models with a chat template, and conversations about all of them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import farspan
from farspan.context import Context
from farspan.model import Model
from tests.models import tiny, tiny_tokenizer
from tests.oracle.situations import LONG, MIDDLE, SHORT, reopened

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@functools.cache
def templated_tokenizer() -> Any:
    """The tiny tokenizer with a chat template, so that every context opens with tokens of no document."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@functools.cache
def templated_pair(kind: str) -> tuple[Model, PreTrainedModel]:
    """A model with that tokenizer, and its twin, which farspan never touches."""
    size = len(templated_tokenizer())
    return farspan.load(tiny(kind, vocab_size=size), tokenizer=templated_tokenizer()), tiny(kind, vocab_size=size)


def parts(model: Model, plan: str, folder: Path | None = None, texts: Sequence[str] = (LONG, SHORT, MIDDLE)) -> list:
    """Texts read apart, with a trace; opened from files where there is a folder to put them in."""
    contexts: list[Context] = model.read_batch(list(texts), plan, trace=True)
    if folder is None:
        return contexts
    return [reopened(context, folder / f"{i}.ctx") for i, context in enumerate(contexts)]
