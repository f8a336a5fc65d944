"""Scores per latency: what a channel of each group saves, found once, noted, and the same when a trial is run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from digits import TASK
from torch import nn

from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.constraints import Latency
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.latency_prices import PRICES_NOTE, priced, priced_again
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

ASKED = Recipe(
    method=MethodChoice(name="l1"),
    target=Target(flops=0.5),
    allocation=Allocation(per="latency"),
    training=Training(images=64, batch_size=64),
)


@pytest.fixture(scope="module")
def shared(data_folder: Path) -> SharedState:
    """On a clock by which a model takes as long as its first layer has parameters, and all others nothing."""
    assert data_folder.is_dir()
    loaded = SharedState.of(load_task(TASK), Runtime(threads=1))
    first = size_of_first(loaded.model)
    loaded.timer.roughly = lambda model, latency: 0.3 + 0.7 * size_of_first(model) / first  # type: ignore[method-assign]
    return loaded


def size_of_first(model: nn.Module) -> int:
    return next(model.parameters()).numel()


def test_a_channel_counts_what_it_saves_of_the_time(shared: SharedState) -> None:
    prices = priced(ASKED, shared, None).allocation.prices
    by_price = sorted(prices, key=lambda group: prices[group])
    layer = next(iter(shared.model.state_dict()))
    first = next(group.id for group in shared.graph.prunable if layer.startswith(group.id))

    assert by_price[-1] == first
    assert prices[first] == 1
    assert all(0 < price < 0.5 for group, price in prices.items() if group != first)


def test_the_expensive_group_loses_more_than_without(shared: SharedState) -> None:
    plain = replace(ASKED, allocation=Allocation())
    widths = [run(one, shared, latency=None).outcome.widths for one in (plain, ASKED)]
    first = max(priced(ASKED, shared, None).allocation.prices.items(), key=lambda item: item[1])[0]

    assert widths[1][first] < widths[0][first]


def test_the_outcome_notes_them_and_the_trial_can_be_run_again(shared: SharedState) -> None:
    outcome = run(ASKED, shared).outcome
    again = priced_again(outcome.recipe, outcome.notes)

    assert (outcome.status, outcome.recipe) == ("completed", ASKED)
    assert PRICES_NOTE in outcome.notes
    assert again.allocation == priced(ASKED, shared, None).allocation
    assert run(again, shared).outcome.widths == outcome.widths
    assert priced_again(ASKED, {}) is ASKED


@pytest.mark.parametrize("allocation", [Allocation(), Allocation(per="flops"), Allocation(name="uniform")])
def test_other_recipes_stay_as_they_are(shared: SharedState, allocation: Allocation) -> None:
    recipe = replace(ASKED, allocation=allocation)

    assert priced(recipe, shared, Latency()) is recipe
