"""The sections of the model card, each from measured data to Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from farspan.measure.statistics import wilson

Record = dict[str, Any]
Table = dict[tuple[str, int], dict[str, Any]]

AIMS: tuple[tuple[str, int, float], ...] = (
    ("one needle", 4096, 0.98),
    ("one needle", 8192, 0.95),
    ("four keys", 4096, 0.95),
    ("forty keys", 4096, 0.85),
    ("multi-value", 4096, 0.85),
    ("multi-query", 4096, 0.85),
    ("2 hops", 4096, 0.80),
    ("4 hops", 4096, 0.60),
    ("quote", 4096, 0.95),
)
LEGEND = {
    "one needle": "one key, one value",
    "four keys": "one of four keys asked",
    "second turn": "as four keys, with another of them asked and answered before",
    "forty keys": "one of forty keys asked",
    "eight similar keys": "one of eight keys that differ in a part",
    "multi-value": "the three values of one of four keys, in order",
    "multi-query": "the values of four of eight keys, in the order asked, each after its key",
    "2 hops": "all three variables of one of three chains, in order",
    "4 hops": "all five variables of one of three chains, in order",
    "quote": "a unique 12-token quote continued for 8 tokens, asked as a question",
    "quote, bare": "the same, the quote alone as prompt",
    "count": "how many of a kind there are, 2 to 6",
    "list": "all keys of a kind, 2 to 6, in order",
    "one needle (training wordings)": "wordings, words and types as trained, files unseen",
    "four keys (training wordings)": "the same",
    "forty keys (training wordings)": "the same",
}
CURVE = ("one needle", "four keys", "forty keys", "multi-value", "multi-query", "2 hops", "4 hops", "quote, bare")
FAR = 1000
"""An extrapolation by more than this factor is not worth printing."""


def shape(config: dict[str, Any], directory: Path) -> dict[str, Any]:
    """What the head of the card says about the model, from its config and files."""
    from safetensors import safe_open

    files = list(directory.glob("*.safetensors"))
    parameters = 0
    for file in files:
        with safe_open(file, framework="numpy") as weights:
            parameters += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return {
        "layers": config["num_hidden_layers"],
        "parameters": parameters / 1e6,
        "hidden": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "theta": config["rope_parameters"]["rope_theta"],
        "vocabulary": config["vocab_size"],
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
        "context": config["max_position_embeddings"],
    }


def rates(records: Sequence[Record]) -> dict[str, Any]:
    """Counts, rates and the interval of the exact match."""
    right = sum(record["exact"] for record in records)
    low, high = wilson(right, len(records))
    return {
        "n": len(records),
        "exact": right / max(1, len(records)),
        "low": low,
        "high": high,
        "content": sum(record["content"] for record in records) / max(1, len(records)),
        "first": sum(record["first"] for record in records) / max(1, len(records)),
    }


def grouped(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return groups


def cells(records: Sequence[Record]) -> Table:
    """Rates by (task, length), tasks in the legend's order."""
    groups = grouped(records, lambda record: (record["task"], record["length"]))
    order = list(LEGEND)
    return {key: rates(groups[key]) for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))}


def show(cell: dict[str, Any] | None, *, count: bool = True) -> str:
    if cell is None:
        return "–"
    text = f"{cell['exact']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"
    return f"{text} n={cell['n']}" if count else text


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


def aims(table: Table) -> str:
    """What was aimed for, what was reached, and which aims were missed: in so many words."""
    body, missed = [], []
    for task, length, aim in AIMS:
        cell = table.get((task, length))
        met = cell is not None and cell["exact"] >= aim
        body.append((f"{task}, {length}", f"{aim:.2f}", show(cell), "met" if met else "**missed**"))
        if not met:
            missed.append(f"{task} at {length}")
    verdict = (
        f"**{len(missed)} of {len(AIMS)} aims are missed**: {', '.join(missed)}. The last section says what more "
        "training would buy.\n"
        if missed
        else "All aims are met.\n"
    )
    return "## Aims\n\n" + rows(("task, tokens", "aim", "measured", ""), body) + "\n" + verdict


def accuracy(table: Table) -> str:
    lengths = sorted({length for _, length in table})
    tasks = list(dict.fromkeys(task for task, _ in table))
    exact = [[task, LEGEND[task], *(show(table.get((task, length))) for length in lengths)] for task in tasks]
    first = [
        [task, *(f"{table[task, n]['first']:.2f}" if (task, n) in table else "–" for n in lengths)] for task in tasks
    ]
    names = [str(length) for length in lengths]
    return (
        "## Accuracy by task and length\n\n"
        + rows(("task", "asked", *names), exact)
        + "\nThe first token that has to be looked up, alone: finding the place is the hard part, copying from it the "
        "easy one.\n\n" + rows(("task", *names), first)
    )


def by_depth(records: Sequence[Record]) -> str:
    tasks = ("one needle", "four keys", "forty keys")
    chosen = [record for record in records if record["task"] in tasks and record["depth"] is not None]
    groups = grouped(chosen, lambda r: (r["task"], r["length"], min(4, int(5 * r["depth"]))))
    pairs = sorted({(task, length) for task, length, _ in groups}, key=lambda p: (tasks.index(p[0]), p[1]))
    body = [
        (task, str(length), *(show(rates(groups[task, length, fifth])) for fifth in range(5))) for task, length in pairs
    ]
    header = ("task", "tokens", "0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 1")
    return "## Accuracy by depth of the answer\n\n" + rows(header, body)


def by_type(records: Sequence[Record]) -> str:
    chosen = [record for record in records if record["labels"]]
    parts = []
    for label in ("key", "value"):
        groups = grouped(
            (r for r in chosen if r["task"].startswith(("one needle", "four keys"))),
            lambda r, label=label: (r["task"].endswith("(training wordings)"), r["labels"][label]),
        )
        parts.append(
            rows(
                (f"type of {label}", "in training", "exact, all lengths"),
                [(name, "yes" if seen else "no", show(rates(each))) for (seen, name), each in sorted(groups.items())],
            )
        )
    return "## Accuracy by type of key and value\n\nOne needle and four keys together.\n\n" + "\n".join(parts)


def baselines(records: Sequence[Record]) -> str:
    modes = ("full", "truncate to half", "random half")
    length = next((record["length"] for record in records if record["mode"] != "full"), 0)
    at = [record for record in records if record["length"] == length]
    groups = grouped(at, lambda record: (record["task"], record["mode"]))
    tasks = [task for task in LEGEND if (task, "random half") in groups]
    body = [(task, *(show(rates(groups[task, mode]), count=False) for mode in modes)) for task in tasks]
    return (
        f"## Against the null baselines, {length} tokens\n\nTruncation drops the middle half before reading; random "
        "eviction keeps the first 4, the last 32 and a random rest of half the entries.\n\n"
        + rows(("task", *modes), body)
    )


def against(table: Table, rival: Table) -> str:
    body = [
        (task, str(length), show(table[task, length]), show(cell), f"{cell['content']:.2f}", f"{cell['first']:.2f}")
        for (task, length), cell in rival.items()
        if (task, length) in table
    ]
    header = ("task", "tokens", "this model", "trial", "trial, end not required", "trial, first token")
    return (
        "## Against the first trial\n\nThe weights this model started from, on the same questions; they were never "
        "trained to end an answer with `<eos>`.\n\n" + rows(header, body)
    )


def perplexity(found: Sequence[dict[str, Any]]) -> str:
    body = [(f"{each['from']} to {each['to']}", f"{each['perplexity']:.2f}", str(each["tokens"])) for each in found]
    return "## Perplexity by position, unseen source code\n\n" + rows(("position", "perplexity", "tokens"), body)


def heads(found: dict[str, Any]) -> str:
    scores = found["scores"]
    body = [(f"layer {i}", *(f"{score:.2f}" for score in layer)) for i, layer in enumerate(scores)]
    flat = sorted(((s, i, j) for i, layer in enumerate(scores) for j, s in enumerate(layer)), reverse=True)
    best = ", ".join(f"layer {i} head {j} ({s:.2f})" for s, i, j in flat[:4])
    return (
        f"## Which heads retrieve\n\nShare of the {found['tokens']} copied answer tokens (four keys, {found['length']} "
        "tokens) at which the head's strongest look into the document lands on the very token copied. "
        f"Foremost: {best}.\n\n" + rows(("", *(f"head {j}" for j in range(len(scores[0])))), body)
    )


def cost(log: Sequence[Record], run: Path) -> str:
    """Tokens and minutes from the log; what a person has to know besides from the run's notes.md."""
    last = log[-1]
    notes = run / "notes.md"
    text = (
        f"{last['tokens'] / 1e6:.1f} million tokens in {last['seconds'] / 60:.0f} minutes: {last['step']} steps, "
        f"{last['tokens'] / last['seconds']:.0f} tokens/s."
    )
    return f"{text} {notes.read_text().strip()}" if notes.is_file() else text


def command(run: Path) -> str:
    """The training command as the run recorded it."""
    file = run / "command.txt"
    return file.read_text().strip() + "\n" if file.is_file() else ""


def curve(
    verdicts: Sequence[Record], final: Sequence[Record], log: Sequence[Record], before: int
) -> list[dict[str, Any]]:
    """Tokens trained in all, `before` this run too, against accuracy: snapshots evaluated under the name `tokens-N`."""
    points: list[dict[str, Any]] = []
    groups = grouped((v for v in verdicts if v["model"].startswith("tokens-")), lambda v: v["model"])
    ends = [*((int(name[7:]), group) for name, group in sorted(groups.items())), (log[-1]["tokens"], list(final))]
    lengths = {verdict["length"] for group in groups.values() for verdict in group}
    for tokens, group in ends:
        point: dict[str, Any] = {"tokens": before + tokens}
        for task in CURVE:
            own = [v for v in group if v["task"] == task and v["length"] in lengths]
            if own:
                point[task] = rates(own)
        points.append(point)
    return points


def curve_section(points: Sequence[dict[str, Any]], table: Table) -> str:
    """The curve, and what its last points promise if the error goes on falling as a power of the tokens."""
    tasks = [task for task in CURVE if task in points[0]]
    body = [
        (f"{point['tokens'] / 1e6:.1f}", *(show(point.get(task), count=False) for task in tasks)) for point in points
    ]
    text = (
        "## What more compute would buy\n\nAccuracy against million tokens trained in all (lengths of the snapshots "
        "only; the learning rate had not yet fallen at the earlier points):\n\n"
        + rows(("million tokens", *tasks), body)
    )
    said = [line for task in tasks if (line := _extrapolate(task, points))]
    if said:
        text += "\nExtrapolating the error as a power law of tokens, fitted to these points (a rough guide):\n\n"
        text += "\n".join(said) + "\n"
    return text


def _extrapolate(task: str, points: Sequence[dict[str, Any]]) -> str | None:
    usable = [(p["tokens"], 1 - p[task]["exact"]) for p in points if task in p and 0 < p[task]["exact"] < 1]
    if len(usable) < 3:
        return None
    xs, ys = [math.log(x) for x, _ in usable], [math.log(y) for _, y in usable]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope /= sum((x - mean_x) ** 2 for x in xs)
    if slope >= -0.02:
        return f"* {task}: the error does not fall over these points; nothing can be extrapolated."
    needed = math.exp(mean_x + (math.log(0.05) - mean_y) / slope)
    if needed > FAR * usable[-1][0]:
        return f"* {task}: error ∝ tokens^{slope:.2f}, too flat to say when it would reach 5%."
    return f"* {task}: error ∝ tokens^{slope:.2f}; 95% at about {needed / 1e6:.0f} million tokens."
