"""The replay oracle over int4 and int2: the logits are those of the codes, from the moment they were packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.pairwise import pairwise
from tests.oracle.replayed import assert_noticed, replayed
from tests.oracle.situations import BATCHES, ORDERS, SITUATIONS

KINDS = ("llama", "qwen3", "gemma3", "phi3", "gpt2", "opt")  # all with a layer of full attention
PLANS = (
    "int4",
    "int2",
    "snapkv:25%(window=8) | int4",
    "snapkv:40(window=8) | int2",
    "window:40 | int4(group=16)",
)
COVERING = pairwise({"kind": KINDS, "plan": PLANS, "order": ORDERS, "batch": BATCHES, "situation": tuple(SITUATIONS)})


def name(row: dict) -> str:
    return "-".join(str(value) for value in row.values())


@pytest.mark.parametrize("row", COVERING, ids=name)
def test_logits_are_those_of_the_replayed_codes(row: dict, tmp_path: Path) -> None:
    replayed(row, tmp_path)


@pytest.mark.parametrize("plan", ["int4", "int2"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_codes_that_were_not_replayed_would_be_noticed(kind: str, plan: str) -> None:
    assert_noticed(kind, f"{plan} | {ORDERS[0]}", lambda event: True)
