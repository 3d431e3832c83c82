"""`farspan eval`: what a plan costs in quality, bytes and seconds, on tasks made to measure it."""

from __future__ import annotations

import hashlib
import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farspan.cli.output import emit, note, say, warn
from farspan.cli.progress import EvalProgress
from farspan.cli.subject import Chosen, chosen_by
from farspan.errors import OptionError, UsageError
from farspan.plan import Plan

if TYPE_CHECKING:
    from farspan.measure.outcome import Subject
    from farspan.measure.run import Tally
    from farspan.measure.settings import Settings

SAMPLES = 25
LENGTHS = "4k"
GENERATED = "generated"  # the suite of all tasks that are made here


def eval(
    model: str | None = None,
    /,
    *,
    plan: list[str] | None = None,
    suite: list[str] | None = None,
    task: list[str] | None = None,
    lengths: str | None = None,
    samples: int | None = None,
    mode: str | None = None,
    seed: int | None = None,
    haystack: str | None = None,
    data: Path | None = None,
    truncate: bool = False,
    until: float | None = None,
    batch: int | None = None,
    recall: bool = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Path | None = None,
    retry_errors: bool = False,
    dry_run: bool = False,
    endpoint: str | None = None,
    name: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    tokenizer: Path | None = None,
    api: str | None = None,
    concurrency: int | None = None,
    ray: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Measure plans on tasks: score, bytes and time, each with its interval.

    A run is a folder. Whatever stops it, the same command goes on where it was; nothing is done twice.

    Parameters
    ----------
    model
        A model's folder, hub id, or an endpoint's URL. Default: the embedded model.
    plan
        What to compare, or a .toml file; may be repeated. Default: full.
    suite
        A suite of tasks, or "generated" for all that need no files; may be repeated.
    task
        One task, such as ruler/vt; may be repeated.
    lengths
        Tokens of prompt and reply, such as 4k,16k. Default: 4k.
    samples
        Contexts per task and length; every question of each is asked. Default: 25.
    mode
        agnostic: read without knowing the question; aware: with it; both.
    seed
        Other contexts. Default: 0.
    haystack
        Filling text: stdlib, code, noise, a file or a folder.
    until
        Stop a task early once every interval is within this, such as 0.05.
    batch
        Contexts answered together: faster, but times are then a batch's. Default: 1.
    recall
        Measure how much of full attention plans that fetch cover; their answers then take longer.
    output
        The run's folder. Default: named after the settings.
    resume
        Go on with the run in this folder, with its own settings.
    retry_errors
        Ask again what ended in an error.
    dry_run
        Say what it would take, and what will not fit; evaluate nothing.
    endpoint
        Base URL of an OpenAI-compatible server; its key in FARSPAN_API_KEY.
    name
        The model, at the endpoint or here.
    tokenizer
        The endpoint's tokenizer.json. Default: token counts are about right.
    api
        chat or completions. Default: chat.
    concurrency
        Requests at once. Default: 4.
    ray
        Spread the run over the Ray cluster at this address; local: over this machine's cores.
    dtype
        float32, bfloat16, float16. Default: the model's own.
    device
        Where the model runs, such as cuda. Default: cpu.
    json
        Print the result as one JSON object.
    quiet
        Only warnings and errors.
    """
    given = {"plan": plan, "suite": suite, "task": task, "lengths": lengths, "samples": samples, "mode": mode}
    given |= {"truncate": truncate or None, "seed": seed, "haystack": haystack, "until": until}
    given |= {"batch": batch, "output": output}
    chosen = chosen_by(
        model,
        name,
        endpoint,
        tokenizer=tokenizer,
        api=api,
        concurrency=concurrency,
        dtype=dtype,
        device=device,
        ray=ray,
        batch=batch,
        recall=recall or None,
    )
    if resume is not None:
        settings, chosen = _resumed(resume, given, chosen, data)
    else:
        settings = _settings(given, data)
    if dry_run:
        _forecast(settings, chosen, json=json, quiet=quiet)
        return
    with EvalProgress(quiet=quiet) as progress, chosen.subject() as subject:
        folder = resume or output or Path(default_output(settings, subject))
        tally = _run(settings, subject, folder, progress, retry_errors, chosen)
    _told(folder, tally, json=json, quiet=quiet)


def _settings(given: dict[str, Any], data: Path | None) -> Settings:
    """The run that the options describe; raises UsageError with what is near."""
    from farspan.measure.settings import (
        Settings,
        chosen_tasks,
        fitted,
        from_files,
        in_haystack,
        parse_lengths,
        parse_mode,
    )
    from farspan.tasks.catalogue import suites

    names, suite_names = given["task"] or [], given["suite"] or []
    if not names and not suite_names:
        raise UsageError(f"name what to measure: --suite {GENERATED}, --suite one of {', '.join(suites())}, or --task")
    every = _generated() if GENERATED in suite_names else []
    named = chosen_tasks(names, [])
    tasks = chosen_tasks([*names, *every], [name for name in suite_names if name != GENERATED])
    truncate = bool(given["truncate"])
    tasks = from_files(tasks, data, truncate=truncate)
    settings = Settings(
        plans=tuple(Plan.parse(text) for text in given["plan"] or ["full"]),
        tasks=tuple(in_haystack(tasks, given["haystack"])),
        lengths=parse_lengths(given["lengths"] or LENGTHS),
        samples=SAMPLES if given["samples"] is None else given["samples"],
        modes=parse_mode(given["mode"] or "agnostic"),
        seed=given["seed"] or 0,
        until=given["until"],
        haystack=given["haystack"],
        truncate=truncate,
        batch=1 if given["batch"] is None else given["batch"],
    )
    return fitted(settings, named=[each.id for each in named])


def _generated() -> list[str]:
    """The tasks that can be made here; says which ones lack a package."""
    from farspan.tasks import catalogue

    made = [task for task in catalogue.table() if task.generated]
    lacking = {task.suite: task.missing() for task in made if task.missing()}
    for suite, packages in lacking.items():
        note(f"note: tasks of {suite} are left out: {', '.join(packages)} missing; pip install 'farspan[eval]'")
    return [task.id for task in made if not task.missing()]


def _resumed(folder: Path, given: dict[str, Any], chosen: Chosen, data: Path | None) -> tuple[Settings, Chosen]:
    """The settings and the model of a run that was begun before."""
    from farspan.measure.journal import read_manifest
    from farspan.measure.settings import Settings

    options = [f"--{name}" for name, value in given.items() if value is not None]
    if options:
        raise OptionError(f"--resume goes on with the run's own settings; leave out {', '.join(options)}")
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no run to go on with; give a folder that farspan eval wrote") from None
    return Settings.from_json(manifest["settings"], files=data), chosen.resumed(manifest["subject"])


def default_output(settings: Settings, subject: Subject) -> str:
    """The same folder for the same settings and model, so that the same command goes on."""
    decides = jsons.dumps([settings.to_json(), subject.describe()], sort_keys=True, default=str)
    return f"eval-{hashlib.sha256(decides.encode()).hexdigest()[:8]}"


def _run(
    settings: Settings, subject: Subject, folder: Path, progress: EvalProgress, retry_errors: bool, chosen: Chosen
) -> Tally:
    from farspan.measure.run import run

    try:
        with chosen.fan(subject, settings) as spread:
            return run(settings, subject, folder, progress=progress.update, retry_errors=retry_errors, **spread)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: go on with farspan eval --resume {folder}") from None


def _forecast(settings: Settings, chosen: Chosen, *, json: bool, quiet: bool) -> None:
    from farspan.cli.eval_table import foreseen, foreseen_json
    from farspan.measure.estimate import estimated

    with EvalProgress(quiet=quiet) as progress, chosen.subject() as subject:
        subject.check(settings.plans)
        progress.stage("timing this model on this machine")
        estimates = list(estimated(settings, subject))
    if json:
        emit(foreseen_json(estimates))
    else:
        say(foreseen(estimates, settings))


def _told(folder: Path, tally: Tally, *, json: bool, quiet: bool) -> None:
    from farspan.cli.eval_table import described, summary
    from farspan.measure.cells import Summary
    from farspan.measure.frame import load

    if tally.errors:
        warn(f"{tally.errors} of {len(tally.keys)} samples ended in an error; they stand in {folder}/samples.jsonl")
    if not json and quiet:
        return
    found = Summary(load([folder]))
    if json:
        emit(described(folder, found))
        return
    for line in found.frame.runs[0].manifest["notes"]:
        note(f"note: {line}")
    say(summary(folder, found))
    note(f"farspan report {folder} shows more of it")
