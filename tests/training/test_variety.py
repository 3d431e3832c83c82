"""Formats and sentences made up for training: different enough, well formed, and nothing of evaluation's."""

import re
from random import Random

from farspan.tasks._vocabulary import TRAINING as VOCABULARY
from farspan.tasks._wording import EVALUATION
from training import grammar
from training.formats import made_up, with_formats

WORDS = tuple(one + two for one in ("harb", "lant", "modu", "sock", "retu") for two in ("or", "ern", "le", "et", "rn"))
ITS_OWN = (
    "assigned to|the register|anyone who|was handed|they changed|one thing to know|keep in mind|yesterday|serves as|"
    "everyone in|can you tell|according to|is given for|would like to|comes with|please repeat|is concerned|did it say|"
    "would one find|hold {value}|stand for {value}|carry on|words follow|"
    "the number of|how often|was assigned a|go through the document"
).split("|")
"""Phrases by which evaluation's wordings are known."""


def test_these_phrases_are_evaluations():
    forms = (EVALUATION.statements, EVALUATION.questions, EVALUATION.chain_questions, EVALUATION.quotes)
    forms += (EVALUATION.counts, EVALUATION.listings)
    said = [sentence.lower() for form in forms for sentence in form]
    assert all(any(phrase in sentence for sentence in said) for phrase in ITS_OWN)
    assert all(any(phrase in sentence for phrase in ITS_OWN) for sentence in said)


def test_composed_sentences_name_their_parts_and_say_nothing_that_evaluation_says():
    said: set[str] = set()
    for seed in range(600):
        random = Random(seed)
        for compose, parts in (
            (grammar.statement, "key kind value"),
            (grammar.question, "key kind"),
            (grammar.several_values, "key kinds"),
            (grammar.several_keys, "keys kinds"),
            (grammar.chain_question, "value"),
            (grammar.quote_question, "quote"),
            (grammar.count, "kinds?"),
            (grammar.listing, "kinds?"),
        ):
            made = compose(WORDS, random)
            assert re.fullmatch(parts, " ".join(sorted(re.findall(r"\{(\w+)\}", made))))
            assert not any(phrase in made.lower() for phrase in ITS_OWN), made
            said.add(made)
        first, later = grammar.chain(WORDS, random)
        assert re.findall(r"\{(\w+)\}", first) == ["name", "value"]
        assert re.findall(r"\{(\w+)\}", later) == ["name", "other"]
    assert len(said) > 2500


def test_formats_differ_and_never_have_evaluations_types():
    for seed in range(300):
        make = made_up(Random(seed))
        made = [make(Random(number), WORDS) for number in range(60)]
        assert len(set(made)) > 15
        assert not any("/" in each or re.search(r"\d{4}-\d\d-\d\d", each) for each in made)
        assert all(each == each.strip() and each for each in made)


def test_a_document_has_made_up_formats_sometimes():
    changed = [with_formats(VOCABULARY, Random(seed)) for seed in range(200)]
    for part in ("keys", "values"):
        share = sum("format" in getattr(each, part) for each in changed) / len(changed)
        assert 0.3 < share < 0.6
