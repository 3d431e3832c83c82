"""What a record says of a local model is what the model did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from farspan.context import Context
from farspan.measure.counter import asked_of
from farspan.measure.evidence import Holdings
from farspan.measure.execute import evaluate, without_times
from farspan.measure.local import LocalModel
from farspan.measure.outcome import Outcome
from farspan.measure.record import Mode, Record
from farspan.measure.settings import Batch, Cell, Column
from farspan.methods.fetch.quest import Quest
from farspan.model import Model
from farspan.plan import Plan
from farspan.tasks.base import Passage, Question, seeded
from tests.measure.situations import FILL, Letters, subject
from tests.models import tiny_tokenizer

LENGTH = 240


def evaluated(task: Letters, plan: str, mode: Mode = "agnostic", kind: str = "llama") -> tuple[Passage, list[Record]]:
    batch, model = Batch(Cell(task, LENGTH), (1,)), subject(kind)
    (records,) = evaluate(model, batch, [Column(Plan.parse(plan), mode)], 0)
    random = seeded(task, length=LENGTH, seed=0, index=1)
    return task.generate(1, length=LENGTH, counter=model.counter, random=random), records


def answered(passage: Passage, questions: Sequence[Question], plan: Plan, mode: Mode) -> list[Outcome]:
    ((outcomes,),) = subject().answer([replace(passage, questions=tuple(questions))], [plan], mode)
    return outcomes


def test_replies_are_those_of_reading_once_and_asking() -> None:
    passage, records = evaluated(Letters(prefix="It was"), "snapkv:60(window=8)")
    context = subject().model.read(passage.context, "snapkv:60(window=8)")
    for question, record in zip(passage.questions, records, strict=True):
        answer = context.ask(asked_of(question), max_new_tokens=question.max_new_tokens)
        assert record.reply == answer.text and record.finish == answer.finish_reason
        assert record.reply_tokens == len(answer.token_ids) and record.held == context.held == 60
        assert record.tokens == context.seen + answer.usage.question_tokens
        assert record.held_bytes == context.held_bytes and record.full_bytes == context.full_bytes


def test_aware_mode_reads_with_each_question_as_probe() -> None:
    plan = "snapkv:60(window=8)"
    passage, records = evaluated(Letters(kind="continuation"), plan, "aware")
    shares = []
    for question, record in zip(passage.questions, records, strict=True):
        context = subject().model.read(passage.context, plan, probe=asked_of(question))
        assert record.reply == context.ask(asked_of(question), max_new_tokens=question.max_new_tokens).text
        excerpt = Holdings(context).excerpt(passage.context, question.gold[0])
        assert record.excerpt == excerpt
        shares.append(excerpt)
    blind = evaluated(Letters(kind="continuation"), plan)[1]
    assert blind[0].excerpt == blind[1].excerpt and blind[0].excerpt not in shares, "the question changed what is kept"


def test_questions_with_the_same_probe_share_a_reading_with_it() -> None:
    plan = Plan.parse("snapkv:60(window=8)")
    passage, _ = evaluated(Letters(kind="question"), str(plan))
    probe = "Which letter is that of the first of them?"
    questions = [replace(question, probe=probe) for question in passage.questions]
    context = subject().model.read(passage.context, plan, probe=probe)
    outcomes = answered(passage, [*questions, passage.questions[0]], plan, "aware")
    for question, outcome in zip(questions, outcomes[:-1], strict=True):
        assert outcome.reply == context.ask(question.text, max_new_tokens=question.max_new_tokens).text
        assert outcome.excerpt == Holdings(context).excerpt(passage.context, question.gold[0])
    assert outcomes[-1].excerpt != outcomes[0].excerpt, "without a probe of its own, the question is the probe"


def test_a_likelihood_is_the_score_of_the_reference() -> None:
    passage, (record,) = evaluated(Letters(kind="likelihood", questions=1), "full")
    (question,) = passage.questions
    context = subject().model.read(passage.context, "full")
    scored = context.score(question.references[0])
    assert record.nll == pytest.approx(-sum(scored.logprobs) / len(scored.logprobs))
    assert record.official == pytest.approx(sum(scored.first) / len(scored.first))
    assert record.scored_tokens == len(scored.logprobs) and record.reply == "" and record.finish is None
    assert record.tokens == context.seen + len(scored.token_ids)


def test_tokens_are_counted_as_they_are_fed() -> None:
    for kind in ("question", "continuation"):
        passage, records = evaluated(Letters(kind=kind, prefix=" It"), "full")
        for question, record in zip(passage.questions, records, strict=True):
            assert subject().counter.prompt(passage.context, question) == record.tokens
    passage, (record,) = evaluated(Letters(kind="likelihood", questions=1), "full")
    reference = len(tiny_tokenizer()(passage.questions[0].references[0])["input_ids"])
    assert subject().counter.prompt(passage.context, passage.questions[0]) == record.tokens - reference


def test_prompts_have_the_same_hash_where_they_are_the_same() -> None:
    hashes = {plan: [r.prompt_hash for r in evaluated(Letters(), plan)[1]] for plan in ("full", "int8", "truncate:90")}
    assert hashes["full"] == hashes["int8"] and len(set(hashes["full"])) == 2
    assert not set(hashes["full"]) & set(hashes["truncate:90"])


def naive_shares(context: Context, text: str, start: int, end: int) -> list[float]:
    """Per character of text[start:end] the share of heads that hold a token made from it, from the public face."""
    heads = [set(p.tolist()) for view in context.inspect() if view.window is None for p in view.positions]
    shares = [0.0] * (end - start)
    for token in range(context.seen):
        segment = context.locate(token)
        if segment is not None:
            held = sum(token in head for head in heads) / len(heads)
            for at in range(max(segment.start, start), min(segment.end, end)):
                shares[at - start] = max(shares[at - start], held)
    return shares


@pytest.mark.parametrize("plan", ["full", "window:60", "snapkv:60(window=8)", "truncate:90", "truncate:90 | window:40"])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_an_excerpt_shows_what_is_held_of_each_token(plan: str, kind: str) -> None:
    text = FILL * 8 + "Letter 9 was sent in May. " + FILL * 8
    gold = (len(FILL) * 8, len(FILL) * 8 + 25)
    context = subject(kind).model.read(text, plan)
    excerpt = Holdings(context).excerpt(text, gold)
    assert excerpt is not None
    assert excerpt.text == text[gold[0] - 300 : gold[1] + 300] and excerpt.start == gold[0] - 300
    assert excerpt.text[slice(*excerpt.gold)] == "Letter 9 was sent in May."
    wanted = naive_shares(context, text, excerpt.start, excerpt.start + len(excerpt.text))
    given = [0.0] * len(excerpt.text)
    at = 0
    for start, end, share in excerpt.held:
        assert start == at and end > start, "no gap and no overlap"
        at = end
        given[start:end] = [share] * (end - start)
    assert at == len(excerpt.text)
    assert given == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("plan, present", [("full", True), ("window:40", True), ("truncate:90", False)])
def test_gold_is_present_where_it_was_fed_whole(plan: str, present: bool) -> None:
    _, records = evaluated(Letters(), plan)
    assert {r.gold_present for r in records} == {present}
    assert not any(r.truncated for r in records), "the plan asked for it"


def test_a_text_cut_where_nothing_is_left_out_is_whole() -> None:
    tokens = len(tiny_tokenizer()(FILL * 3)["input_ids"])
    outcome = answered(
        Passage(context=FILL * 3, questions=()),
        (Question(text="Why?", references=("",), gold=((0, len(FILL) * 3 - 1),)),),
        Plan.parse(f"truncate:{tokens - 1}"),
        "agnostic",
    )[0]
    assert outcome.gold_present is False
    outcome = answered(
        Passage(context=FILL * 3, questions=()),
        (Question(text="Why?", references=("",), gold=((0, len(FILL) * 3 - 1),)),),
        Plan.parse(f"truncate:{tokens}"),
        "agnostic",
    )[0]
    assert outcome.gold_present is True


def test_many_questions_are_asked_in_batches_and_answered_in_order() -> None:
    passage, records = evaluated(Letters(questions=3), "full")
    reverse = list(reversed(passage.questions))
    outcomes = answered(passage, [*reverse, *passage.questions], Plan.parse("full"), "agnostic")
    assert [o.reply for o in outcomes] == [r.reply for r in reversed(records)] + [r.reply for r in records]


def test_one_question_that_cannot_be_asked_spoils_no_other() -> None:
    passage, records = evaluated(Letters(), "full")
    empty = Question(text=" ", references=("",), max_new_tokens=passage.questions[0].max_new_tokens)
    good, bad = answered(passage, [passage.questions[0], empty], Plan.parse("full"), "agnostic")
    assert good.reply == records[0].reply and good.error is None
    assert bad.error is not None and "the question is empty" in bad.error and bad.held_bytes


@pytest.mark.parametrize(("plan", "mode"), [("full", "agnostic"), ("snapkv:60(window=8)", "aware")])
def test_contexts_that_are_answered_together_say_what_they_say_alone(plan: str, mode: Mode) -> None:
    model, columns = subject(), [Column(Plan.parse(plan), mode)]
    for task in (Letters(breaks_at=1), Letters(kind="likelihood")):
        cell = Cell(task, LENGTH)
        (together,) = evaluate(model, Batch(cell, (0, 1, 2, 3)), columns, 0)
        alone = [r for index in range(4) for its in evaluate(model, Batch(cell, (index,)), columns, 0) for r in its]
        assert [without_times(r) for r in together] == [without_times(r) for r in alone]
        assert [r.index for r in together] == ([0, 0, 1, 2, 2, 3, 3] if task.breaks_at else [0, 0, 1, 1, 2, 2, 3, 3])


def test_a_reading_that_fails_spoils_no_other_of_its_batch() -> None:
    model, passages = subject("gpt2"), [Passage(context=FILL * n, questions=()) for n in (2, 400, 3)]
    asked = Question(text="Why?", references=("",), max_new_tokens=3)
    passages = [replace(passage, questions=(asked,)) for passage in passages]
    (((first,), (second,), (third,)),) = model.answer(passages, [Plan.parse("full")], "agnostic")
    assert first.error is None and third.error is None and first.reply_tokens and third.reply_tokens
    assert second.error is not None and "1024" in second.error
    assert list(model.answer([], [Plan.parse("full")], "aware")) == [[]]


FETCHING = (
    *("full", "topk:20(recent=8)", "quest:16(page=8, recent=8)", "int8", "int8 | topk:20(recent=8)"),
    *("quest:32(page=8, recent=8)", "quest:16(page=4, recent=8)", "quest:24(page=4, recent=8)"),
)


@pytest.mark.parametrize("mode", ["agnostic", "aware"])
def test_plans_that_read_alike_share_a_reading_and_answer_as_alone(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = (*FETCHING, "snapkv:60(window=8)", "snapkv:60(window=8) | topk:20(recent=8)")
    columns, batch = [Column(Plan.parse(text), mode) for text in texts], Batch(Cell(Letters(), LENGTH), (1, 2))
    alone = {c: next(iter(evaluate(subject(), batch, [c], 0))) for c in columns}
    read = Model.read
    plans: list[str] = []

    def counted(self: Model, documents: object, plan: Plan, **options: object) -> Context:
        plans.append(str(plan))
        return read(self, documents, plan, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "read", counted)
    index, made = Quest.index, list[int]()
    monkeypatch.setattr(Quest, "index", lambda self, sealed: made.append(self.page) or index(self, sealed))
    together = list(evaluate(subject(), batch, columns, 0))
    assert made == [8] * 6 + [4] * 6, "once for three layers of two contexts, however many entries are fetched"
    assert plans == ["full"] * 2 + ["int8"] * 2 + ["snapkv:60(window=8)"] * (2 if mode == "agnostic" else 4)
    assert len(together) == len(columns)
    for records in together:
        (column,) = {Column(Plan.parse(record.plan), record.mode) for record in records}
        ours, theirs = ([replace(without_times(r), peak_bytes=0) for r in its] for its in (records, alone[column]))
        assert ours == theirs


def test_a_plan_that_fails_spoils_no_other_of_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    under = Context.under

    def fails(self: Context, plan: Plan) -> Context:
        if "quest" in str(plan):
            raise MemoryError("no room for an index")
        return under(self, plan)

    monkeypatch.setattr(Context, "under", fails)
    columns = [Column(Plan.parse(text), "agnostic") for text in FETCHING[:3]]
    full, topk, quest = evaluate(subject(), Batch(Cell(Letters(), LENGTH), (1,)), columns, 0)
    assert all(record.error == "no room for an index" and record.held for record in quest)
    assert not any(record.error for record in (*full, *topk))


def test_recall_is_measured_where_a_plan_fetches() -> None:
    model = subject().model
    columns = [Column(Plan.parse(text), "agnostic") for text in FETCHING[:2]]
    measured = LocalModel(model, recall=True)
    full, fetched = evaluate(measured, Batch(Cell(Letters(), LENGTH), (1,)), columns, 0)
    plain = list(evaluate(subject(), Batch(Cell(Letters(), LENGTH), (1,)), columns, 0))[1]
    passage, _ = evaluated(Letters(), "full")
    context = model.read(passage.context, FETCHING[1])
    for record, without, question in zip(fetched, plain, passage.questions, strict=True):
        answer = context.ask(asked_of(question), max_new_tokens=question.max_new_tokens, recall=True)
        assert answer.recall and record.recall == pytest.approx([layer.mass for layer in answer.recall], abs=1e-6)
        assert record.entries_read == pytest.approx(sum(layer.read for layer in answer.recall) / len(answer.recall))
        assert 0 < min(record.recall) < 1 and without.recall is None and without.reply == record.reply
        assert Record.from_line(record.to_line()) == record
    assert not any(record.recall or record.entries_read for record in full)
    assert measured.describe() == {**subject().describe(), "recall": True}
    assert "recall was measured" in measured.notes()[0]


def test_a_pattern_says_which_share_of_the_pairs_it_showed() -> None:
    _, (record, _) = evaluated(Letters(), "ashape(sinks=2, window=20)")
    context = subject().model.read(FILL * 30, "ashape(sinks=2, window=20)")
    tokens = context.seen
    shown = sum(min(p + 1, 20) + min(2, max(0, p + 1 - 20)) for p in range(tokens))
    assert context.cost.pairs == pytest.approx(shown / (tokens * (tokens + 1) / 2))
    layered = subject().model.read(FILL * 30, "trianglemix(start=1, sinks=2, window=20, last=9) | layerwise(chunk=64)")
    late = sum(p + 1 - min(p + 1, 20) - min(2, max(0, p + 1 - 20)) for p in range(tokens - 9, tokens))
    share = (1 + 2 * (shown + late) / (tokens * (tokens + 1) / 2)) / 3
    assert layered.cost.pairs == pytest.approx(share), "one layer dense, two with their last rows dense"
    assert record.pairs is not None and 0 < record.pairs < 1
    assert evaluated(Letters(), "full")[1][0].pairs is None
