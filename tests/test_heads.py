"""Head profiles as artefacts: one file, known by its content, refused where it does not belong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import farspan
from farspan import heads, plan_toml
from farspan.artefacts import checksum
from farspan.errors import PlanDoesNotApply, PlanError, ProfileError, StorageError
from farspan.heads import HeadProfile
from farspan.model import Model
from farspan.plan import Plan
from farspan.testing.made_up import made_up_profile
from tests.models import tiny, tiny_tokenizer

HEADS = {0: 2, 1: 2, 2: 2}
TEXT = "The gateway listens on port 8443, and the archive keeps every letter for seven years.\n" * 12


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that an earlier test read is remembered."""
    monkeypatch.setattr(heads, "_known", {})


@pytest.fixture
def model() -> Model:
    tokenizer = tiny_tokenizer()
    return farspan.load(tiny("llama", vocab_size=len(tokenizer)), tokenizer=tokenizer)


@pytest.fixture
def saved(tmp_path: Path, model: Model) -> Path:
    return made_up_profile(HEADS, model.fingerprint).save(tmp_path / "model.heads")


def plan_of(path: Path, budget: str = "25%") -> Plan:
    return Plan.parse(f"headkv:{budget}(profile='{path}') | snapkv(window=8)")


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    profile = made_up_profile({1: 2, 3: 4}, {"whole": "abc"})
    loaded = heads.load(str(profile.save(tmp_path / "a.heads")))
    assert loaded == profile and loaded.digest == profile.digest and loaded.heads == (2, 4)
    assert loaded.row("retrieval", 3) == profile.scores["retrieval"][1]


def test_a_plan_goes_by_the_content_wherever_it_lies(saved: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copy(saved, tmp_path / "copy.heads")
    one, two = plan_of(saved), plan_of(elsewhere)
    assert one.hash == two.hash and one != two
    other = made_up_profile({0: 3}).save(tmp_path / "other.heads")
    assert plan_of(other).hash != one.hash != Plan.parse("headkv:25% | snapkv(window=8)").hash


def test_a_pinned_plan_round_trips(saved: Path) -> None:
    plan = plan_of(saved)
    assert str(saved) + "#" in str(plan)
    for again in (Plan.parse(str(plan)), Plan.from_json(plan.to_json()), plan_toml.parse(plan_toml.write(plan))):
        assert again == plan and again.hash == plan.hash


def test_a_relative_path_is_kept_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    assert Plan.parse("headkv:25%(profile=model.heads) | snapkv(window=8)") == plan_of(saved)


def test_a_file_that_changed_since_is_not_the_one_meant(saved: Path, model: Model) -> None:
    plan = plan_of(saved)
    made_up_profile({0: 2, 1: 2, 2: 2}, {"whole": "another"}).save(saved)
    heads._known.clear()
    with pytest.raises(ProfileError, match="is not the head profile that this plan names"):
        model.read(TEXT, plan)


def test_a_context_opens_and_answers_without_its_profile(saved: Path, model: Model, tmp_path: Path) -> None:
    context = model.read(TEXT, plan_of(saved))
    context.save(tmp_path / "a.ctx")
    saved.unlink()
    heads._known.clear()
    opened = model.open(tmp_path / "a.ctx")
    assert opened.plan.hash == context.plan.hash
    assert opened.ask("Why?", max_new_tokens=3).token_ids == context.ask("Why?", max_new_tokens=3).token_ids
    with pytest.raises(ProfileError, match="there is no head profile"):
        opened.append(TEXT)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace("0.", "1.", 1), "is damaged: its checksum"),
        (lambda text: text[: len(text) // 2], "no head profile, or a damaged one"),
        (lambda text: "", "no head profile, or a damaged one"),
        (lambda text: '{"kind": "else"}', "is no head profile"),
        (lambda text: "[1, 2]", "is no head profile"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "update farspan"),
    ],
)
def test_damage_is_said_when_the_plan_is_built(saved: Path, damage, says: str) -> None:
    saved.write_text(damage(saved.read_text()))
    with pytest.raises(ProfileError, match=says) as caught:
        plan_of(saved)
    assert "headkv: " in str(caught.value)


def test_a_table_that_is_none_is_refused_whatever_its_checksum(saved: Path) -> None:
    profile = heads.load(str(saved))
    for scores in (
        {**profile.scores, "spread": ((0.1, 0.2), (0.1, 0.2), (0.1,))},
        {**profile.scores, "spread": ((0.1, 0.2), (0.1, 0.2), (0.1, -1.0))},
        {"retrieval": profile.scores["retrieval"]},
    ):
        with pytest.raises(ProfileError, match="the scores"):
            replace(profile, scores=scores)
    content = {"model": "x", "fingerprint": {}, "made": {}, "layers": [0]}
    full = {"kind": heads.FILE.mark, "format": 1, "checksum": checksum(content), **content}
    saved.write_text(json.dumps(full))
    with pytest.raises(ProfileError, match="no head profile that this farspan reads"):
        heads.load(str(saved))


def test_one_that_is_missing_has_a_near_one(saved: Path) -> None:
    with pytest.raises(ProfileError, match=r"there is no head profile .*modle.heads. Did you mean .*model.heads"):
        plan_of(saved.with_name("modle.heads"))
    with pytest.raises(ProfileError, match="cannot be read"):
        plan_of(saved.parent)


def test_another_models_is_refused(saved: Path, model: Model) -> None:
    other = farspan.load(tiny("llama", vocab_size=len(tiny_tokenizer()), seed=5), tokenizer=tiny_tokenizer())
    with pytest.raises(PlanDoesNotApply, match=r"made with 'made up', and .* is another model \(other weights\)"):
        other.read(TEXT, plan_of(saved))
    with pytest.raises(PlanDoesNotApply, match="farspan profile MODEL"):
        model.read(TEXT, "headkv:25%")  # the embedded model's


def test_other_heads_are_refused_though_the_fingerprint_fits(model: Model, tmp_path: Path) -> None:
    for counts in ({0: 2, 1: 2}, {0: 2, 1: 2, 2: 4}):
        file = made_up_profile(counts, model.fingerprint).save(tmp_path / "model.heads")
        with pytest.raises(PlanDoesNotApply, match="this model has 2 in each of 3 layers"):
            model.read(TEXT, plan_of(file))


def test_a_profile_in_which_no_head_scores_is_refused(model: Model, tmp_path: Path) -> None:
    profile = made_up_profile(HEADS, model.fingerprint)
    nothing = tuple((0.0, 0.0) for _ in HEADS)
    file = replace(profile, scores={**profile.scores, "reasoning": nothing}).save(tmp_path / "model.heads")
    with pytest.raises(PlanError, match="no head scores anything"):
        model.read(TEXT, f"headkv:25%(profile='{file}', beta=1) | snapkv(window=8)")


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        made_up_profile({0: 1}).save(tmp_path / "nowhere" / "model.heads")
    (tmp_path / "model.heads").mkdir()
    with pytest.raises(StorageError):
        made_up_profile({0: 1}).save(tmp_path / "model.heads")
    assert [path.name for path in tmp_path.iterdir()] == ["model.heads"]


def test_the_shipped_profile_is_the_embedded_models() -> None:
    model = farspan.load()
    profile: HeadProfile = heads.load(heads.SHIPPED)
    assert profile.fingerprint == model.fingerprint, "run: farspan profile -o src/farspan/reference/model.heads"
    assert len(profile.layers) == len(model.layout.layers)
    context = model.read(TEXT * 4, "headkv:10% | int4")
    assert context.held <= 0.1 * context.seen
    held = [[len(at) for at in layer.positions] for layer in context.inspect()]
    flat = sorted(count for row in held for count in row)
    assert sum(flat) > 0.099 * context.seen * 16 and flat[-1] > 3 * flat[0]
