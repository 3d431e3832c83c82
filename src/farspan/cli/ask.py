"""`farspan ask`: a context file and questions in, answers out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farspan.cli.output import bytes_text, counted, emit, note, say, seconds_text, style, warn
from farspan.cli.read import beyond
from farspan.cli.session import STDIN, checked_output, load_model
from farspan.errors import ModelNotFound, OptionError, UsageError

if TYPE_CHECKING:
    from farspan.context import Answer, Context


def ask(
    file: str,
    /,
    *questions: Annotated[str, Parameter(name="QUESTION")],
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    max_new_tokens: int | None = None,
    stop: list[str] | None = None,
    seed: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    device: str | None = None,
    recall: bool = False,
    json: bool = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> None:
    """Ask a context file one question or several.

    One question streams its answer; several are independent of each other and asked in one batch.
    The documents are not needed any more.

    Parameters
    ----------
    file
        A context file, written by farspan read.
    questions
        Questions in quotes, or - to read one per line from standard input.
    model
        Where the model is now. Default: where it was then.
    max_new_tokens
        Tokens an answer may have. Default: 256.
    stop
        A string that ends the answer; may be repeated.
    seed
        Makes sampling repeatable.
    temperature
        Sample at this temperature. Default: likeliest tokens.
    top_p
        Sample from the likeliest tokens with this mass.
    device
        Where the model runs, such as cuda. Default: cpu.
    recall
        Say how much of full attention the plan's fetching covered, layer by layer.
    json
        Print the answers as one JSON object.
    output
        Save the context with question and answer added.
    """
    asked = _questions(questions)
    options = _options(max_new_tokens, stop, seed, temperature, top_p)
    if output is not None:
        if len(asked) > 1:
            raise OptionError(f"-o saves one conversation, and {len(asked)} independent questions were given; ask one")
        checked_output(output)
    context = open_context(file, model, device)
    options |= _generation(temperature, top_p) | ({"recall": True} if recall else {})
    streams = len(asked) == 1 and not json
    answers = [_streamed(context, asked[0], options)] if streams else context.ask(asked, **options)
    if output is not None:
        answers[0].context.save(output)
    if json:
        emit(described(file, context, answers, output))
        return
    if len(asked) > 1:
        say("\n\n".join(f"{style('Q:', 'bold', sys.stdout)} {a.question}\n"
                        f"{style('A:', 'bold', sys.stdout)} {a.text}" for a in answers))  # fmt: skip
    note(style(cost_line(answers), "dim"))
    for each in (layer for answer in answers for layer in answer.recall or ()):
        note(style(f"[layer {each.layer}: {each.mass:.1%} of attention covered (least head {each.least:.1%}), "
                   f"read {each.read:,.0f} of {each.held:,.0f} entries]", "dim"))  # fmt: skip
    for answer in answers:
        if answer.usage.beyond_trained:
            warn(beyond(context.next_position, answer.usage.trained_length))
            break


def open_context(file: str, model: str | None = None, device: str | None = None) -> Context:
    """Open a context file with the model it was read with, in the dtype and form of weights it was read in."""
    from farspan.cache.file import peek

    manifest = peek(file)
    try:
        loaded = load_model(
            model or manifest["model"], dtype=manifest.get("dtype"), device=device, weights=manifest.get("weights")
        )
    except ModelNotFound as error:
        if model is not None:
            raise
        raise ModelNotFound(
            f"{file} was read with {manifest['model']!r}: {error} Say where it is now with -m."
        ) from error
    return loaded.open(file)


def _questions(given: tuple[str, ...]) -> list[str]:
    if given.count(STDIN) > 1:
        raise UsageError("- was given more than once; standard input can be read once")
    questions: list[str] = []
    for question in given:
        if question != STDIN:
            questions.append(question)
            continue
        lines = [line.strip() for line in sys.stdin]
        questions += [line for line in lines if line]
    if not questions:
        where = "standard input holds none" if given else "none was given"
        raise UsageError(f"a question is needed, and {where}; type one in quotes, or - to read one per line from stdin")
    return questions


def _options(
    max_new_tokens: int | None,
    stop: list[str] | None,
    seed: int | None,
    temperature: float | None,
    top_p: float | None,
) -> dict[str, Any]:
    """What `Context.ask` is given, checked before a model is loaded."""
    if max_new_tokens is not None and max_new_tokens < 1:
        raise OptionError(f"--max-new-tokens {max_new_tokens} leaves no room for an answer; give 1 or more")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise OptionError(
            f"--temperature {temperature:g} is not above 0; leave it out for the likeliest token each time"
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise OptionError(f"--top-p {top_p:g} is no probability; give a number above 0, up to 1")
    if seed is not None and temperature is None and top_p is None:
        raise OptionError("--seed changes nothing without sampling; add --temperature or --top-p, or leave it out")
    given = {"max_new_tokens": max_new_tokens, "stop": stop, "seed": seed}
    return {name: value for name, value in given.items() if value is not None}


def _generation(temperature: float | None, top_p: float | None) -> dict[str, Any]:
    if temperature is None and top_p is None:
        return {}
    from transformers import GenerationConfig

    sampled = GenerationConfig(do_sample=True, temperature=temperature or 1.0, top_p=top_p or 1.0, top_k=0)
    return {"generation_config": sampled}


def _streamed(context: Context, question: str, options: dict[str, Any]) -> Answer:
    stream = context.stream(question, **options)
    try:
        for piece in stream:
            say(piece, end="")
    finally:
        say()
    return stream.answer


def cost_line(answers: list[Answer]) -> str:
    """What stood behind the answers, and what they cost, in one line."""
    usage = answers[0].usage
    tokens = sum(a.usage.answer_tokens for a in answers)
    first = max(a.timings.first_token for a in answers)
    rest = max(a.timings.total for a in answers) - first
    reasons = [a.finish_reason for a in answers]
    finish = reasons[0] if len(reasons) == 1 else ", ".join(f"{reasons.count(r)} {r}" for r in dict.fromkeys(reasons))
    speed = f"{(tokens - len(answers)) / rest:,.0f} tokens/s" if rest > 0 and tokens > len(answers) else "one token"
    sizes = f"{bytes_text(usage.held_bytes)} of {bytes_text(usage.full_bytes)}"
    held = f"held {usage.held:,.0f} of {usage.seen:,} seen, {sizes}"
    asked = f"{counted(len(answers), 'question')}, " if len(answers) > 1 else ""
    return f"[{asked}{held}; first token {seconds_text(first)}, {speed}; finish: {finish}]"


def described(file: str, context: Context, answers: list[Answer], output: Path | None) -> dict[str, Any]:
    """The answers for programs."""
    return {
        "file": os.fspath(file),
        "model": context.model.path,
        "plan": str(context.plan),
        "plan_hash": context.plan.hash,
        "output": None if output is None else str(output),
        "answers": [answer_described(answer) for answer in answers],
    }


def answer_described(answer: Answer) -> dict[str, Any]:
    """One of them."""
    timings = answer.timings
    return {
        "question": answer.question,
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "finish_reason": answer.finish_reason,
        "usage": vars(answer.usage),
        **({} if answer.recall is None else {"recall": [vars(layer) for layer in answer.recall]}),
        "timings": {
            "first_token": timings.first_token,
            "total": timings.total,
            "tokens_per_second": timings.tokens_per_second(answer.usage.answer_tokens),
        },
    }
