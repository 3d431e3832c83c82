"""Runs are read back whole, or refused; columns are named so that people can tell them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farspan.errors import DamagedFile, UsageError
from farspan.measure.frame import Frame, load
from farspan.measure.record import Record
from tests.measure.synthetic import KINDS, changed, records, write

FEW = {"kinds": KINDS[:2], "lengths": (1024, 2048), "contexts": 2}


def small(folder: Path, **options) -> Frame:
    return load([write(folder, records(**{**FEW, **options}))])


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path):
    made = records(**FEW)
    frame = load([write(tmp_path / "one", made)])
    assert sorted(frame.runs[0].records, key=Record.to_line) == sorted(made, key=Record.to_line)
    assert frame.tasks == ["ruler/niah_multikey_1", "ruler/vt"] and frame.lengths == [1024, 2048]
    assert [frame.label(c) for c in frame.columns] == ["full", "snapkv:25%", "int4", "window:10%"]
    assert len(frame.groups[frame.columns[1]]["ruler/niah_multikey_1", 2048]) == 16


def test_the_order_of_lines_changes_nothing(tmp_path: Path):
    made = records(**FEW, plans=("full",))
    forwards, backwards = load([write(tmp_path / "a", made)]), load([write(tmp_path / "b", made[::-1])])
    assert [*forwards.groups.values()] == [*backwards.groups.values()]


def test_the_full_cache_stands_first(tmp_path: Path):
    frame = small(tmp_path / "one", plans=("int4", "full"))
    assert [c.plan for c in frame.columns] == ["full", "int4"]
    assert frame.reference(frame.columns[1]) == frame.columns[0]
    assert small(tmp_path / "two", plans=("int4",)).reference(frame.columns[1]) is None


@pytest.mark.parametrize("torn", ['{"id":"12', '{"id":"12"}', "\x00\x00", "é"])
def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path, torn: str):
    made = records(**FEW)
    folder = write(tmp_path / "one", made)
    with (folder / "samples.jsonl").open("ab") as file:
        file.write(torn.encode()[: -1 if torn == "é" else None])
    run = load([folder]).runs[0]
    assert len(run.records) == len(made) and "last line" in run.notes[0]


def test_damage_anywhere_else_is_refused(tmp_path: Path):
    folder = write(tmp_path / "one", records(**FEW))
    file = folder / "samples.jsonl"
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[:3], lines[3][:50], *lines[4:]]))
    with pytest.raises(DamagedFile, match=r"samples\.jsonl, line 4: not a sample"):
        load([folder])
    (folder / "run.json").write_text("[]")
    file.write_text("\n".join(lines))
    with pytest.raises(DamagedFile, match="no manifest of a run"):
        load([folder])


def test_what_is_no_run_is_refused_with_what_to_do(tmp_path: Path):
    with pytest.raises(
        UsageError, match=r"nowhere is no run: it does not exist; give a folder that farspan eval wrote"
    ):
        load([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"holds no samples\.jsonl"):
        load([tmp_path])
    with pytest.raises(UsageError, match="no samples yet"):
        load([write(tmp_path / "empty", [])])
    with pytest.raises(UsageError, match="no run given"):
        load([])
    folder = write(tmp_path / "one", records(**FEW))
    with pytest.raises(UsageError, match="given more than once"):
        load([folder, tmp_path / "x" / ".." / "one"])


def test_a_run_without_manifest_is_read_and_says_so(tmp_path: Path):
    folder = write(tmp_path / "one", records(**FEW))
    (folder / "run.json").unlink()
    assert "no run.json" in load([folder]).runs[0].notes[0]


def test_a_sample_counts_once_and_an_answer_replaces_an_error(tmp_path: Path):
    made = records(**FEW, plans=("full",))
    failed = replace(made[0], status="error", error="out of memory", official=None, strict=None)
    run = load([write(tmp_path / "one", [failed, *made, made[1]])]).runs[0]
    assert len(run.records) == len(made) and run.repeated == 1
    assert all(record.status == "ok" for record in run.records)


def test_columns_are_told_apart_by_what_differs(tmp_path: Path):
    aware = records(**FEW, plans=("full", "int4"), mode="aware")
    first = write(tmp_path / "first", records(**FEW, plans=("full", "int4")) + aware)
    second = write(tmp_path / "second", records(**FEW, plans=("int4",)))
    frame = load([first, second])
    assert [frame.label(c) for c in frame.columns] == [
        "full · agnostic",
        "full · aware",
        "int4 · agnostic · first",
        "int4 · aware",
        "int4 · agnostic · second",
    ]
    assert [frame.label(c) for c in frame.side("second")] == ["int4 · agnostic · second"]
    assert len(frame.side("first")) == 4 and frame.side(str(first)) == frame.side("first")
    with pytest.raises(UsageError, match="'int4' is in several columns; name one of: 'int4 · agnostic · first'"):
        frame.side("int4")
    with pytest.raises(UsageError, match=r"nothing here is named 'secnd'. Did you mean 'second'\?"):
        frame.side("secnd")


def test_a_plan_may_be_named_as_it_was_typed(tmp_path: Path):
    frame = load([write(tmp_path, records(**FEW, plans=("full", "snapkv:10% | adakv", "snapkv:10%")))])
    assert [c.plan for c in frame.side("adakv:10%")] == ["snapkv:10% | adakv"]
    assert [c.plan for c in frame.side("adakv | snapkv:10%(window=32)")] == ["snapkv:10% | adakv"]


def test_runs_of_one_name_are_named_by_their_folders(tmp_path: Path):
    one = write(tmp_path / "a" / "run", records(**FEW, plans=("full",)))
    two = write(tmp_path / "b" / "run", records(**FEW, plans=("full",)))
    assert [run.name for run in load([one, two]).runs] == ["a/run", "b/run"]


def test_versions_of_a_task_are_never_mixed(tmp_path: Path):
    one = write(tmp_path / "one", records(**FEW))
    two = write(tmp_path / "two", changed(records(**FEW), lambda r: r.task == "ruler/vt", version=2))
    assert load([one, two]).tasks == ["ruler/niah_multikey_1", "ruler/vt (version 1)", "ruler/vt (version 2)"]
