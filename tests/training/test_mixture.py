"""Every target is known by the answer it is part of, and every kind of question comes up with its true answer."""

from random import Random

import numpy as np
import pytest
from tokenizers import Tokenizer

from farspan.tasks import _wording as wording
from farspan.tasks._facts import Language
from training import topics
from training.copying import bare_quote, repeats
from training.document import encode
from training.mixture import FORMS, Length, Mixture

KINDS = {"needle", "values", "keys", "bare", "reverse", "count", "list", "chain", "variable", "quote", "bare quote"}


@pytest.fixture(scope="module")
def plain(mixture: Mixture) -> Language:
    """The listed wordings, whose statements are easily read back."""
    return Language(wording=wording.TRAINING, vocabulary=mixture.language.vocabulary, words=mixture.language.words)


def test_owners_mark_just_the_answers(mixture: Mixture, tokenizer: Tokenizer):
    seen: set[str] = set()
    for seed in range(60):
        example = mixture.example(1024, Random(seed))
        owners = np.array(example.owners)
        assert np.array_equal(owners > 0, np.array(example.weights) > 0)
        assert owners.max(initial=0) <= len(example.kinds)
        for number, turn in enumerate(example.turns):
            own = np.array(example.ids)[owners == number + 1].tolist()
            assert own[: len(own) - turn.stop] == encode(tokenizer, turn.answer)
            assert example.kinds[number] == turn.kind
        seen |= set(example.kinds)
    assert seen == KINDS | {"repeat"}


def test_a_repeated_segment_stood_there_before(mixture: Mixture, tokenizer: Tokenizer):
    for seed in range(20):
        example = repeats(Random(seed), tokenizer, mixture.code.span(512, Random(seed)), 512)
        ids, owners = example.ids, np.array(example.owners)
        for number in range(1, int(owners.max(initial=0)) + 1):
            places = np.flatnonzero(owners == number)
            if len(places):
                segment = ids[places[0] - 2 : places[-1] + 1]
                first = next(i for i in range(len(ids)) if ids[i : i + len(segment)] == segment)
                assert first < places[0] - 2


def test_a_batch_numbers_answers_through(mixture: Mixture):
    batch = mixture.batch(3, 1, (Length(tokens=256, batch=6, share=1.0),))
    assert batch.ids.shape == batch.weights.shape == batch.owners.shape == (6, 256)
    assert set(batch.owners[batch.owners > 0]) <= set(range(1, len(batch.kinds) + 1))
    firsts = [row[row > 0].min() for row in batch.owners if row.any()]
    assert firsts == sorted(firsts) and len(set(firsts)) == len(firsts)


def test_several_keys_are_answered_in_the_order_asked(plain: Language):
    for seed in range(30):
        topic = topics.many_keys(Random(seed), plain, 8, 4)
        for turn in topic.turns:
            assert 2 <= len(turn.values) <= 4
            stated = [next(line for line in topic.statements if value in line) for value in turn.values]
            assert len(stated) == len(turn.values)


def test_all_values_of_a_key_are_given_in_document_order(plain: Language):
    for seed in range(30):
        topic = topics.many_values(Random(seed), plain, 9, 3)
        for turn in topic.turns:
            if len(turn.values) > 1:
                whole = "\n".join(topic.statements)
                assert all(whole.count(value) for value in turn.values)
                assert turn.kind == "values"


def test_counts_and_lists_are_of_one_kind_only(plain: Language):
    counted = 0
    for seed in range(60):
        topic = topics.overviews(Random(seed), plain, 10, 3)
        for turn in topic.turns:
            if turn.kind == "count":
                counted += 1
                assert 1 <= int(turn.values[0]) <= len(topic.statements)
            else:
                assert all(any(key in line for line in topic.statements) for key in turn.values)
    assert counted > 10


def test_chains_fill_the_lines_given(plain: Language):
    for seed in range(30):
        topic = topics.chains(Random(seed), plain, 12, 4)
        assert 6 <= len(topic.statements) <= 18
        chains = [turn for turn in topic.turns if turn.kind == "chain"]
        assert chains and len(topic.turns) <= 4
        for turn in chains:
            places = [next(i for i, line in enumerate(topic.statements) if name in line) for name in turn.values]
            assert places == sorted(places)


def test_every_form_of_topic_can_be_asked_in_made_up_wordings(mixture: Mixture):
    for seed in range(40):
        random = Random(seed)
        for form in FORMS:
            topic = form.make(random, mixture._language(random), 6, 4)
            assert topic.late or topic.turns or form.make is topics.overviews
            assert not any("{" in turn.prompt for turn in topic.turns)


def test_a_bare_quote_goes_on_with_the_tokens_of_the_document(mixture: Mixture, tokenizer: Tokenizer):
    found = 0
    for seed in range(40):
        document = mixture.code.span(600, Random(seed))
        turn = bare_quote(Random(seed), document)
        if turn:
            ids, rest = encode(tokenizer, document), encode(tokenizer, turn.answer)
            assert any(ids[i : i + len(rest)] == rest for i in range(len(ids)))
            found += 1
    assert found > 30
