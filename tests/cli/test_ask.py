"""`farspan ask`: answers on stdout, their cost on stderr."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest

import farspan
from tests.cli.conftest import Run, save_tiny

QUESTION = "Which port does the gateway use?"
SHORT = ("--max-new-tokens", "6")


def test_one_question_streams_its_answer_and_its_cost_goes_to_stderr(run: Run, read_once: Path, tiny_path: Path):
    expected = farspan.load(tiny_path).open(read_once).ask(QUESTION, max_new_tokens=6)
    result = run("ask", read_once, QUESTION, *SHORT)
    assert result.code == 0
    assert result.out == expected.text + "\n"
    assert result.err.startswith("[held ") and "finish: length]" in result.err and result.err.count("\n") == 1


def test_several_questions_are_answered_like_each_alone(run: Run, read_once: Path):
    questions = [QUESTION, "Who keeps letters?"]
    alone = [run("ask", read_once, question, *SHORT).out.rstrip("\n") for question in questions]
    result = run("ask", read_once, *questions, *SHORT)
    assert result.out.rstrip("\n") == "\n\n".join(f"Q: {q}\nA: {a}" for q, a in zip(questions, alone, strict=True))
    assert "2 questions" in result.err and "2 length" in result.err


def test_questions_come_from_stdin_one_per_line(run: Run, read_once: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Where?\n\n  When? \n"))
    answers = run("ask", read_once, "-", "Who?", *SHORT, "--json").json["answers"]
    assert [answer["question"] for answer in answers] == ["Where?", "When?", "Who?"]


def test_recall_says_layer_by_layer_what_was_covered(run: Run, tiny_path: Path, read_once: Path, tmp_path: Path):
    document = tmp_path / "letters.txt"
    document.write_text("The archive keeps every letter for seven years, and the gateway refuses none. " * 6)
    assert run("read", document, "-m", tiny_path, "--plan", "topk:16(recent=8)", "-o", tmp_path / "few.ctx").code == 0
    result = run("ask", tmp_path / "few.ctx", QUESTION, *SHORT, "--recall")
    assert result.code == 0 and "[layer 0: " in result.err and "of attention covered (least head " in result.err
    (answer,) = run("ask", tmp_path / "few.ctx", QUESTION, *SHORT, "--recall", "--json").json["answers"]
    assert all(0 < layer["mass"] < 1 and layer["read"] < layer["held"] for layer in answer["recall"])
    refused = run("ask", read_once, QUESTION, "--recall")
    assert refused.code == 2 and "such as topk:2048" in refused.err


def test_the_json_answer_has_text_tokens_usage_and_timings(run: Run, read_once: Path):
    result = run("ask", read_once, QUESTION, *SHORT, "--json")
    assert result.err == ""
    facts = result.json
    assert facts.keys() >= {"file", "model", "plan", "plan_hash", "answers"}
    (answer,) = facts["answers"]
    assert answer.keys() == {"question", "text", "token_ids", "finish_reason", "usage", "timings"}
    assert answer["finish_reason"] == "length" and len(answer["token_ids"]) == 6
    assert {"seen", "held", "held_bytes", "full_bytes", "beyond_trained"} <= answer["usage"].keys()
    assert answer["timings"]["first_token"] <= answer["timings"]["total"]


def test_stop_strings_end_an_answer(run: Run, read_once: Path):
    whole = run("ask", read_once, QUESTION, "--max-new-tokens", "12", "--json").json["answers"][0]["text"]
    stop = whole[3:5]
    (answer,) = run("ask", read_once, QUESTION, "--stop", "\x00never", "--stop", stop, "--json").json["answers"]
    assert answer["finish_reason"] == "stop"
    assert answer["text"] == whole[: whole.index(stop)]


def test_sampling_is_repeatable_with_a_seed(run: Run, read_once: Path):
    def sampled(seed: int) -> str:
        return run("ask", read_once, QUESTION, *SHORT, "--temperature", "5", "--top-p", "0.99", "--seed", seed).out

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(5)}) > 1


def test_a_conversation_goes_on_from_its_own_file(run: Run, read_once: Path, tmp_path: Path, tiny_path: Path):
    before = read_once.read_bytes()
    second = tmp_path / "second.ctx"
    assert run("ask", read_once, QUESTION, *SHORT, "-o", second).code == 0
    assert read_once.read_bytes() == before
    assert run("inspect", second, "--json").json["turns"] == 1
    first = farspan.load(tiny_path).open(read_once).ask(QUESTION, max_new_tokens=6)
    expected = first.context.ask("And?", max_new_tokens=6)
    assert run("ask", second, "And?", *SHORT, "-o", second).out == expected.text + "\n"  # over the file it came from
    assert run("inspect", second, "--json").json["turns"] == 2


def test_beyond_the_trained_length_every_answer_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("long.txt").write_text("Every letter is kept in the archive. " * 400)
    model = save_tiny(tmp_path / "short", "llama", layers=1)
    assert run("read", "long.txt", "-m", model, "--plan", "window:64", "--quiet").code == 0
    result = run("ask", "long.ctx", "Where?", *SHORT)
    assert result.code == 0 and "warning:" in result.err and "beyond the 4,096" in result.err
    assert run("ask", "long.ctx", "Where?", *SHORT, "--json").json["answers"][0]["usage"]["beyond_trained"] is True


def test_a_context_is_asked_in_the_dtype_it_was_read_in(run: Run, story: Path, tiny_path: Path):
    text = {}
    for dtype in ("float32", "bfloat16"):
        assert run("read", story, "-m", tiny_path, "--dtype", dtype, "-o", f"{dtype}.ctx", "--quiet").code == 0
        text[dtype] = run("ask", f"{dtype}.ctx", QUESTION, *SHORT, "--json").json["answers"][0]
    expected = farspan.load(tiny_path, dtype="bfloat16").read(story).ask(QUESTION, max_new_tokens=6)
    assert tuple(text["bfloat16"]["token_ids"]) == expected.token_ids
    assert text["bfloat16"]["usage"]["full_bytes"] * 2 == text["float32"]["usage"]["full_bytes"]


def test_a_model_that_moved_is_named_with_m(run: Run, story: Path, tiny_path: Path):
    old, new = story.parent / "old", story.parent / "new"
    shutil.copytree(tiny_path, old)
    assert run("read", "story.txt", "-m", "old", "--quiet").code == 0
    old.rename(new)
    result = run("ask", "story.ctx", QUESTION)
    assert result.code == 1 and str(old) in result.err and "Say where it is now with -m" in result.err
    assert run("ask", "story.ctx", QUESTION, *SHORT, "-m", new).code == 0


def test_questions_use_the_form_of_weights_that_was_read_with(run: Run, tmp_path: Path, tiny_path: Path):
    (tmp_path / "a.txt").write_text("The gateway listens on port 8443. " * 8)
    run("read", tmp_path / "a.txt", "-m", tiny_path, "--weights", "int8", "-o", tmp_path / "a.ctx")
    expected = farspan.load(tiny_path, weights="int8").open(tmp_path / "a.ctx").ask(QUESTION, max_new_tokens=6)
    result = run("ask", tmp_path / "a.ctx", QUESTION, *SHORT)
    assert result.code == 0 and result.out == expected.text + "\n"
    wrong = run("read", tmp_path / "a.txt", "-m", tiny_path, "--weights", "int3", "-o", tmp_path / "b.ctx")
    assert wrong.code != 0 and "allowed: int8, packed" in wrong.err and not (tmp_path / "b.ctx").exists()
