"""farspan eval: a run from the command line, taken up again, refused with reasons, and foretold."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farspan.cli import main
from farspan.measure.journal import Journal
from farspan.tasks import catalogue, ruler_files
from tests.cli.conftest import Run
from tests.endpoints.server import Server, serving
from tests.measure.situations import Letters
from tests.measure.test_run import records, results
from tests.tasks.loading import write
from tests.tasks.test_ruler_loaded import ruler_row

PLANS = ("--plan", "full", "--plan", "window:40 | int8")


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A catalogue of small tasks: what tasks themselves are worth is tested elsewhere."""
    tasks = (Letters(), Letters(name="words", kind="continuation"), Letters(name="long", minimum_length=200))
    monkeypatch.setattr(catalogue, "table", lambda: tasks)
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture
def command(tiny_path: Path) -> tuple[str | Path, ...]:
    return ("eval", tiny_path, *PLANS, "--task", "letters", "--lengths", "160,240", "--samples", "2", "-o", "run")


def test_a_run_is_made_and_told_in_a_table(run: Run, command: tuple) -> None:
    result = run(*command)
    assert result.code == 0
    assert "note: the tokenizer has no chat template" in result.err
    head = result.out.splitlines()[0]
    assert head.split() == ["run", "run,", "16", "samples"]
    scores = [line for line in result.out.splitlines() if re.search(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", line)]
    assert len(scores) == 2 and "160" in result.out and "window:40 | int8" in result.out
    assert re.search(r"window:40 \| int8 +160 +\d+\.\d KiB +\d+% ", result.out)
    assert len(records(Path("run"))) == 16


def test_the_json_result_has_the_cells(run: Run, command: tuple) -> None:
    told = run(*command, "--json").json
    assert told["run"] == "run" and told["samples"] == 16 and told["errors"] == 0
    assert len(told["cells"]) == 4 and {c["length"] for c in told["cells"]} == {160, 240}
    for cell in told["cells"]:
        assert set(cell["official"]) == {"mean", "low", "high"} and cell["n"] == 4 and cell["contexts"] == 2
        assert cell["held_bytes"] > 0 and cell["read_seconds"] > 0
    assert told["settings"]["samples"] == 2


def test_what_is_fetched_and_read_under_patterns_is_told(run: Run, tiny_path: Path) -> None:
    plans = ("--plan", "full", "--plan", "topk:20(recent=8)", "--plan", "ashape(sinks=2, window=20)")
    asked = ("eval", tiny_path, *plans, "--task", "letters", "--lengths", "160", "--samples", "2", "-o", "run")
    first = run(*asked, "--recall")
    assert first.code == 0 and "note: recall was measured" in first.err
    (head,) = (line for line in first.out.splitlines() if line.startswith("cost "))
    assert head.endswith("tokens/s  recall  entries read  pairs")
    (fetched,) = (line for line in first.out.splitlines() if re.match(r"topk:20\(recent=8\) +160 ", line))
    assert re.search(r" \d+\.\d% +\d+ +-$", fetched)
    (patterned,) = (line for line in first.out.splitlines() if re.match(r"ashape\(.*\) +160 ", line))
    assert re.search(r" - +- +\d+%$", patterned)
    whole, file = results(Path("run")), Path("run/samples.jsonl")
    os.truncate(file, file.stat().st_size // 2)
    assert run("eval", "--resume", "run").code == 0 and results(Path("run")) == whole
    refused = run(*asked)
    assert refused.code == 2 and "model: recall: was True, now None" in refused.err
    endpoint = run("eval", "http://localhost:1/v1", "--task", "letters", "--recall")
    assert endpoint.code == 2 and "--recall is for a model on this machine" in endpoint.err


def test_the_same_command_goes_on_and_so_does_resume(run: Run, command: tuple) -> None:
    run(*command, "--quiet")
    file, whole = Path("run/samples.jsonl"), results(Path("run"))
    for again in (command, ("eval", "--resume", "run")):
        os.truncate(file, file.stat().st_size // 2)
        assert run(*again).code == 0
        assert results(Path("run")) == whole


def test_without_a_name_the_folder_is_named_after_the_settings(run: Run, command: tuple) -> None:
    named = [run(*command[:-2], "--json").json["run"] for _ in range(2)]
    assert named[0] == named[1] and re.fullmatch(r"eval-[0-9a-f]{8}", named[0])
    assert run(*command[:-2], "--seed", "3", "--json").json["run"] != named[0]


def test_plans_may_be_files_and_modes_both(run: Run, command: tuple) -> None:
    Path("my.toml").write_text('[snapkv]\nbudget = "60"\nwindow = 8\n')
    told = run(*command, "--plan", "my.toml", "--mode", "both", "--json").json
    assert {c["plan"] for c in told["cells"]} == {"full", "window:40 | int8", "snapkv:60(window=8)"}
    assert {c["mode"] for c in told["cells"]} == {"agnostic", "aware"} and told["samples"] == 16 * 3


@pytest.mark.parametrize(
    "change, code, told",
    [
        (("--task", "leters"), 2, "there is no task 'leters'. Did you mean 'letters'"),
        (("--suite", "tets"), 2, "there is no suite 'tets'. Did you mean 'test'"),
        (("--task", "long", "--lengths", "160"), 2, "test/long needs a length of at least 200 tokens, and 160 were"),
        (("--lengths", "4q"), 2, "'4q' is no length in tokens; write 4096, 4k or 1m"),
        (("--lengths", ","), 2, "no length is given"),
        (("--lengths", "160,160"), 2, "the length '160' is given twice"),
        (("--mode", "awake"), 2, "there is no mode 'awake'. Did you mean 'aware'"),
        (("--samples", "0"), 2, "--samples 0 asks for nothing"),
        (("--until", "7"), 2, "no half-width"),
        (("--plan", "snapvk:9"), 2, "Did you mean 'snapkv'"),
        (("--plan", "full"), 2, "the plan 'full' is given twice"),
        (("--resume", "run"), 2, "leave out --plan, --task, --lengths, --samples, --output"),
    ],
)
def test_a_mistake_is_one_clear_line(run: Run, command: tuple, change: tuple, code: int, told: str) -> None:
    replaced = [c for c in change[::2] if c in ("--lengths", "--samples", "--mode")]
    kept = list(command)
    for option in replaced:
        if option in kept:
            del kept[kept.index(option) : kept.index(option) + 2]
    result = run(*kept, *change)
    assert (result.code, result.out) == (code, "") and result.err.count("\n") == 1
    assert told in result.err and "Traceback" not in result.err
    assert not Path("run").exists()


def test_what_has_to_be_named_is_asked_for(run: Run) -> None:
    assert "name what to measure: --suite generated, --suite one of test" in run("eval").err
    assert "nowhere holds no run to go on with" in run("eval", "--resume", "nowhere").err


def test_a_suite_leaves_out_what_is_too_short_and_says_so(run: Run, tiny_path: Path) -> None:
    told = run("eval", tiny_path, "--suite", "generated", "--lengths", "160,240", "--samples", "1", "--json").json
    assert {(c["task"], c["length"]) for c in told["cells"]} == {
        *(("test/letters", n) for n in (160, 240)),
        *(("test/words", n) for n in (160, 240)),
        ("test/long", 240),
    }
    assert "test/long was left out at 160 tokens: it needs 200" in told["notes"]


def test_a_suite_leaves_out_what_needs_a_package_that_is_not_there(
    run: Run, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unmakeable(Letters):
        requires = ("no_such_package",)

    monkeypatch.setattr(catalogue, "table", lambda: (Letters(), Unmakeable(name="words")))
    result = run("eval", tiny_path, "--suite", "generated", "--lengths", "160", "--samples", "1", "--json")
    assert {cell["task"] for cell in result.json["cells"]} == {"test/letters"}
    assert "tasks of test are left out: no_such_package missing; pip install 'farspan[eval]'" in result.err


def test_changed_settings_are_refused_with_the_difference(run: Run, command: tuple) -> None:
    run(*command, "--quiet")
    result = run(*command, "--seed", "4")
    assert result.code == 2 and "settings: seed: was 0, now 4" in result.err and "another folder with -o" in result.err


def test_a_damaged_last_line_is_no_obstacle_and_other_damage_is_told(run: Run, command: tuple) -> None:
    run(*command, "--quiet")
    file, whole = Path("run/samples.jsonl"), results(Path("run"))
    with file.open("a") as samples:
        samples.write('{"id": "half a li')
    assert run(*command, "--quiet").code == 0 and results(Path("run")) == whole
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], "nonsense\n", *lines[1:]]))
    result = run(*command, "--quiet")
    assert result.code == 1 and "samples.jsonl, line 2: not a sample of a run" in result.err


def test_a_second_process_is_refused(run: Run, command: tuple) -> None:
    run(*command, "--quiet")
    with Journal("run"):
        result = run(*command)
    assert result.code == 2 and "is being written by another process" in result.err


def test_another_filling_text_is_another_run(run: Run, command: tuple) -> None:
    run(*command, "--haystack", "So it goes", "--quiet")
    assert records(Path("run"))[0].excerpt.text.startswith("So it goes. ")  # type: ignore[union-attr]
    assert run("eval", "--resume", "run", "--quiet").code == 0


def test_a_dry_run_says_what_it_takes_and_writes_nothing(run: Run, command: tuple) -> None:
    result = run(*command, "--dry-run")
    assert result.code == 0 and "in all, at the speed measured just now" in result.out
    assert len([line for line in result.out.splitlines() if line.startswith("test/letters")]) == 4
    told = run(*command, "--dry-run", "--json").json
    assert all(c["tokens"] > 0 and c["peak_bytes"] > c["held_bytes"] / 2 and c["seconds"] > 0 for c in told["cells"])
    assert not Path("run").exists()
    bound = run(*command, "--plan", "snapkv:9(window=8)", "--dry-run")
    assert "will not fit: " in bound.out and "floor" in bound.out


def test_errors_are_counted_and_warned_of(run: Run, command: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "table", lambda: (Letters(breaks_at=1),))
    result = run(*command)
    assert result.code == 0 and "warning: 4 of 12 samples ended in an error" in result.err
    assert " 1!" in result.out


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[str, Server]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FARSPAN_API_KEY", "sesame")
    with serving() as both:
        yield both


def test_an_endpoint_is_a_model_like_any_other(run: Run, served: tuple[str, Server]) -> None:
    url, server = served
    chosen = ("--task", "letters", "--lengths", "160", "--samples", "3", "--plan", "full", "--plan", "truncate:40")
    for named in ((url,), ("--endpoint", url, "--model", "tiny")):
        told = run("eval", *named, *chosen, "-o", "run", "--json").json
        assert told["samples"] == 12 and told["errors"] == 0
        assert {c["official"]["mean"] == 1.0 for c in told["cells"] if c["plan"] == "full"} == {True}
    assert len(server.seen) <= 12 and {seen.key for seen in server.seen} == {"Bearer sesame"}
    assert run("eval", "--resume", "run", "--quiet").code == 0
    asked = len(server.seen)
    run("eval", url, *chosen, "-o", "again", "--quiet")
    assert len(server.seen) == asked, "replies were kept"
    assert "sesame" not in Path("run/run.json").read_text()


@pytest.mark.parametrize(
    "options, told",
    [
        (("--plan", "int8"), "int8 must see inside a model (access internals)"),
        (("--api", "chats"), "there is no API 'chats'. Did you mean 'chat'"),
        (("--tokenizer", "nowhere"), "there is no tokenizer at nowhere"),
        (("--dtype", "float32"), "--dtype is for a model on this machine"),
        (("--concurrency", "0"), "--concurrency 0 asks nobody"),
        (("--ray", "local"), "--ray is for a model on this machine"),
    ],
)
def test_a_mistake_with_an_endpoint_is_one_clear_line(
    run: Run, served: tuple[str, Server], options: tuple, told: str
) -> None:
    result = run("eval", served[0], "--task", "letters", "--lengths", "160", *options)
    assert result.code in (1, 2) and result.err.count("\n") == 1 and told in result.err
    assert "--api is for an endpoint" in run("eval", "--task", "letters", "--api", "chat").err
    assert "two models are named" in run("eval", "one", "--model", "two", "--task", "letters").err


KILLED = ("--task", "mecw/person", "--lengths", "512", "--samples", "900", "-o", "run", "--quiet")


def test_kill_9_of_a_real_command(start, tmp_path: Path, tiny_path: Path) -> None:
    process = start("eval", tiny_path, *PLANS, *KILLED)
    samples = tmp_path / "run" / "samples.jsonl"
    until = time.monotonic() + 120
    while not (samples.exists() and samples.stat().st_size > 5000) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(samples.read_bytes().splitlines())
    assert 0 < done < 900 * 2
    first = samples.read_bytes().splitlines(keepends=True)[0]
    again = start("eval", "--resume", "run", "--quiet")
    while samples.stat().st_size < 3 * 5000 and time.monotonic() < until:
        time.sleep(0.02)
    again.send_signal(signal.SIGINT)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 130 and "interrupted: go on with farspan eval --resume run" in err and out == ""
    lines = samples.read_bytes().splitlines(keepends=True)
    assert lines[0] == first and all(json.loads(line) for line in lines if line.endswith(b"\n"))
    keys = [(r["id"], r["plan_hash"]) for r in map(json.loads, lines)]
    assert len(keys) == len(set(keys)) > done - 1


def test_help_names_every_option(run: Run) -> None:
    told = run("eval", "--help").out
    for option in ("--plan", "--suite", "--task", "--lengths", "--samples", "--mode", "--until", "--dry-run"):
        assert option in told
    assert main(["eval", "--help"]) == 0


def test_official_files_are_found_cut_and_taken_up_again(
    run: Run, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vt = next(task for task in ruler_files.TASKS if task.name == "vt")
    monkeypatch.setattr(catalogue, "table", lambda: (vt,))
    monkeypatch.delenv("FARSPAN_DATA", raising=False)
    asked = ("eval", tiny_path, "--task", "vt", "--lengths", "120", "--samples", "2", "-o", "run")
    missing = run(*asked)
    assert missing.code == 2 and "FARSPAN_DATA" in missing.err and "Traceback" not in missing.err

    rows = [ruler_row("vt") | {"input": "Keep this. " + "nothing " * 200 + "\nX is 1.\nWhich is it? "}] * 2
    write(tmp_path / "suites", "ruler-files/120/vt/validation.jsonl", rows)
    told = run(*asked, "--data", "suites", "--json").json
    assert told["errors"] == 2  # too long, and nobody asked for a cut
    cut = run(*asked[:-1], "cut", "--data", "suites", "--truncate", "--json").json
    assert cut["errors"] == 0 and all(record.truncated for record in records(Path("cut")))
    assert run("eval", "--resume", "cut").code == 2
    assert run("eval", "--resume", "cut", "--data", "suites").code == 0


def test_an_option_for_files_is_refused_where_there_are_none(run: Run, command: tuple) -> None:
    for option in (("--data", "."), ("--truncate",)):
        result = run(*command, *option)
        assert result.code == 2 and "none of these tasks is read from files" in result.err
