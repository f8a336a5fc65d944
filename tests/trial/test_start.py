"""A recipe that goes on from what another one left: what is cut, counted and written down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from digits import TASK
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.low_rank import decomposed
from autoprune.errors import ArtifactError, InputError
from autoprune.methods import build
from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.tasks import load_task
from autoprune.trial.pruned_model import load_pruned, save_pruned
from autoprune.trial.run import Trial, run
from autoprune.trial.shared import SharedState
from autoprune.trial.start import choose_start, target_of_cut

#: It fits every layer that reads what it cuts: ten seconds on an idle core.
LDRF = pytest.param("ldrf", marks=pytest.mark.long)


def recipe(method: str, flops: float, parent: int | None = None, images: int = 1280) -> Recipe:
    return Recipe(
        method=MethodChoice(name=method),
        weights="trained" if parent is None else "front",
        parent=parent,
        target=Target(flops=flops),
        training=Training(images=images, lr=0.02, batch_size=64),
    )


def keep_model(done: Trial, folder: Path) -> Path:
    assert done.outcome.error is None
    assert done.model is not None
    assert done.remains is not None
    save_pruned(folder, done.model, done.remains, {})
    return folder


@pytest.fixture(scope="module")
def parent(one_thread: SharedState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_model(run(recipe("l1", 0.7), one_thread), tmp_path_factory.mktemp("parents") / "l1")


@pytest.fixture(scope="module")
def ranks(one_thread: SharedState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent with decomposed layers, itself the child of one that lost channels."""
    first = keep_model(run(recipe("l1", 0.8), one_thread), tmp_path_factory.mktemp("parents") / "l1")
    return keep_model(run(recipe("svd", 0.5, parent=0), one_thread, parent=first), first.parent / "svd")


def counted(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 1, 8, 8))
    return counter.get_total_flops()


def check_child(done: Trial, one_thread: SharedState, target: float, folder: Path) -> None:
    """Costs are counted against the dense model, and the artefact loads from the user's factory."""
    outcome = done.outcome
    kept = keep_model(done, folder)
    assert done.model is not None
    assert outcome.flops_ratio == pytest.approx(counted(done.model) / counted(one_thread.model), abs=1e-12)
    assert outcome.flops_ratio == pytest.approx(target, abs=TOLERANCE)
    loaded = artifact.load(kept, lambda: load_task(TASK).build(3))
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(loaded(images), done.model.cpu()(images))


@pytest.mark.parametrize("method", [LDRF, *(name for name in methods.names() if name not in ("dense", "ldrf"))])
def test_every_method_goes_on_from_a_pruned_model(
    method: str, one_thread: SharedState, parent: Path, tmp_path: Path
) -> None:
    done = run(recipe(method, 0.45, parent=3), one_thread, parent=parent)

    check_child(done, one_thread, 0.45, tmp_path / "child")
    assert done.remains is not None
    before = load_pruned(parent, one_thread).remains.keep.to_dict()
    after = done.remains.of(one_thread.model).keep.to_dict()
    for group, kept in before.items():
        assert set(after[group]) <= set(kept)


@pytest.mark.parametrize("method", ["l1", "taylor", "svd", LDRF, "fuzzy"])
def test_every_method_goes_on_from_decomposed_layers(
    method: str, one_thread: SharedState, ranks: Path, tmp_path: Path
) -> None:
    split = set(load_pruned(ranks, one_thread).remains.ranks)
    assert split

    done = run(recipe(method, 0.3, parent=3), one_thread, parent=ranks)

    check_child(done, one_thread, 0.3, tmp_path / "child")
    assert done.model is not None
    assert set(decomposed(done.model)) & split


def test_a_recipe_whose_target_is_met_trains_on(one_thread: SharedState, parent: Path) -> None:
    before = load_pruned(parent, one_thread)
    now = before.remains.ratios(one_thread.dense_cost)["flops"]

    done = run(recipe("l1", now, parent=3), one_thread, parent=parent)

    assert done.outcome.flops_ratio == now
    assert done.remains is not None
    assert done.remains.keep == before.remains.keep
    assert done.outcome.rungs[-1].images == 1280
    assert done.model is not None
    old, new = before.model.state_dict(), done.model.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)


def test_a_child_of_no_images_is_its_parent_cut(one_thread: SharedState, parent: Path) -> None:
    done = run(recipe("l1", 0.5, parent=3, images=0), one_thread, parent=parent)

    assert done.outcome.error is None
    start = choose_start(recipe("l1", 0.5, parent=3), build(MethodChoice(name="l1")), one_thread, parent)
    assert start.graph is not one_thread.graph
    assert done.outcome.rungs[0].accuracy == done.outcome.accuracy


def test_rounds_lead_from_the_parents_cost_to_the_target(one_thread: SharedState, parent: Path) -> None:
    """Two rounds from 0.64 to 0.16 pass by 0.32: a half of what is there, twice."""
    fuzzy = build(MethodChoice(name="fuzzy", params={"rounds": 2}))
    start = choose_start(recipe("fuzzy", 0.2, parent=3), fuzzy, one_thread, parent)
    dense = one_thread.dense_cost
    from autoprune.engine.cost import Cost

    began = Cost(flops=round(0.64 * dense.flops), params=dense.params, activations=dense.activations)
    first = target_of_cut(Target(flops=0.16), fuzzy, one_thread.graph, 0, began, dense)
    assert first.flops == pytest.approx(0.32, rel=1e-6)
    assert start.remains.ratios(dense)["flops"] < 1


def test_without_its_parents_model_a_recipe_fails_and_says_so(one_thread: SharedState) -> None:
    outcome = run(recipe("l1", 0.5, parent=7), one_thread).outcome
    assert outcome.status == "failed"
    assert "parent 7" in (outcome.error or "")


def test_a_parent_that_does_not_say_how_it_was_cut_is_refused(one_thread: SharedState, tmp_path: Path) -> None:
    done = run(recipe("l1", 0.7), one_thread)
    assert done.model is not None
    assert done.remains is not None
    artifact.save(tmp_path / "old", done.model, done.remains.graph, done.remains.keep)
    with pytest.raises(ArtifactError, match="grouped layers"):
        load_pruned(tmp_path / "old", one_thread)


def test_only_a_recipe_from_the_front_has_a_parent() -> None:
    with pytest.raises(InputError, match="a parent"):
        Recipe(method=MethodChoice(name="l1"), parent=3)
