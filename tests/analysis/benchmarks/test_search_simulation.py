"""Simulated searches: the truth that a table tells is found again, and searches behave as on real trainings."""

from __future__ import annotations

import fakes
import numpy as np
import pytest

from autoprune.analysis.benchmarks.search_simulation import (
    SIDES,
    START,
    Truth,
    _outcome,
    held_out_error,
    simulate,
    space_of,
    way_of,
)
from autoprune.analysis.benchmarks.search_table import Ladder, Row, Rung, recipe_of
from autoprune.recipe import Training
from autoprune.search.proposing.lineage_expectation import Expectation
from autoprune.study.config import Sampler, StudyConfig
from autoprune.study.outcome import Proposal

TRUTH = Truth(
    dense=0.9,
    expectation=Expectation(0.9, (0.02, -0.05, -0.01), 0.04, 0.4),
    additions={"l1 global:mean": 0.001, "fpgm uniform": -0.011},
    noise=0.0,
    seconds=(30.0, 70.0),
    images=64,
)
LADDER = Ladder((Rung("l1", "global:mean", 0.5),), seed=0)
TARGETS = (0.8, 0.55, 0.4, 0.27, 0.19, 0.13, 0.08)
SPACE = {
    **fakes.SPACE,
    "weights": {"choice": ["trained", "front"]},
    "training": {**fakes.SPACE["training"], "images": {"int": [64, 256], "log": True}},
}


def table(noise: float = 0.0) -> list[Row]:
    """Two ways, each down five ladders of other targets."""
    random, rows = np.random.default_rng(7), []
    for way, addition in TRUTH.additions.items():
        method, shape = way.split()
        for shift in range(5):
            start, accuracy, parent = 1.0, TRUTH.dense, None
            for depth, rung in enumerate(TARGETS, 1):
                target = rung * (1 - 0.03 * shift)
                accuracy = TRUTH.expectation.child(accuracy, start, target) + addition + noise * random.normal()
                ladder = Ladder(tuple(Rung(method, shape, other) for other in TARGETS[:depth]), seed=shift)
                recipe = recipe_of(ladder, parent, Training(images=64))
                seconds = 30.0 + 70.0 * target
                parent, start = len(rows), target
                fields = {"accuracy": accuracy, "flops": target, "images": 64, "seconds": seconds, "error": None}
                rows.append(Row(number=parent, ladder=ladder, recipe=recipe, **fields))
    return rows


def test_what_ways_differ_by_is_found_again() -> None:
    found = Truth.fitted(table(), TRUTH.dense)
    difference = found.additions["l1 global:mean"] - found.additions["fpgm uniform"]
    assert difference == pytest.approx(0.012, abs=0.0005)
    assert found.seconds == pytest.approx((30.0, 70.0))
    assert found.noise < 0.001
    assert Truth.fitted(table(noise=0.005), TRUTH.dense).noise == pytest.approx(0.005, abs=0.0015)


def test_what_a_fit_does_not_know_is_off_by_the_noise() -> None:
    ours = [row for row in table(noise=0.004) if row.recipe.method.name == "l1"]
    assert 0.003 < held_out_error(ours, TRUTH.dense) < 0.008


def test_a_way_that_the_table_lacks_adds_the_same_in_one_run_and_something_else_in_the_next() -> None:
    other = recipe_of(Ladder((Rung("taylor", "uniform", 0.5),), seed=0), None, Training(images=64))
    known = recipe_of(Ladder((Rung("fpgm", "uniform", 0.5),), seed=0), None, Training(images=64))
    assert TRUTH.addition(known, seed=3) == -0.011
    assert TRUTH.addition(other, seed=3) == TRUTH.addition(other, seed=3) != TRUTH.addition(other, seed=4)
    assert way_of(other) == "taylor uniform"


@pytest.mark.parametrize("side", SIDES)
def test_every_side_runs_for_its_time(side: str) -> None:
    space = space_of(SIDES[side], SPACE, TRUTH).bind(fakes.GROUPS)
    config = StudyConfig(task={}, space=space, controls=False, sampler=Sampler(startup=4))
    with SIDES[side].replaced():
        found = simulate(space, config, TRUTH, seed=1, seconds=600.0, workers=3)
    # 30 to 86 seconds each, or up to four times that
    longest = 86 * (1 if SIDES[side].one_length else 4)
    assert 3 * (600 - START - longest) / longest <= found.trainings <= 3 * 600 / 30
    assert 0.5 < found.hypervolume < 0.9
    assert 0.0 < found.outside < 0.05


def test_a_longer_training_takes_longer_and_gives_more() -> None:
    short, long = (recipe_of(LADDER, None, Training(images=images)) for images in (64, 192))
    assert TRUTH.duration(long) == pytest.approx(3 * TRUTH.duration(short))
    outcomes = [_outcome(Proposal(id=1, recipe=recipe), {}, TRUTH, luck=0.0, seed=0) for recipe in (short, long)]
    lacks = [TRUTH.dense + TRUTH.additions["l1 global:mean"] - outcome.accuracy for outcome in outcomes]
    assert lacks[1] == pytest.approx(lacks[0] / 3**TRUTH.expectation.patience)


def test_going_on_from_the_front_beats_starting_from_the_dense_model() -> None:
    heights = {}
    for side in ("ours", "no inheritance"):
        space = space_of(SIDES[side], SPACE, TRUTH).bind(fakes.GROUPS)
        config = StudyConfig(task={}, space=space, controls=False, sampler=Sampler(startup=4))
        runs = [simulate(space, config, TRUTH, seed=seed, seconds=900.0, workers=2) for seed in range(3)]
        heights[side] = np.mean([run.height for run in runs])
    assert heights["ours"] > heights["no inheritance"] + 0.01
