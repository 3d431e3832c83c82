"""`farspan compose`: several context files in, one out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def read_apart(run: Run, story: Path, tiny_path: Path) -> list[str]:
    """Two context files in the current folder."""
    for name, text in (("one", "The gateway listens on port 8443. " * 9), ("two", "Forty-two letters were sent. " * 5)):
        Path(f"{name}.txt").write_text(text)
        assert run("read", f"{name}.txt", "-m", tiny_path, "--plan", "int8", "--quiet").code == 0
    return ["one.ctx", "two.ctx"]


def test_what_is_written_is_asked_about_all(run: Run, read_apart: list[str]) -> None:
    before = [Path(name).read_bytes() for name in read_apart]
    result = run("compose", *read_apart, "-o", "all.ctx")
    assert result.code == 0 and "of 2 documents" in result.out and "int8 | concat" in result.out
    assert "packed entries had to move and were packed anew" in result.err
    assert [Path(name).read_bytes() for name in read_apart] == before
    facts = run("inspect", "all.ctx", "--json").json
    assert [document["source"] for document in facts["documents"]] == ["one.txt", "two.txt"]
    assert facts["seen"] == sum(run("inspect", name, "--json").json["seen"] for name in read_apart)
    assert run("ask", "all.ctx", "Why?", "--max-new-tokens", "3").code == 0


def test_json_says_how_many_entries_were_packed_anew(run: Run, read_apart: list[str]) -> None:
    result = run("compose", *read_apart, "-o", "all.ctx", "--json").json
    assert result["repacked"] > 0 and result["plan"] == "int8 | concat" and result["file"] == "all.ctx"


def test_mistakes_are_told_before_anything_is_written(run: Run, read_apart: list[str]) -> None:
    mistakes = {
        (): "no context was given",
        ("one.ctx",): "-o is missing",
        ("one.ctx", "one.ctx", "-o", "all.ctx"): "both hold the same text of one.txt",
        ("one.ctx", "none.ctx", "-o", "all.ctx"): "there is no file none.ctx",
        ("one.ctx", "two.ctx", "-o", "one.txt"): "is no context file",
        ("one.ctx", "two.ctx", "-o", "all.ctx", "--plan", "int8"): "does not say how contexts go together",
        ("one.ctx", "two.ctx", "-o", "all.ctx", "--plan", "concta"): "Did you mean 'concat'?",
    }
    for arguments, message in mistakes.items():
        result = run("compose", *arguments)
        assert result.code in (1, 2) and message in result.err and "Traceback" not in result.err
    assert not Path("all.ctx").exists()
