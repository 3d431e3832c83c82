"""One batch of a run: make the passages, have them answered under every plan, judge the replies, fill in records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from farspan.errors import FarspanError
from farspan.measure.outcome import Outcome, Subject, message_of
from farspan.measure.record import Record
from farspan.measure.settings import Batch, Cell, Column
from farspan.tasks.base import Passage, Question, Score, Task, sample_id, seeded


def evaluate(subject: Subject, batch: Batch, columns: Sequence[Column], seed: int) -> Iterator[list[Record]]:
    """-> for each column the records of all questions of these contexts; columns that read alike follow one another.

    A passage that cannot be made is one record with an error for each column: nothing is dropped in silence.
    """
    made = [_made(subject, batch.cell, index, seed) for index in batch.indices]
    passages = [passage for passage in made if isinstance(passage, Passage)]
    for group in _reading_alike(columns):
        answers = subject.answer(passages, [column.plan for column in group], group[0].mode)
        for column, answered in zip(group, answers, strict=True):
            left, records = iter(answered), []
            for index, passage in zip(batch.indices, made, strict=True):
                sample = _Sample(batch.cell, index, seed, column)
                if isinstance(passage, Outcome):
                    records.append(_record(sample, _NOTHING, 0, passage))
                else:
                    records += [_record(sample, passage, *each) for each in enumerate(next(left))]
            yield records


def _reading_alike(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns whose plans read alike in one mode, together; each group where its first one stood."""
    groups: list[list[Column]] = []
    for column in columns:
        same = (g for g in groups if g[0].mode == column.mode and g[0].plan.reading == column.plan.reading)
        group = next(same, None)
        if group is None:
            groups.append([column])
        else:
            group.append(column)
    return groups


_NOTHING = Passage(context="", questions=(Question(text="", references=()),))


@dataclass(frozen=True, slots=True)
class _Sample:
    """One context under one column."""

    cell: Cell
    index: int
    seed: int
    column: Column


def _made(subject: Subject, cell: Cell, index: int, seed: int) -> Passage | Outcome:
    """A sample's passage, or the error that it ended in."""
    random = seeded(cell.task, length=cell.length, seed=seed, index=index)
    try:
        return cell.task.generate(index, length=cell.length, counter=subject.counter, random=random)
    except FarspanError as error:
        return Outcome(error=message_of(error))


def _score(task: Task, question: Question, outcome: Outcome) -> Score | None:
    """By the task's rules; a likelihood by the share of reference tokens that came first, strictly all of them."""
    if outcome.error is not None:
        return None
    if outcome.first_share is not None:
        return Score(official=outcome.first_share, strict=float(outcome.first_share == 1.0))
    return task.score(question, outcome.reply)


def _record(sample: _Sample, passage: Passage, number: int, outcome: Outcome) -> Record:
    (task, length), index, seed, column = sample.cell, sample.index, sample.seed, sample.column
    question = passage.questions[number]
    score = _score(task, question, outcome)
    error = outcome.error
    return Record(
        id=sample_id(task, length=length, seed=seed, index=index, question=number),
        task=task.id,
        version=task.version,
        length=length,
        index=index,
        question=number,
        questions=len(passage.questions),
        context_id=passage.id,
        plan=str(column.plan),
        plan_hash=column.plan.hash,
        mode=column.mode,
        status="ok" if error is None else "error",
        error=error,
        official=score.official if score else None,
        strict=score.strict if score else None,
        parsed=score.parsed if score else None,
        reply=outcome.reply,
        finish=outcome.finish,
        nll=outcome.nll,
        scored_tokens=outcome.scored_tokens,
        text=question.text,
        references=question.references,
        depth=passage.depth(question),
        gold_present=outcome.gold_present,
        labels={**passage.labels, **question.labels},
        tokens=outcome.tokens,
        characters=len(passage.context),
        reply_tokens=outcome.reply_tokens,
        max_new_tokens=question.max_new_tokens,
        truncated=outcome.truncated or bool(question.labels.get("truncated")),
        prompt_hash=outcome.prompt_hash,
        held=outcome.held,
        held_bytes=outcome.held_bytes,
        full_bytes=outcome.full_bytes,
        peak_bytes=outcome.peak_bytes,
        read_seconds=outcome.read_seconds,
        first_token_seconds=outcome.first_token_seconds,
        seconds=outcome.seconds,
        tokens_per_second=outcome.tokens_per_second,
        recall=outcome.recall,
        entries_read=outcome.entries_read,
        pairs=outcome.pairs,
        excerpt=outcome.excerpt,
    )


def without_times(record: Record) -> Record:
    """The part of a record that two runs of the same settings agree on."""
    return replace(record, read_seconds=None, first_token_seconds=None, seconds=None, tokens_per_second=None)
