"""farspan bench: plans beside plain transformers."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_plans_stand_beside_plain_transformers(run: Run, tiny_path: Path) -> None:
    arguments = ("--length", "300", "--tokens", "5", "--repeats", "1")
    shown = run("bench", tiny_path, "--plan", "full", "--plan", "window:40 | int8", *arguments)
    assert (shown.code, shown.err) == (0, "")
    lines = [line.split() for line in shown.out.splitlines() if line.startswith("transformers")]
    assert lines[0][1:] == ["1.00", "1.00", "1.00", "100%"] and "median of 1" in shown.out
    told = run("bench", tiny_path, "--plan", "full", "--plan", "window:40 | int8", *arguments, "--json").json
    peer, (full, small) = told["peer"], told["plans"]
    assert (full["name"], small["name"]) == ("full", "window:40 | int8") and peer["name"] == "transformers"
    assert 290 <= told["tokens"] <= 300 and told["answer"] == 5 and told["same_answer"] is True
    for speed in (peer, full, small):
        assert min(speed["read_seconds"], speed["first_token_seconds"], speed["token_seconds"]) > 0
    assert small["held_bytes"] < 0.25 * full["held_bytes"] and full["held_bytes"] >= peer["held_bytes"]


def test_mistakes_are_one_clear_line(run: Run, tiny_path: Path) -> None:
    for arguments, told in [
        (("--plan", "full", "--plan", "full"), "a plan is given twice"),
        (("--length", "1k,2k"), "bench measures one at a time"),
        (("--length", "3"), "length=3 measures nothing; give 16 or more"),
        (("--tokens", "1"), "tokens=1 measures nothing; give 2 or more"),
        (("--repeats", "0"), "repeats=0 measures nothing"),
        (("--plan", "snapkv:3", "--length", "300"), "floor"),
        (("--plan", "snapkw:3"), "Did you mean 'snapkv'?"),
    ]:
        refused = run("bench", tiny_path, *arguments)
        assert refused.code == 2 and told in refused.err and refused.err.count("\n") == 1, refused.err
