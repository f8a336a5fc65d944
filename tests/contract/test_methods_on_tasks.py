"""Every method runs on every kind of task, from the dense model to a smaller one that is trained and measured."""

from __future__ import annotations

from functools import cache

import pytest
from scene_tasks import RETINANET, UNET

from autoprune import methods
from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.study.outcome import DENSE
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

#: What makes a method quick, or complete; all others as they are.
PARAMS = {
    "blend": {"l1": 0.7, "group_fisher": 0.5, "taylor": 0.3},
    "channel_pruning": {"images": 6},
    "group_fisher": {"images": 6},
    "ldrf": {"images": 6, "steps": 3},
    "orthoreg": {"images": 128},
    "svd": {"channels": "prune"},
    "taylor": {"images": 6},
}

#: Methods that make the outputs of one layer anew from another's: in a detector, only inside of the backbone's blocks.
PAIRS_ONLY = ("channel_pruning", "ldrf")


#: Their layers are factorised: a detector is traced five times for it, at two seconds each.
SLOW = ("hinge", "svd")

METHODS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(set(methods.names()) - {DENSE})
]
TASKS = {"segmentation": UNET, "detection": RETINANET}


@cache
def shared_state(kind: str) -> SharedState:
    """The task is loaded and traced once for all methods."""
    return SharedState.of(load_task(TASKS[kind]), Runtime(channels_last=True))


def recipe(method: str, flops: float) -> Recipe:
    training = Training(images=16, batch_size=8, lr=0.01, rungs=(1.0,))
    return Recipe(
        method=MethodChoice(name=method, params=PARAMS.get(method, {})), target=Target(flops=flops), training=training
    )


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_prunes_trains_and_measures(method: str, kind: str) -> None:
    flops = 0.95 if method in PAIRS_ONLY else 0.6

    outcome = run(recipe(method, flops), shared_state(kind)).outcome

    assert outcome.error is None
    assert outcome.completed
    assert flops - 0.15 < outcome.flops_ratio < flops + 0.02
    assert 0 <= outcome.accuracy <= 1


@pytest.mark.parametrize("method", PAIRS_ONLY)
def test_a_target_that_a_method_cannot_reach_on_a_detector_is_refused_before_training(method: str) -> None:
    outcome = run(recipe(method, 0.3), shared_state("detection")).outcome

    assert outcome.error is not None
    assert "target: flops: 0.3 cannot be reached" in outcome.error
    assert not outcome.rungs
