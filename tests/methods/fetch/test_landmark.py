"""ShadowKV's landmarks: mean keys of chunks, and the chunks that no mean stands for."""

from __future__ import annotations

import pytest
import torch

from farspan.methods.fetch.landmark import Landmark
from farspan.methods.fetch.quest import Quest
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")


def test_a_chunk_is_judged_by_its_mean_and_an_outlier_is_read_anyway() -> None:
    """The second chunk's members cancel out: its mean hides them, its bounds do not, and as an outlier it is read."""
    keys = torch.tensor([[2.0, 0.0], [2.0, 0.1], [6.0, 1.0], [-6.0, 1.0], [1.0, 0.0], [1.0, 0.1]])[None]
    query = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    by_mean, by_outliers = Landmark(budget=2, chunk=2, outliers=0), Landmark(budget=2, chunk=2, outliers=1)
    one, two = [held(keys, by_mean)], [held(keys, by_outliers)]
    torch.testing.assert_close(one[0].index["landmarks"][0, 1], torch.tensor([0.0, 1.0]))
    assert positions_of(by_mean.select(asked(query), one, 2), one) == [[0, 1]]
    assert two[0].index["outlier"].tolist() == [[False, True, False]]
    assert positions_of(by_outliers.select(asked(query), two, 2), two) == [[2, 3]]
    bounds = [held(keys, Quest(budget=2, page=2))]
    assert positions_of(Quest(budget=2, page=2).select(asked(query), bounds, 2), bounds) == [[2, 3]]


def test_heads_of_a_group_add_shares_not_scores() -> None:
    keys = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 0.0]])[None]
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]]).reshape(1, 3, 1, 2)
    method = Landmark(budget=1, chunk=1, outliers=0)
    extents = [held(keys, method)]
    # shares: head 0 gives 1.00 to the first; heads 1 and 2 give 0.79 each to the second, 1.57 together
    assert positions_of(method.select(asked(queries), extents, 1), extents) == [[1]]


def test_a_short_chunk_has_the_mean_of_what_it_holds() -> None:
    keys = torch.tensor([[1.0], [3.0], [5.0]])[None]
    assert held(keys, Landmark(budget=2, chunk=2)).index["landmarks"].flatten().tolist() == [2.0, 5.0]
