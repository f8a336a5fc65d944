"""What a recipe exceeds is what samplers learn from, whichever Optuna is installed."""

from __future__ import annotations

import warnings

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from autoprune.errors import InputError
from autoprune.search.proposing import optuna_constraints
from autoprune.search.proposing.optuna_constraints import (
    BY_NAME,
    check_constraints_are_learned,
    constraint_options,
    note_excess,
    noted_excess,
)
from autoprune.study.config import Sampler


def study_with_constraints() -> optuna.Study:
    """Minimise x in [0, 1] where all below 0.7 exceeds a limit: 20 values at random, then 20 by TPE."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = TPESampler(n_startup_trials=20, seed=1, **constraint_options(constrained=True))
    study = optuna.create_study(directions=["minimize"], sampler=sampler)
    for _ in range(40):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        note_excess(trial, {"low": 0.7 - x, "high": x - 2})
        study.tell(trial, x)
    return study


def test_noted_is_what_was_exceeded_and_samplers_avoid_it() -> None:
    trials = study_with_constraints().get_trials()

    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert [noted_excess(trial) for trial in trials] == [
        {"low": 0.7 - trial.params["x"], "high": trial.params["x"] - 2} for trial in trials
    ]
    # Three in ten are allowed, of 15 drawn at random about 4; a sampler that knew only x would go to 0.
    assert sum(trial.params["x"] >= 0.7 for trial in trials[-15:]) >= 8


def test_without_constraints_samplers_are_asked_nothing() -> None:
    assert constraint_options(constrained=False) == {}
    assert BY_NAME == (constraint_options(constrained=True) == {})
    assert noted_excess(optuna.trial.create_trial(value=1.0)) == {}


@pytest.mark.parametrize(
    ("by_name", "name", "objectives", "constrained", "refused"),
    [
        (False, "gp", 2, True, True),
        (True, "gp", 2, True, False),
        (False, "gp", 1, True, False),
        (False, "gp", 2, False, False),
        (False, "tpe", 2, True, False),
    ],
)
def test_what_a_sampler_cannot_learn_is_refused(
    by_name: bool, name: str, objectives: int, constrained: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_constraints, "BY_NAME", by_name)
    if not refused:
        check_constraints_are_learned(Sampler(name=name), objectives, constrained)
        return
    with pytest.raises(InputError, match=r"^sampler.name: a Gaussian process .* needs optuna 5; allowed: tpe, nsga2"):
        check_constraints_are_learned(Sampler(name=name), objectives, constrained)
