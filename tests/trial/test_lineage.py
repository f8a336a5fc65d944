"""A lineage run as one gives what its recipes gave one by one."""

from __future__ import annotations

from pathlib import Path

from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.trial.lineage import run_lineage
from autoprune.trial.pruned_model import save_pruned
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState


def recipe(method: str, flops: float, parent: int | None = None) -> Recipe:
    return Recipe(
        method=MethodChoice(name=method),
        weights="trained" if parent is None else "front",
        parent=parent,
        target=Target(flops=flops),
        training=Training(images=1280, lr=0.02, batch_size=64),
    )


LINE = [
    recipe("l1", 0.7),
    recipe("svd", 0.5, 0),
    recipe("taylor", 0.4, 1),
    recipe("l1", 0.4, 2),
    recipe("fpgm", 0.3, 3),
]


def test_a_lineage_of_five_gives_the_same_bits_as_five_trials(one_thread: SharedState, tmp_path: Path) -> None:
    parent = None
    for number, one in enumerate(LINE):
        done = run(one, one_thread, parent=parent)
        assert done.model is not None
        assert done.remains is not None
        parent = tmp_path / str(number)
        save_pruned(parent, done.model, done.remains, {})

    again = run_lineage(LINE[:-1], LINE[-1], one_thread, id=7)

    assert again.outcome.accuracy == done.outcome.accuracy
    assert again.outcome.costs == done.outcome.costs
    assert dict(again.outcome.widths) == dict(done.outcome.widths)
    assert (again.outcome.id, again.outcome.ancestor_images, again.outcome.lineage_images) == (7, 5120, 6400)
    assert again.outcome.ancestors == tuple(LINE[:-1])


def test_an_ancestor_that_fails_is_named(one_thread: SharedState) -> None:
    outcome = run_lineage([LINE[0], recipe("l1", 1e-5, 0)], LINE[2], one_thread, id=3, control=True).outcome
    assert outcome.status == "failed"
    assert outcome.recipe == LINE[2]
    assert (outcome.id, outcome.control, outcome.accuracy) == (3, True, None)
    assert "ancestor 1 of the lineage failed" in (outcome.error or "")


def test_a_lineage_counts_from_its_first_ancestor_on(one_thread: SharedState) -> None:
    times = iter(range(11, 99))
    outcome = run_lineage(LINE[:1], recipe("l1", 0.5, 0), one_thread, clock=lambda: float(next(times))).outcome
    assert outcome.started == 11.0
    assert outcome.finished > outcome.started
