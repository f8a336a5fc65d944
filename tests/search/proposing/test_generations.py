"""Recipes for which a genetic sampler draws nothing belong to its generations, under every version of Optuna."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.search.proposing.generations import enrol_in_generation
from autoprune.search.proposing.samplers import build_sampler


def generations(name: str, count: int, population: int) -> list[int | None]:
    """The generation of trials that were added whole, one after the other, and enrolled; None where none was noted."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize", "maximize"])
    for number in range(count):
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params={"x": number / count}, distributions={"x": FloatDistribution(0, 1)}
            )
        )
        sampler = build_sampler(name, number, wait=4, population=population, constrained=False)
        enrol_in_generation(study, sampler, number)
        study.tell(number, [number % 3, number % 2])
    return [generation_of(trial) for trial in study.get_trials(deepcopy=False)]


def generation_of(trial: FrozenTrial) -> int | None:
    return next((value for key, value in trial.system_attrs.items() if key.endswith(":generation")), None)


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_every_full_generation_is_followed_by_another(name: str) -> None:
    assert generations(name, 11, population=5) == [0] * 5 + [1] * 5 + [2]


def test_samplers_without_generations_are_left_alone() -> None:
    assert generations("tpe", 4, population=2) == [None] * 4
