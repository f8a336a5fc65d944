"""What trackers tell of a trial, in plain data."""

from __future__ import annotations

import math
from dataclasses import replace

from commands import FINALISTS, OUTCOMES

from autoprune.recipe import Allocation
from autoprune.study.metric import ACCURACY
from autoprune.study.outcome import RunInterval
from autoprune.study.tracker import attributes, final_numbers, hyper_parameters, run_name


def test_trials_and_finalists_have_names() -> None:
    assert [run_name(OUTCOMES[0]), run_name(FINALISTS[3])] == ["trial-3", "finalist-5-seed-1"]


def test_a_recipe_is_flat_and_leaves_out_what_it_leaves_open() -> None:
    step = {"weights": "front", "parent": 13}
    recipe = replace(OUTCOMES[1].recipe, allocation=Allocation(name="ratios", ratios={"layer1": 0.3}), **step)
    found = hyper_parameters(replace(OUTCOMES[1], recipe=recipe))

    assert (found["method.name"], found["target.flops"], found["allocation.ratios.layer1"]) == ("taylor", 0.47, 0.3)
    assert found["parent"] == 13
    assert "target.params" not in found
    assert all(isinstance(value, (bool, int, float, str)) for value in found.values())


def test_numbers_that_are_not_known_are_left_out() -> None:
    legs = (RunInterval(worker="a:1", started=3.0, finished=5.0), RunInterval(worker="a:1", started=7.0, finished=11.0))
    outcome = replace(OUTCOMES[0], metric=None, latency_ms=math.inf, latency_ratio=None, legs=legs)

    ratios = {"flops_ratio": 0.31, "params_ratio": 0.31, "activations_ratio": 0.31}
    assert final_numbers(outcome, ACCURACY) == {**ratios, "duration": 6.0}
    assert final_numbers(FINALISTS[3], ACCURACY)["test_accuracy"] == 0.90


def test_attributes_say_how_and_where_it_ended() -> None:
    failed = replace(OUTCOMES[0], status="failed", worker="node3:17", control=True, error="out of memory")

    found = {"status": "failed", "worker": "node3:17", "control": "yes", "error": "out of memory"}
    assert attributes(failed) == found
    assert attributes(OUTCOMES[0]) == {"status": "completed"}
