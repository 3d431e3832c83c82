"""From a token of a read back to the characters it was made from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farspan.errors import DamagedFile, UsageError
from farspan.text.document import Document, Segment
from farspan.text.tokens import Int32, Tokens


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    source: str
    token_start: int
    spans: Int32

    @property
    def token_end(self) -> int:
        return self.token_start + len(self.spans)


@dataclass(frozen=True, eq=False, slots=True)
class TokenMap:
    """Where each token of a read came from; a value, like the context it belongs to.

    Tokens of no document (a template's prefix, separators, questions) have no place here. Character spans are kept
    as int32 arrays, one per document, 8 bytes per token, shared between a map and those extended from it.
    """

    parts: tuple[_Part, ...] = ()

    @classmethod
    def of(
        cls, documents: Sequence[Document], tokens: Sequence[Tokens], *, prefix: int = 0, separator: int = 0
    ) -> TokenMap:
        """Map documents that follow `prefix` tokens, with `separator` tokens between each two."""
        built, at = cls(), prefix
        for document, its_tokens in zip(documents, tokens, strict=True):
            built = built.extended(document, its_tokens, at=at)
            at += len(its_tokens) + separator
        return built

    def extended(self, document: Document, tokens: Tokens, *, at: int) -> TokenMap:
        """Return a map that also knows `document`, whose first token is token `at` of the read.

        Raises:
            UsageError: `at` lies before the end of the documents mapped so far.
        """
        free = self.parts[-1].token_end if self.parts else 0
        if at < free:
            raise UsageError(f"document {document.source} cannot begin at token {at}; the first free one is {free}")
        return TokenMap((*self.parts, _Part(document.source, at, tokens.spans)))

    def joined(self, other: TokenMap, by: int) -> TokenMap:
        """Return a map that also knows the documents of `other`, whose tokens stand `by` tokens further on here.

        Raises:
            UsageError: they would begin before the end of the documents mapped so far.
        """
        moved = tuple(_Part(part.source, part.token_start + by, part.spans) for part in other.parts)
        free = self.parts[-1].token_end if self.parts else 0
        if moved and moved[0].token_start < free:
            raise UsageError(f"documents cannot begin at token {moved[0].token_start}; the first free one is {free}")
        return TokenMap((*self.parts, *moved))

    def locate(self, token_index: int) -> Segment | None:
        """Return the segment of one token of the read, or None where it belongs to no document."""
        index = bisect_right(self.parts, token_index, key=lambda part: part.token_start) - 1
        if index < 0 or token_index >= self.parts[index].token_end:
            return None
        return self._segment(index, token_index, token_index + 1)

    def segments(self) -> list[Segment]:
        """Return one segment per document, from its first token to its last."""
        return [self._segment(index, part.token_start, part.token_end) for index, part in enumerate(self.parts)]

    def _segment(self, index: int, token_start: int, token_end: int) -> Segment:
        part = self.parts[index]
        spans = part.spans[token_start - part.token_start : token_end - part.token_start]
        return Segment(
            source=part.source,
            document=index,
            start=int(spans[0, 0]) if len(spans) else 0,
            end=int(spans[-1, 1]) if len(spans) else 0,
            token_start=token_start,
            token_end=token_end,
        )

    def to_json(self) -> dict[str, Any]:
        """Return sources and token ranges, small and JSON-ready; the spans go beside it, see `spans`."""
        return {
            "documents": [{"source": part.source, "tokens": [part.token_start, part.token_end]} for part in self.parts]
        }

    def spans(self) -> Int32:
        """Return the character spans of all documents' tokens, [N, 2], in order: the array to save with the JSON."""
        return np.concatenate([np.zeros((0, 2), np.int32), *(part.spans for part in self.parts)])

    @classmethod
    def from_json(cls, data: Mapping[str, Any], spans: Int32) -> TokenMap:
        """Rebuild a map from `to_json()` and `spans()`; documents share the array given.

        Raises:
            DamagedFile: the two do not belong together, or `data` is not from `to_json`.
        """
        try:
            ranges = [(str(entry["source"]), *_pair(entry["tokens"])) for entry in data["documents"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"not a token map: {error!r}") from error
        parts, used, free = [], 0, 0
        for source, start, end in ranges:
            if not free <= start <= end:
                raise DamagedFile(f"tokens [{start}, {end}) of {source} overlap those of the document before")
            parts.append(_Part(source, start, spans[used : used + end - start]))
            used, free = used + end - start, end
        if spans.shape != (used, 2):
            raise DamagedFile(f"a token map of {used} tokens has spans of shape ({used}, 2), not {spans.shape}")
        return cls(tuple(parts))


def repeated(a: TokenMap, a_ids: Any, b: TokenMap, b_ids: Any) -> str | None:
    """Return the source of a stretch of text that both reads hold, or None where there is none.

    `a_ids` and `b_ids` are all token ids [seen] of each read. Sources of one name are the same text where the tokens of
    the characters that both of them cover are equal.
    """
    for one in a.parts:
        for other in b.parts:
            if one.source == other.source and _same_text(one, a_ids, other, b_ids):
                return one.source
    return None


def _same_text(one: _Part, one_ids: Any, other: _Part, other_ids: Any) -> bool:
    if not len(one.spans) or not len(other.spans):
        return False
    start = max(int(one.spans[0, 0]), int(other.spans[0, 0]))
    end = min(int(one.spans[-1, 1]), int(other.spans[-1, 1]))
    stretches = []
    for part, ids in ((one, one_ids), (other, other_ids)):
        inside = (part.spans[:, 0] >= start) & (part.spans[:, 1] <= end)
        stretches.append(np.asarray(ids)[part.token_start : part.token_end][inside])
    return len(stretches[0]) > 0 and np.array_equal(*stretches)


def _pair(numbers: Sequence[Any]) -> tuple[int, int]:
    start, end = numbers
    return int(start), int(end)
