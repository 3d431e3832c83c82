"""Contexts that were read apart and answered together: their logits are those of a replay that is block-diagonal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.composed import parts, templated_pair
from tests.oracle.pairwise import pairwise, product
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import BATCHES, LONG, ORDERS, QUESTIONS, SHORT, SITUATIONS, pair, plan_of

KINDS = ("llama", "qwen3", "mistral", "gemma3", "phi3")  # GPT-2 and OPT learned their positions
PLANS = (
    "full",
    "snapkv:40(window=8)",
    "int8",
    "snapkv:25%(window=8) | int8",
    "adakv:40 | snapkv(window=8) | int8(group=16)",
    "h2o:40",
    "random:40 | offload",
)
MATRIX = {
    "kind": KINDS,
    "plan": PLANS,
    "order": ORDERS,
    "batch": BATCHES,
    "situation": tuple(name for name in SITUATIONS if name != "probe"),
    "template": (False, True),
    "from files": (False, True),
}


def applies(row: dict) -> bool:
    """All of Mistral's layers have a sliding window, so there is nothing for a method to act on."""
    return row["kind"] != "mistral" or row["plan"] == "full"


COVERING = pairwise(MATRIX, applies)
REST = [row for row in product(MATRIX, applies) if row not in COVERING]


def name(row: dict) -> str:
    return "-".join(str(value) for value in row.values())


def check(row: dict, folder: Path, how: str | None = None) -> None:
    model, twin = (templated_pair if row["template"] else pair)(row["kind"])
    plan = plan_of(row["plan"], row["order"])
    with recording() as record:
        composed = model.compose(parts(model, plan, folder if row["from files"] else None), how)
        chains = SITUATIONS[row["situation"]](composed, row["batch"], folder)
    for chain in chains:
        if row["order"].startswith("stream"):
            recorded = sum(p.logits.shape[0] for p in record.of(*chain))
            assert recorded == chain[-1].seen - composed.seen, "every later token passed once"
        assert agreement(twin, record, *chain) <= TOLERANCE


@pytest.mark.parametrize("row", COVERING, ids=name)
def test_logits_are_those_of_the_block_diagonal_replay(row: dict, tmp_path: Path) -> None:
    check(row, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", REST, ids=name)
def test_logits_are_those_of_the_block_diagonal_replay_in_every_combination(row: dict, tmp_path: Path) -> None:
    check(row, tmp_path)


IN_PIECES = {
    "kind": (*KINDS, "gpt2"),
    "plan": ("full", "snapkv:140(window=8)", "int8", "adakv:80% | snapkv(window=8) | int8(group=16)", "h2o:90%"),
    "order": ORDERS,
    "batch": BATCHES,
    "situation": tuple(SITUATIONS),
    "template": (False, True),
}


@pytest.mark.parametrize("row", pairwise(IN_PIECES, applies), ids=name)
def test_texts_read_in_pieces_are_replayed_piece_by_piece(row: dict, tmp_path: Path) -> None:
    model, twin = (templated_pair if row["template"] else pair)(row["kind"])
    plan = plan_of(row["plan"], row["order"])
    probe = QUESTIONS[0] if row["situation"] == "probe" else None
    with recording() as record:
        (context,) = model.read_batch([[LONG, SHORT]], f"{plan} | concat(chunk=100)", probes=[probe], trace=True)
        chains = SITUATIONS[row["situation"]](context, row["batch"], tmp_path)
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE


WEIGHED = {
    "kind": (*KINDS, "gpt2", "opt"),
    "plan": ("full", "snapkv:150(window=8)", "int8", "adakv:80% | snapkv(window=8) | int8(group=16)", "h2o:90%"),
    "how": (
        "ape(chunk=70)",
        "ape(chunk=100, temperature=0.4, scale=1.3)",
        "sinks(chunk=80, tokens=3)",
        "sinks(chunk=60, top=2)",
    ),
    "order": ORDERS,
    "batch": BATCHES,
    "situation": tuple(SITUATIONS),
    "template": (False, True),
}


@pytest.mark.parametrize("row", pairwise(WEIGHED, applies), ids=name)
def test_pieces_that_are_weighed_are_replayed_at_their_temperature_scale_and_selection(
    row: dict, tmp_path: Path
) -> None:
    model, twin = (templated_pair if row["template"] else pair)(row["kind"])
    plan = plan_of(row["plan"], row["order"])
    probe = QUESTIONS[0] if row["situation"] == "probe" else None
    with recording() as record:
        (context,) = model.read_batch([[LONG, SHORT]], f"{plan} | {row['how']}", probes=[probe], trace=True)
        assert context.next_position < context.seen
        chains = SITUATIONS[row["situation"]](context, row["batch"], tmp_path)
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE


COMPOSED_SO = {
    "kind": (*KINDS, "gpt2"),
    "plan": ("full", "int8", "snapkv:25%(window=8) | int8", "random:40 | offload"),
    "how": ("ape", "sinks(top=1)"),
    "batch": BATCHES,
    "situation": tuple(name for name in SITUATIONS if name != "probe"),
    "template": (False, True),
    "order": ORDERS[:1],
    "from files": (False, True),
}


@pytest.mark.parametrize("row", pairwise(COMPOSED_SO, applies), ids=name)
def test_contexts_are_composed_so_too(row: dict, tmp_path: Path) -> None:
    check(row, tmp_path, row["how"])
