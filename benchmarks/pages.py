"""Words and tables that the pages of measured quality have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farspan.loading import load
from farspan.measure.paired import Comparison, holm
from farspan.measure.statistics import Interval


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its head first."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def code(text: str) -> str:
    """A plan, as it stands in a table."""
    return f"`{text}`".replace("|", "\\|")


def interval(score: Interval | None, digits: int = 1) -> str:
    """Percent, with what it may be."""
    if score is None:
        return "-"
    return f"{score.mean * 100:.{digits}f} [{score.low * 100:.{digits}f}, {score.high * 100:.{digits}f}]"


def percent(value: float | None, digits: int = 0) -> str:
    """A share."""
    return "-" if value is None else f"{value * 100:.{digits}f}"


def difference(each: Comparison) -> str:
    """In points, with its interval."""
    return f"{each.difference * 100:+.1f} [{each.low * 100:+.1f}, {each.high * 100:+.1f}]"


def verdict(each: Comparison, p: float) -> str:
    """Whether it showed that B is better than A."""
    if p < 0.05:
        return "showed" if each.difference > 0 else "the opposite showed"
    seen = "" if each.detectable is None else f" (from {each.detectable * 100:.0f} points on it would have)"
    return f"did not show{seen}"


def claimed(
    head: Sequence[str], sides: Sequence[Sequence[str]], found: Sequence[Comparison | None], *, lacking: str
) -> str:
    """A table of what was said and whether it showed, p after Holm over all rows; `lacking` where nothing decides."""
    adjusted = iter(holm([each.p for each in found if each]))
    rows = [[*head, "right, points", "p (Holm)", "here"]]
    for side, each in zip(sides, found, strict=True):
        if each is None:
            rows.append([*side, "-", "-", lacking])
            continue
        p = next(adjusted)
        rows.append([*side, difference(each), f"{p:.3f}", verdict(each, p)])
    return markdown(rows)


def machine(manifest: dict[str, Any]) -> str:
    """Where a run was made."""
    where = manifest["environments"][0]
    threads = where.get("threads", "?")
    return f"{where['cpu']}, {threads} thread{'' if threads == 1 else 's'}"


def weights(manifest: dict[str, Any]) -> str:
    """Which weights answered, and in so many words when the package holds others by now; of a model that has some."""
    fingerprint = manifest["subject"].get("fingerprint")
    if fingerprint is None:
        return ""
    used, packed = fingerprint["weights"][:12], load().fingerprint["weights"][:12]
    told = f"The weights that answered have the fingerprint `{used}`."
    if used != packed:
        told += (
            f" **The package holds newer ones by now, `{packed}` (docs/reference-model.md): "
            "what this page says of methods is to be measured anew.**"
        )
    return told
