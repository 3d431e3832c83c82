"""Tables for other programs hold what the frame holds."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from farspan.errors import OptionError
from farspan.measure.cells import Summary
from farspan.measure.contrast import contrasts
from farspan.measure.export import csv_text, markdown, table, write_parquet
from farspan.measure.frame import load
from farspan.measure.record import Record
from farspan.measure.validity import check
from tests.measure.synthetic import changed, records, write


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    made = records(contexts=3, lengths=(1024, 2048))
    made = changed(made, lambda r: r.index == 1 and r.plan == "int4", recall=(0.5, 0.75), entries_read=64.0)
    made = changed(made, lambda r: r.index == 0 and r.plan == "int4", status="error", error="no memory", official=None)
    return Summary(load([write(tmp_path_factory.mktemp("run"), made)]))


def test_csv_has_a_row_per_cell(summary: Summary):
    rows = list(csv.DictReader(io.StringIO(csv_text(summary))))
    assert len(rows) == len(summary.cells) == 5 * 2 * 4
    first = next(r for r in rows if (r["task"], r["length"], r["plan"]) == ("ruler/vt", "2048", "int4"))
    cell = summary.cells["ruler/vt", 2048, summary.frame.columns[2]]
    assert cell.official is not None
    assert (first["n"], first["contexts"], first["errors"]) == ("2", "2", "1")
    assert float(first["official"]) == cell.official.mean and float(first["official_low"]) == cell.official.low
    assert float(first["recall"]) == 0.625 and float(first["entries_read"]) == 64
    assert float(first["held_bytes"]) == cell.costs.held_bytes and first["ranked"] == "True"


def test_parquet_has_a_row_per_sample_with_every_field(summary: Summary, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(summary, tmp_path / "samples.parquet")
    rows = parquet.read_table(tmp_path / "samples.parquet").to_pylist()
    every = summary.frame.runs[0].records
    assert len(rows) == len(every) and list(rows[0]) == ["run", *Record.__dataclass_fields__]
    by_key = {(row["id"], row["plan"]): row for row in rows}
    assert {tuple(row["recall"]) for row in rows if row["recall"]} == {(0.5, 0.75)}
    for record in every[::97]:
        row = by_key[record.id, record.plan]
        assert row["official"] == record.official and row["references"] == list(record.references)
        assert json.loads(row["labels"]) == record.labels and row["error"] == record.error
        if record.excerpt:
            assert json.loads(row["excerpt"])["text"] == record.excerpt.text


def test_without_pyarrow_the_message_says_what_to_type(
    summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"pip install 'farspan\[parquet\]'"):
        write_parquet(summary, tmp_path / "samples.parquet")


def test_markdown_shows_plans_checks_reach_tasks_and_comparisons(summary: Summary):
    text = markdown(summary, check(summary.frame), contrasts(summary))
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[1:5] == ["## Plans", "## Validity", "## Effective length", "## Tasks"]
    assert headings[5:] == [f"## {plan} against full" for plan in ("snapkv:25%", "int4", "window:10%")]
    assert "| fail | errors | " in text and "no memory" in text
    assert "measures likelihood, not answers" in text


def test_nothing_breaks_a_row_of_markdown():
    assert table(["a|b"], [["<script>\nx | y \\"]])[0] == "| a\\|b |"
    assert table(["a"], [["<script>\nx | y \\"]])[2] == "| &lt;script> x \\| y \\\\ |"
