"""Which form each chunk is sent in (CacheGen, algorithm 1): by hand, and as a property."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farspan.cache import CachegenBlock
from farspan.cache.cachegen import LEVELS, bin_of
from farspan.cache.delivery import Choice, Piece, deliver, next_choice
from farspan.errors import OptionError
from tests.cache.test_cachegen import block

PIECE = Piece(sizes=(400, 300, 200, 100), text_bytes=10, reading_seconds=1.0)


def test_text_loses_nothing_and_is_sent_where_reading_all_of_it_is_in_time() -> None:
    """Three chunks at 100 bytes a second: as text 3 · (0.1 + 1) = 3.3 seconds."""
    assert next_choice([PIECE] * 3, 100, 3.4) == Choice(None, 1.1)
    assert next_choice([PIECE] * 3, 100, 3.2).level == 3


def test_else_the_finest_level_at_which_all_that_is_left_arrives() -> None:
    slow = Piece(sizes=PIECE.sizes, text_bytes=10, reading_seconds=100.0)
    times = {12.0: 0, 11.9: 1, 9.0: 1, 8.9: 2, 6.0: 2, 3.0: 3}
    assert {left: next_choice([slow] * 3, 100, left).level for left in times} == times


def test_where_nothing_is_in_time_the_fastest_is_sent() -> None:
    slow = Piece(sizes=PIECE.sizes, text_bytes=10, reading_seconds=100.0)
    assert next_choice([slow] * 3, 100, 0.5) == Choice(3, 1.0)
    assert next_choice([PIECE], 10, 0.5) == Choice(None, 2.0), "a second to read, against ten to send"


def test_a_drop_of_the_bandwidth_is_answered_one_chunk_later() -> None:
    """Four chunks within 8 seconds. At 200 bytes a second all are sent whole in 2 each; when the second takes 8 at 50,
    nothing is in time any more, and the rest is sent at the coarsest level.
    """
    slow = Piece(sizes=PIECE.sizes, text_bytes=10, reading_seconds=100.0)
    sent = deliver([slow] * 4, [200, 50, 50, 200], 8.0)
    assert [choice.level for choice in sent] == [0, 0, 3, 3]
    assert [choice.seconds for choice in sent] == [2.0, 8.0, 2.0, 0.5]


@given(
    st.lists(st.tuples(st.integers(10, 500), st.floats(0.01, 5)), min_size=1, max_size=6),
    st.floats(1, 1000),
    st.floats(0.1, 60),
)
def test_at_an_even_bandwidth_a_promise_is_kept(chunks: list[tuple[int, float]], bandwidth: float, left: float) -> None:
    """If any form sent throughout is in time, then so is what is chosen chunk by chunk."""
    pieces = [Piece(sizes=(4 * n, 2 * n, n), text_bytes=n // 4, reading_seconds=s) for n, s in chunks]
    uniform = [sum(p.sizes[level] for p in pieces) / bandwidth for level in range(3)]
    uniform.append(sum(p.text_bytes / bandwidth + p.reading_seconds for p in pieces))
    total = sum(choice.seconds for choice in deliver(pieces, [bandwidth] * len(pieces), left))
    if min(uniform) <= left:
        assert total <= left * (1 + 1e-9)


def test_a_context_arrives_in_chunks_each_at_its_level_and_decoded_side_by_side() -> None:
    """Two layers of real entries, four chunks of 40 tokens, on a line that slows down and recovers."""
    entries, counts = [block((160, 160)) for _ in range(2)], (160, 160)
    by_level = [
        [CachegenBlock.encode(held, counts, bin_of(i, 2, level), chunk=40) for i, held in enumerate(entries)]
        for level in range(len(LEVELS))
    ]
    pieces = [
        Piece(sizes=tuple(sum(b.lengths[i] for b in blocks) for blocks in by_level), text_bytes=1, reading_seconds=99.0)
        for i in range(4)
    ]
    assert all(piece.sizes == tuple(sorted(piece.sizes, reverse=True)) for piece in pieces)
    fine = sum(piece.sizes[0] for piece in pieces) / 8  # the finest level is there in 8 seconds
    levels = [choice.level for choice in deliver(pieces, [fine, fine / 2, 2 * fine, 2 * fine], 8.0)]
    assert levels[:2] == [0, 0] and levels[2] not in (None, 0) and levels[3] == 0
    chosen = [(i, level) for i, level in enumerate(levels) if level is not None]
    arriving = [by_level[level][layer] for i, level in chosen for layer in (0, 1)]
    with ThreadPoolExecutor(4) as pool:
        chunks = list(pool.map(lambda b, i: b.decode_chunk(i), arriving, [i for i, _ in chosen for _ in (0, 1)]))
    for (i, level), layer, (keys, values) in zip(
        [each for each in chosen for _ in (0, 1)], [0, 1] * 4, chunks, strict=True
    ):
        whole, span = by_level[level][layer].decode(), slice(40 * i, 40 * i + 40)
        assert np.array_equal(keys, whole.keys.view(2, 160, 8)[:, span].transpose(0, 1).flatten(1).numpy())
        assert np.array_equal(values, whole.values.view(2, 160, 4)[:, span].transpose(0, 1).flatten(1).numpy())


def test_nothing_and_nowhere_are_refused() -> None:
    with pytest.raises(OptionError, match="a bandwidth of 0 bytes a second sends nothing"):
        next_choice([PIECE], 0, 1.0)
    with pytest.raises(OptionError, match="no chunk left"):
        next_choice([], 100, 1.0)
    with pytest.raises(OptionError, match="2 bandwidths for 1 chunks"):
        deliver([PIECE], [1.0, 2.0], 3.0)
