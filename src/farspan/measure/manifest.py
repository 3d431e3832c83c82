"""The manifest of a run, `run.json`: everything needed to repeat it, and what tells two runs apart."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from farspan.errors import UsageError
from farspan.measure import machine
from farspan.measure.outcome import Subject
from farspan.measure.settings import Settings
from farspan.measure.stopping import Stopping

FORMAT = 1
WHERE = {"model", "source"}  # where a model was found says nothing about what it answers
SHOWN = 8  # differences listed


def written(settings: Settings, subject: Subject) -> dict[str, Any]:
    """The manifest of a new run."""
    notes = [*subject.notes(), *([Stopping(settings.until).note] if settings.until is not None else [])]
    if settings.batch > 1:
        notes.append(f"{settings.batch} contexts are answered together: times of answers are those of a batch")
    notes += [f"{task} was left out at {length} tokens: it needs {least}" for task, length, least in settings.skipped]
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings.to_json(),
        "subject": subject.describe(),
        "environments": [environment(subject)],
        "notes": notes,
    }


def environment(subject: Subject) -> dict[str, Any]:
    """The machine and versions of one process that wrote samples."""
    return {**machine.described(), **subject.environment()}


def check_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise UsageError with what differs where samples of the two runs must not be mixed.

    Environments may differ: a run may go on elsewhere, and its manifest then names both.
    """
    if old.get("format") != FORMAT:
        raise UsageError(f"the run has format {old.get('format')!r}, and this farspan continues format {FORMAT}")
    found = [
        *differences(old["settings"], new["settings"], ""),
        *differences(_told(old["subject"]), _told(new["subject"]), "model: "),
    ]
    if found:
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UsageError(
            f"the run was begun with other settings: {'; '.join(found[:SHOWN])}{more}. "
            f"Give the same ones, or another folder with -o"
        )


def _told(subject: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in subject.items() if name not in WHERE}


def differences(old: Any, new: Any, at: str) -> list[str]:
    """-> `plans[0].text: was 'full', now 'int8'` for every leaf that differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = list(dict.fromkeys([*old, *new]))
        pairs = [(old.get(name), new.get(name), _joined(at, name)) for name in names]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(a, b, f"{at}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [f"{at}: was {_shown(old)}, now {_shown(new)}"]
    return [line for a, b, name in pairs for line in differences(a, b, name)]


def _joined(at: str, name: str) -> str:
    return f"{at}{name}" if not at or at.endswith(" ") else f"{at}.{name}"


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return ", ".join(str(each.get("text", each.get("task", each))) for each in value)
    return repr(value)
