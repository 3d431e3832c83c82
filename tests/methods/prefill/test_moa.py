"""Spans of heads by what their profile says lies beyond them."""

from __future__ import annotations

import dataclasses

import pytest

from farspan.cache.sequence import Patterned
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.heads import BEYOND, SCORES, HeadProfile
from farspan.methods.prefill.moa import Moa, spans
from farspan.plan import Plan
from farspan.testing import check_method
from farspan.testing.made_up import made_up_profile
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import KINDS, LONG, MIDDLE, ORDERS, ask, pair


def profile_of(*beyond: tuple[float, ...]) -> HeadProfile:
    """One layer; of each head, what lies beyond the window, and beyond 1/16, 1/8, 1/4, 1/2 of the text."""
    columns = dict(zip(BEYOND, zip(*beyond, strict=True), strict=True))
    rest = {name: tuple(0.0 for _ in beyond) for name in SCORES}
    scores = {name: (tuple(row),) for name, row in {**columns, **rest}.items()}
    return HeadProfile(model="by hand", fingerprint={}, layers=(0,), scores=scores)


LOCAL, NEAR, FAR = (0.0,) * 5, (0.4, 0.1, 0.0, 0.0, 0.0), (0.6, 0.6, 0.6, 0.6, 0.6)


def test_heads_are_given_what_saves_most_for_what_it_costs():
    """Pairs within a share s of the text: s (2 - s): 0.121, 0.234, 0.4375, 0.75 and 1 for 1/16, 1/8, 1/4, 1/2 and all.

    NEAR saves 0.3 for 0.121 (2.5 a pair), then 0.1 for 0.113 more (0.9); FAR saves 0.6 for 1 (0.6), and nothing by any
    other step. LOCAL saves nothing.
    """
    profile = profile_of(LOCAL, NEAR, FAR)
    assert spans(profile, 0.05) == [[0.0, 1 / 16, 0.0]]  # 0.15 of a head
    assert spans(profile, 0.1) == [[0.0, 1 / 8, 0.0]]
    assert spans(profile, 0.35) == [[0.0, 1 / 8, 0.0]], "FAR's one step does not fit the 0.816 that are left"
    assert spans(profile, 0.42) == [[0.0, 1 / 8, 1.0]]  # 1.234 of 1.26
    assert spans(profile, 1.0) == [[0.0, 1 / 8, 1.0]], "what saves nothing is not bought"


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.6, 1.0])
def test_the_density_is_held(density):
    profile = made_up_profile({0: 4, 2: 3})
    chosen = [share for row in spans(profile, density) for share in row]
    assert sum(share * (2 - share) for share in chosen) <= density * len(chosen) + 1e-6


def moa(tmp_path, kind: str, **given) -> str:
    model, _ = pair(kind)
    heads = {i: layer.heads for i, layer in enumerate(model.layout.layers) if layer.window is None}
    file = made_up_profile(heads, model.fingerprint).save(tmp_path / f"{kind}.heads")
    return str(Plan((Moa(profile=str(file), density=0.3, sinks=2, window=5, **given),)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mistral"])
def test_what_was_seen_is_what_was_noted(kind, order, tmp_path):
    model, twin = pair(kind)
    with recording() as record:
        context = model.read_batch([LONG], f"{moa(tmp_path, kind)} | {order} | int8", trace=True)[0]
        longer = context.append(MIDDLE[:120], probe="Which port?")
        answered = ask(longer, "Which port?", "single", tokens=2)[0].context
    assert agreement(twin, record, context, longer, answered) <= TOLERANCE
    noted = [event for event in longer._cache.events.log if isinstance(event, Patterned)]
    assert noted and len({s.window for event in noted for s in event.pattern.heads}) > 1


def test_windows_grow_with_the_text(tmp_path):
    """The same heads, a text twice as long: what is a share of it is twice as much."""
    model, _ = pair("llama")
    plan = f"{moa(tmp_path, 'llama')} | stream(chunk=32)"
    seen = {}
    for text in (LONG, LONG * 2):
        context = model.read_batch([text], plan, trace=True)[0]
        events = [e for e in context._cache.events.log if isinstance(e, Patterned)]
        seen[context.seen] = {(e.layer, h): s.window for e in events for h, s in enumerate(e.pattern.heads)}
    (short, few), (long, many) = seen.items()
    assert few.keys() == many.keys() and any(width > 5 for width in few.values())
    for head, width in few.items():
        assert abs((many[head] - 5) * short - (width - 5) * long) <= 2 * long


def test_it_keeps_the_contract_where_it_hides_something():
    check_method(Moa(density=0.2, sinks=2, window=5))


def test_a_profile_that_does_not_fit_is_refused(tmp_path):
    model, _ = pair("llama")
    other = made_up_profile({0: 2, 1: 3, 2: 2}, model.fingerprint).save(tmp_path / "other.heads")
    with pytest.raises(PlanDoesNotApply, match=r"moa does not apply: its profile .* it scores the heads"):
        model.read(LONG, f"moa(profile='{other}')")
    stranger = made_up_profile({0: 2, 1: 2, 2: 2}, {"whole": "another"}).save(tmp_path / "stranger.heads")
    with pytest.raises(PlanDoesNotApply, match="made with 'made up'"):
        model.read(LONG, f"moa(profile='{stranger}')")
    known = made_up_profile({0: 2, 1: 2, 2: 2}, model.fingerprint)
    old = dataclasses.replace(known, scores={name: known.scores[name] for name in SCORES})
    with pytest.raises(PlanDoesNotApply, match="made before profiles said what lies beyond a span"):
        model.read(LONG, f"moa(profile='{old.save(tmp_path / 'old.heads')}')")


@pytest.mark.parametrize("value", ["density=0", "density=1.5", "window=0", "sinks=-1"])
def test_values_that_mean_nothing_are_refused(value):
    with pytest.raises(PlanError, match=value):
        Plan.parse(f"moa({value})")
