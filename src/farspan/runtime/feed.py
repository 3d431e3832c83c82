"""What is fed to a model: documents as token ids, each token with where it comes from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from farspan.errors import DocumentError
from farspan.methods.compress.base import Compressor
from farspan.plan import Plan
from farspan.text import Asked, Document, Segment, TokenMap, Tokens

Part = tuple[int, Document, Tokens]
"""A document's number (others when it is read again), the document, and the tokens of it that are read."""


class Feed(NamedTuple):
    """What is fed: token ids [T], where each comes from, and [T] bool which are marked as no text (None: none is)."""

    ids: Tensor
    tokens: TokenMap
    nontext: Tensor | None


def to_read(whole: list[tuple[Document, Tokens]], plan: Plan, question: str | Asked | None) -> list[Part]:
    """What of tokenised documents will be read under a plan, in order. Raises DocumentError for an empty one."""
    compressor = plan.get("compress")
    if compressor is None:
        return [(i, d, t) for i, (d, t) in enumerate(checked(whole))]
    assert isinstance(compressor, Compressor)
    return _compressed(checked(whole), compressor, question.text if isinstance(question, Asked) else question)


def checked(whole: list[tuple[Document, Tokens]]) -> list[tuple[Document, Tokens]]:
    """The same; raises DocumentError for a document without tokens."""
    for document, tokens in whole:
        if not len(tokens):
            raise DocumentError(f"{document.source} holds no token to read")
    return whole


def joined(
    parts: list[Part],
    before: Tensor,
    separator: Tensor,
    tokens: TokenMap | None = None,
    at: int = 0,
) -> Feed:
    """Token ids of all parts, `separator` between documents, after what was fed `before` them."""
    ids, known, number = [before], tokens or TokenMap(), None
    marks = [torch.zeros(before.numel(), dtype=torch.bool)]
    at += before.numel()
    for document_number, document, its in parts:
        if number is not None and document_number != number:
            ids.append(separator)
            marks.append(torch.zeros(separator.numel(), dtype=torch.bool))
            at += separator.numel()
        number = document_number
        known = known.extended(document, its, at=at)
        ids.append(torch.from_numpy(its.ids).long())
        marks.append(_marked(document, its))
        at += len(its)
    nontext = torch.cat(marks)
    return Feed(torch.cat(ids), known, nontext if bool(nontext.any()) else None)


def _marked(document: Document, tokens: Tokens) -> Tensor:
    """[n] bool: which of a document's tokens hold characters of a span marked as no text."""
    marked = torch.zeros(len(tokens), dtype=torch.bool)
    for start, end in document.nontext:
        marked |= torch.from_numpy((tokens.spans[:, 0] < end) & (tokens.spans[:, 1] > start))
    return marked


def _compressed(whole: list[tuple[Document, Tokens]], compressor: Compressor, question: str | None) -> list[Part]:
    """What a compressor leaves of the documents, as token ranges of them."""
    segments, starts, at = [], [], 0
    for i, (document, tokens) in enumerate(whole):
        whole_document = Segment(
            source=document.source,
            document=i,
            start=0,
            end=len(document.text),
            token_start=at,
            token_end=at + len(tokens),
        )
        segments.append(whole_document)
        starts.append(at)
        at += len(tokens)
    kept = compressor.compress(segments, question, compressor.reads(at))
    parts: list[Part] = []
    last = again = 0
    for segment in kept:
        again += len(whole) * (segment.token_start < last)  # another reading: documents apart from those of the first
        last = segment.token_end
        document, tokens = whole[segment.document]
        span = slice(segment.token_start - starts[segment.document], segment.token_end - starts[segment.document])
        parts.append((again + segment.document, document, Tokens(tokens.ids[span], tokens.spans[span])))
    return parts
