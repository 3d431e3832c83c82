"""Where the card states an aim, two hundred questions decide."""

from __future__ import annotations

import pytest

from training.cardparts import AIMS
from training.evaluate import plan
from training.probes import CELLS

ASKED = {"four keys": 4, "forty keys": 8, "multi-value": 4, "multi-query": 4, "2 hops": 3, "4 hops": 3}


@pytest.mark.parametrize(("task", "length"), [(task, length) for task, length, _ in AIMS if task in CELLS])
def test_aims_are_judged_by_two_hundred_questions(task: str, length: int):
    ((_, _, share, _),) = plan([task], [length], 1.0)
    assert round(CELLS[task].documents * share) * ASKED.get(task, 1) >= 200


def test_other_lengths_ask_as_many_as_their_cells_say():
    assert [share for _, _, share, _ in plan(["four keys"], [1024, 2048, 8192], 1.0)] == [1.0, 1.0, 0.4]
