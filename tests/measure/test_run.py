"""A run is every sample once, whatever happens on the way."""

from __future__ import annotations

import json
import os
from collections import Counter as Multiset
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from farspan.errors import DamagedFile, PlanDoesNotApply, UsageError
from farspan.measure.execute import without_times
from farspan.measure.journal import MANIFEST, SAMPLES, Journal, read_manifest
from farspan.measure.record import Record
from farspan.measure.run import RunProgress, run
from farspan.plan import Plan
from tests.measure.situations import Coin, Letters, settings, subject


def records(path: Path) -> list[Record]:
    return [Record.from_line(line) for line in (path / SAMPLES).read_text().splitlines()]


def results(path: Path) -> list[Record]:
    """What two runs of the same settings agree on, in a fixed order."""
    return sorted((without_times(r) for r in records(path)), key=lambda r: (r.id, r.plan_hash, r.mode))


def test_every_sample_stands_once_with_what_it_cost(tmp_path: Path) -> None:
    wanted = settings(modes=("agnostic", "aware"))
    run(wanted, subject(), tmp_path / "run")
    found = records(tmp_path / "run")
    keys = Multiset((r.id, r.plan_hash, r.mode) for r in found)
    assert len(keys) == len(found) == 2 * 2 * 2 * 3 * 2, "plans, modes, lengths, contexts, questions"
    for r in found:
        assert r.status == "ok" and r.error is None and r.official in (0.0, 1.0) and r.parsed is not None
        assert r.tokens + r.max_new_tokens <= r.length and r.tokens > r.length - 60
        assert 0 < r.reply_tokens <= r.max_new_tokens and r.finish in ("stop", "length")
        assert r.held is not None and r.held_bytes and r.full_bytes and r.peak_bytes and r.seconds and r.read_seconds
        assert r.gold_present is True and r.truncated is False and r.excerpt is not None
        assert r.excerpt.text[slice(*r.excerpt.gold)].startswith("Letter ") and r.depth is not None
        assert r.labels == {"place": r.question} and r.questions == 2
        assert (r.held == 40) == (r.plan != "full")
    contexts = {
        (r.length, r.index): {o.context_id for o in found if (o.length, o.index) == (r.length, r.index)} for r in found
    }
    assert all(len(ids) == 1 for ids in contexts.values()), "plans and modes are asked of the same contexts"


def test_a_manifest_says_what_was_run_and_on_what(tmp_path: Path) -> None:
    run(settings(), subject(), tmp_path)
    told = read_manifest(tmp_path)
    assert [p["text"] for p in told["settings"]["plans"]] == ["full", "window:40 | int8"]
    assert told["settings"]["tasks"][0] == json.loads(json.dumps(Letters().describe()))
    assert told["subject"]["fingerprint"] == subject().model.fingerprint
    assert told["subject"]["chat_template"] is None and "no chat template" in told["notes"][0]
    (where,) = told["environments"]
    assert where["packages"]["torch"] and where["cpu"] and where["threads"] >= 1 and where["cores"] >= 1


def test_nothing_is_evaluated_twice(tmp_path: Path) -> None:
    coin = Coin()
    run(settings(), coin, tmp_path)
    before = (tmp_path / SAMPLES).read_bytes()
    coin.asked.clear()
    run(settings(), coin, tmp_path)
    assert coin.asked == [] and (tmp_path / SAMPLES).read_bytes() == before


class Killed(Exception):
    pass


class Dying(Coin):
    """A subject whose process dies at its n-th answer."""

    def __init__(self, lives: int, rate: float = 0.5) -> None:
        super().__init__(rate)
        self.lives = lives

    def answer(self, *arguments: object) -> Iterator:  # type: ignore[override]
        self.lives -= 1
        if self.lives < 0:
            raise Killed
        return super().answer(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(8))
def test_a_run_cut_at_any_byte_ends_as_one_that_was_not(tmp_path: Path, seed: int) -> None:
    wanted, random = settings(samples=6, modes=("agnostic", "aware")), Random(seed)
    run(wanted, Coin(0.5), tmp_path / "whole")
    cut = tmp_path / "cut"
    for _ in range(4):
        with pytest.raises(Killed):
            run(wanted, Dying(random.randrange(1, 9)), cut)
        samples = cut / SAMPLES
        os.truncate(samples, random.randrange(samples.stat().st_size + 1))
    run(wanted, Coin(0.5), cut)
    assert results(cut) == results(tmp_path / "whole")
    assert len(records(cut)) == len(records(tmp_path / "whole"))


def test_samples_that_were_lost_in_any_order_are_made_again(tmp_path: Path) -> None:
    wanted = settings(samples=4)
    run(wanted, Coin(0.5), tmp_path)
    whole, file = results(tmp_path), tmp_path / SAMPLES
    lines = file.read_text().splitlines(keepends=True)
    Random(3).shuffle(lines)
    file.write_text("".join(lines[: len(lines) // 2]))
    run(wanted, Coin(0.5), tmp_path)
    assert results(tmp_path) == whole


def test_a_half_written_last_line_is_cut_off_and_damage_elsewhere_is_an_error(tmp_path: Path) -> None:
    run(settings(), Coin(), tmp_path)
    file, whole = tmp_path / SAMPLES, results(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    for torn in (lines[-1][:-1], lines[-1][:40], b'{"id": "x"}\n', b"\x00" * 30, b"\xff\n"):
        file.write_bytes(b"".join([*lines[:-1], torn]))
        run(settings(), Coin(), tmp_path)
        assert results(tmp_path) == whole
    file.write_bytes(b"".join([*lines[:3], b"{}\n", *lines[3:]]))
    with pytest.raises(DamagedFile, match=r"samples.jsonl, line 4: .*Take the line out"):
        run(settings(), Coin(), tmp_path)


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    run(settings(), Coin(), tmp_path)
    before = (tmp_path / SAMPLES).read_bytes(), (tmp_path / MANIFEST).read_bytes()
    for other, model, told in [
        (settings(samples=9), Coin(), "samples: was 3, now 9"),
        (settings(plans=(Plan.parse("full"),)), Coin(), "plans: was full, window:40 | int8, now full"),
        (
            settings(plans=(Plan.parse("full"), Plan.parse("int8"))),
            Coin(),
            "plans[1].text: was 'window:40",
        ),
        (settings(tasks=(Letters(questions=3),)), Coin(), "tasks[0].parameters.questions: was 2, now 3"),
        (settings(seed=5), Coin(), "seed: was 0, now 5"),
        (settings(), Coin(rate=0.4), "model: rate: was 1.0, now 0.4"),
    ]:
        with pytest.raises(UsageError, match="begun with other settings") as caught:
            run(other, model, tmp_path)
        assert told in str(caught.value) and "another folder" in str(caught.value)
    assert before == ((tmp_path / SAMPLES).read_bytes(), (tmp_path / MANIFEST).read_bytes())


def test_a_run_that_went_on_elsewhere_names_both_machines(tmp_path: Path) -> None:
    class Elsewhere(Coin):
        def environment(self) -> dict:
            return {"device": "another"}

    with pytest.raises(Killed):
        run(settings(), Dying(2, rate=1.0), tmp_path)
    run(settings(), Elsewhere(), tmp_path)
    run(settings(), Coin(), tmp_path)
    assert [each["device"] for each in read_manifest(tmp_path)["environments"]] == ["none", "another"]


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(UsageError, match=rf"another process \(process {os.getpid()}\)"):
        run(settings(), Coin(), tmp_path)
    run(settings(), Coin(), tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds other files and is no run"):
        run(settings(), Coin(), tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]
    run(settings(), Coin(), tmp_path / "run")
    (tmp_path / "run" / MANIFEST).unlink()
    with pytest.raises(UsageError, match="holds samples and no manifest"):
        run(settings(), Coin(), tmp_path / "run")
    (tmp_path / "run" / MANIFEST).write_text("{}")
    with pytest.raises(DamagedFile, match=r"run.json is no manifest"):
        run(settings(), Coin(), tmp_path / "run")


def test_what_goes_wrong_for_one_sample_is_its_record(tmp_path: Path) -> None:
    wanted = settings(tasks=(Letters(breaks_at=1),), plans=(Plan.parse("full"), Plan.parse("snapkv:14(window=8)")))
    tally = run(wanted, subject(), tmp_path)
    found = records(tmp_path)
    broken = [r for r in found if r.status == "error"]
    assert len(broken) == tally.errors == 2 * 2 and {r.index for r in broken} == {1}
    assert {r.error for r in broken} == {"this sample cannot be made"}
    assert all(r.official is None and r.reply == "" for r in broken)


def test_a_context_that_does_not_fit_is_an_error_of_its_samples(tmp_path: Path) -> None:
    wanted = settings(lengths=(240, 1400), samples=1, plans=(Plan.parse("full"),))
    run(wanted, subject("gpt2"), tmp_path)
    by_length = {r.length: r for r in records(tmp_path)}
    assert by_length[240].status == "ok"
    assert by_length[1400].status == "error" and "1024" in str(by_length[1400].error)
    assert len(records(tmp_path)) == 4


def test_errors_may_be_tried_again(tmp_path: Path) -> None:
    class Moody(Coin):
        good = False

        def toss(self, passage, plan, mode):  # type: ignore[no-untyped-def, override]
            from farspan.measure.outcome import hopeless

            good = super().toss(passage, plan, mode)
            return good if self.good or plan == Plan() else hopeless(len(good), ConnectionError("gone"))

    moody = Moody()
    assert run(settings(), moody, tmp_path).errors == 12
    moody.good = True
    assert run(settings(), moody, tmp_path).errors == 12, "an error is a result too"
    assert run(settings(), moody, tmp_path, retry_errors=True).errors == 0
    assert len(records(tmp_path)) == 24 + 12
    assert run(settings(), moody, tmp_path).errors == 0 and len(records(tmp_path)) == 24 + 12


def test_plans_that_do_not_apply_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PlanDoesNotApply, match=r"the plan 'int8' does not apply"):
        run(settings(plans=(Plan.parse("int8"),)), subject("mistral"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_says_how_far_it_is_and_how_long_it_takes(tmp_path: Path) -> None:
    told: list[RunProgress] = []
    run(settings(), Coin(), tmp_path, progress=told.append)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[0].done == 0 and told[0].left_seconds is None and told[-1].done == told[-1].total == (160 + 240) * 3 * 2
    assert told[-1].samples == 24 and told[-1].left_seconds == 0
    assert all(p.left_seconds is not None and p.left_seconds > 0 for p in told[1:-1])


def test_sampling_stops_when_every_plan_is_known_well_enough(tmp_path: Path) -> None:
    wanted = settings(samples=400, until=0.1, lengths=(160,))
    run(wanted, Coin(1.0), tmp_path / "sure")
    run(wanted, Coin(0.5), tmp_path / "unsure")
    sure, unsure = ({r.index for r in records(tmp_path / name)} for name in ("sure", "unsure"))
    assert 8 <= max(sure) < 40 < max(unsure) < 399
    assert sure == set(range(max(sure) + 1)) and unsure == set(range(max(unsure) + 1))
    assert "±0.1" in read_manifest(tmp_path / "sure")["notes"][0]
    with pytest.raises(Killed):
        run(wanted, Dying(90), tmp_path / "cut")
    run(wanted, Coin(0.5), tmp_path / "cut")
    assert results(tmp_path / "cut") == results(tmp_path / "unsure"), "an interrupted run stops at the same sample"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


@pytest.mark.parametrize("seed", range(4))
def test_batches_stay_the_same_however_often_a_run_is_cut(tmp_path: Path, seed: int) -> None:
    class Keen(Dying):
        """Its answers depend on what else is answered with them."""

        def answer(self, passages, plans, mode):  # type: ignore[no-untyped-def, override]
            together = "".join(passage.id for passage in passages)
            for outcomes in super().answer(passages, plans, mode):
                yield [[replace(o, reply=f"{o.reply} {together}") for o in its] for its in outcomes]

    wanted, random = settings(samples=5, batch=2), Random(seed)
    run(wanted, Keen(100), tmp_path / "whole")
    cut = tmp_path / "cut"
    for _ in range(4):
        with pytest.raises(Killed):
            run(wanted, Keen(random.randrange(1, 4)), cut)
        os.truncate(cut / SAMPLES, random.randrange((cut / SAMPLES).stat().st_size + 1))
    run(wanted, Keen(100), cut)
    assert results(cut) == results(tmp_path / "whole") and len(records(cut)) == 2 * 2 * 5 * 2
    assert "2 contexts are answered together" in read_manifest(cut)["notes"][-1]


def test_a_batch_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch 0 answers nothing"):
        settings(batch=0)
    run(settings(batch=2), Coin(), tmp_path)
    with pytest.raises(UsageError, match="batch: was 2, now 1"):
        run(settings(), Coin(), tmp_path)


def test_time_left_goes_by_the_pace_of_each_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("farspan.measure.run.time.perf_counter", lambda: clock[0])

    class Slow(Coin):
        def answer(self, passages, plans, mode):  # type: ignore[no-untyped-def, override]
            clock[0] += 9.0 if len(passages[0].questions) == 3 else 1.0
            return super().answer(passages, plans, mode)

    told: list[RunProgress] = []
    slow = replace(Letters(questions=3), name="slow")
    wanted = settings(tasks=(Letters(), slow), lengths=(200,), plans=(Plan(),), samples=4)
    run(wanted, Slow(), tmp_path, progress=told.append)
    assert [t.left_seconds for t in told] == [None, 7.0, 6.0, 5.0, 4.0, 27.0, 18.0, 9.0, 0.0]
