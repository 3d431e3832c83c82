"""farspan search-positions: a file that plans name."""

from __future__ import annotations

from pathlib import Path

from farspan import ropes
from tests.cli.conftest import Run

SMALL = ("--population", "4", "--generations", "1")


def test_factors_are_searched_saved_and_read_with(run: Run, story: Path, tiny_path: Path) -> None:
    story.write_text(story.read_text() * 20)
    searched = run("search-positions", tiny_path, "--text", story.name, "--length", "4200", *SMALL)
    assert searched.code == 0 and "of the later half" in searched.out
    made = ropes.load("model.rope")
    assert made.length == 4200 and f"#{made.digest}" in searched.out
    assert not Path("model.rope.part").exists(), "what an interrupted search goes on with is gone"
    read = run("read", story.name, "-m", tiny_path, "--plan", "longrope(factors=model.rope)", "--json")
    assert read.code == 0 and made.digest in read.json["plan"]


def test_mistakes_are_one_clear_line(run: Run, story: Path, tiny_path: Path) -> None:
    def error(*arguments: object) -> str:
        result = run("search-positions", tiny_path, *arguments)
        assert result.code in (1, 2) and result.err.count("\n") == 1
        return result.err

    assert "no file of rope factors; it would be lost" in error(
        "--text", story.name, "--length", "8k", "-o", story.name
    )
    assert "there is no folder" in error("--text", story.name, "--length", "8k", "-o", "nowhere/model.rope")
    assert "no length in tokens" in error("--text", story.name, "--length", "long")
    assert "the model reads 4096 tokens as it is" in error("--text", story.name, "--length", "4k")
    assert "are to be judged by; give a longer one" in error("--text", story.name, "--length", "64k")
    missing = run("read", story.name, "-m", tiny_path, "--plan", "longrope(factors=no.rope)")
    assert missing.code == 2 and "there is no file of rope factors" in missing.err
