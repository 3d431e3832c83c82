"""Squeezed Attention: clusters by direction, expected attention by centroid, wherever in the text their keys stand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.methods.fetch._kmeans import clusters
from farspan.methods.fetch.quest import Quest
from farspan.methods.fetch.squeezed import Squeezed
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")


def test_like_keys_are_read_together_though_they_stand_apart() -> None:
    east, north = [5.0, 0.1], [0.1, 5.0]
    keys = torch.tensor([east, north, east, north, east, north])[None]
    query = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    method = Squeezed(budget=3, share=0.3)
    extents = [held(keys, method)]
    assert positions_of(method.select(asked(query), extents, 3), extents) == [[0, 2, 4]]
    pages = [held(keys, Quest(budget=3, page=3))]
    assert positions_of(Quest(budget=3, page=3).select(asked(query), pages, 3), pages) == [[0, 1, 2]]


def test_a_group_adds_expected_shares_not_scores() -> None:
    """Sizes count in the denominator: a head whose mass is spread over a large cluster expects little of each key."""
    keys = torch.tensor([[3.0, 0.0]] + [[0.0, 3.0]] * 6)[None]
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    method = Squeezed(budget=1, share=0.28)
    extents = [held(keys, method)]
    # head 0: e³/(e³ + 6) = 0.77 for the single key; head 1: e³/(6e³ + 1) = 0.17 for each of the six
    assert positions_of(method.select(asked(queries), extents, 1), extents) == [[0]]


def test_keys_of_the_last_cluster_are_read_as_far_as_they_fit() -> None:
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])[None]
    method = Squeezed(budget=3, share=0.5)
    extents = [held(keys, method)]
    query = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert positions_of(method.select(asked(query), extents, 3), extents) == [[0, 1, 2]]


@given(seed=st.integers(0, 2**31), count=st.integers(1, 40), many=st.integers(1, 8))
def test_members_are_nearest_to_their_own_centroid(seed: int, count: int, many: int) -> None:
    keys = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(seed))
    many = min(many, count)
    found = clusters(keys, many, 100)
    for head in range(2):
        assert sorted(found.order[head].tolist()) == list(range(count))
        for c in range(many):
            its = found.order[head, found.starts[head, c] : found.starts[head, c + 1]].long()
            if its.numel():
                torch.testing.assert_close(found.centroids[head, c], keys[head, its].mean(0))
                like = torch.cosine_similarity(keys[head, its][:, None], found.centroids[head][None], dim=-1)
                full = found.starts[head].diff() > 0
                assert bool((like[:, c] >= like[:, full].amax(-1) - 1e-5).all())


@given(seed=st.integers(0, 2**31), k=st.integers(1, 30), breadth=st.integers(1, 50))
def test_the_coarse_level_hides_clusters_and_nothing_else(seed: int, k: int, breadth: int) -> None:
    g = torch.Generator().manual_seed(seed)
    keys, queries = torch.randn(2, 40, 4, generator=g) * 2, torch.randn(2, 2, 1, 4, generator=g)
    fine, both = Squeezed(budget=k, share=0.3), Squeezed(budget=k, share=0.3, coarse=0.1, breadth=breadth)
    one, two = [held(keys, fine)], [held(keys, both)]
    flat = positions_of(fine.select(asked(queries), one, k), one)
    nested = positions_of(both.select(asked(queries), two, k), two)
    if breadth * k >= 40:
        assert flat == nested
    assert all(len(its) <= k for its in nested)
    for head in range(2):  # the same clusters, in another order
        members = [
            {
                frozenset(e.index["order"][head, a:b].tolist())
                for a, b in e.index["starts"][head].unfold(0, 2, 1).tolist()
            }
            for e in (one[0], two[0])
        ]
        assert members[0] == members[1]
