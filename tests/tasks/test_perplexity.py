"""What follows a context is scored in segments, each after everything before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farspan.errors import UsageError
from farspan.tasks import Passage, Task, _haystack, find
from farspan.tasks._stretch import cut
from farspan.tasks.base import seeded
from tests.tasks.counters import reference_counter, word_counter


def make(task: Task, index: int = 0, length: int = 1024) -> Passage:
    random = seeded(task, length=length, seed=0, index=index)
    return task.generate(index, length=length, counter=reference_counter(), random=random)


@pytest.mark.parametrize(("name", "haystack"), [("perplexity/following", "stdlib"), ("recall/perplexity", "code")])
def test_context_text_and_reference_are_one_stretch_of_the_haystack(name: str, haystack: str):
    text = _haystack.load(haystack).text
    for index in range(3):
        passage = make(find(name), index)
        end = len(passage.context)
        for question in passage.questions:
            (segment,) = question.references
            assert question.kind == "likelihood" and question.text
            assert passage.context + question.text + segment in text
            assert len(passage.context + question.text) >= end
            end = len(passage.context + question.text + segment)


def test_segments_are_labelled_by_position_and_by_what_came_since_the_context():
    counter, passage = reference_counter(), make(find("perplexity/following"), length=2048)
    assert [question.labels["after"] for question in passage.questions] == [64 * n for n in range(8)]
    for question in passage.questions:
        low, high = map(int, str(question.labels["position"]).split(" to "))
        assert low <= counter.text(passage.context) + counter.text(question.text) < high == 2 * low
        assert 50 <= counter.text(question.references[0]) <= 64


def test_a_text_that_is_too_short_is_not_repeated(tmp_path: Path):
    file = tmp_path / "short.txt"
    file.write_text("One line and another line of text.\n" * 100)
    with pytest.raises(UsageError, match=r"has no more; give a longer text or a shorter length"):
        make(find("perplexity/following").with_haystack(str(file)), length=4096)


def test_a_text_whose_end_has_more_characters_to_a_token_is_begun_earlier(tmp_path: Path):
    file = tmp_path / "sparse.txt"
    file.write_text("One line and another line of text.\n" * 1500 + (" " * 300 + "word\n") * 150)
    task = find("perplexity/following").with_haystack(str(file))
    for index in range(8):
        assert make(task, index, length=4096).questions


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 12))
def test_a_cut_is_the_longest_beginning_of_whole_words_that_fits(text: str, tokens: int):
    counter = word_counter()
    borders = [
        n for n in range(1, len(text) + 1) if not text[n - 1].isspace() and (text[n:] == "" or text[n].isspace())
    ]
    fitting = [text[:n] for n in borders if counter.text(text[:n]) <= tokens]
    assert cut(text, tokens, counter) == (fitting[-1] if fitting else "")
