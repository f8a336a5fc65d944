"""By how much a recipe exceeds its constraints, told to the Optuna that is installed.

Optuna 5 takes a number by its name when it is known, `Trial.set_constraint`. Before, a sampler was given a function
that it called at the end of a trial: here one that reads what was noted with the trial until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna import Trial
from optuna.trial import FrozenTrial

from autoprune.errors import InputError
from autoprune.study.config import Sampler

BY_NAME = hasattr(Trial, "set_constraint")
_NOTED = "autoprune:excess"


def note_excess(trial: Trial, excess: Mapping[str, float]) -> None:
    """Note by what share the trial exceeds each constraint, before it ends; 0 and below is allowed."""
    if BY_NAME:
        for name, share in excess.items():
            trial.set_constraint(name, share)
    else:
        trial.set_user_attr(_NOTED, dict(excess))


def noted_excess(trial: FrozenTrial) -> dict[str, float]:
    """What `note_excess` noted; empty where nothing was."""
    return dict(trial.constraints if BY_NAME else trial.user_attrs.get(_NOTED, {}))


def constraint_options(constrained: bool) -> dict[str, Any]:
    """The arguments that make a sampler look at what was noted."""
    return {} if BY_NAME or not constrained else {"constraints_func": lambda trial: list(noted_excess(trial).values())}


def check_constraints_are_learned(sampler: Sampler, objectives: int, constrained: bool) -> None:
    """Refuse the one sampler that older versions cannot give constraints beside several objectives.

    Raises:
        InputError: it is the Gaussian process.
    """
    if not BY_NAME and constrained and objectives > 1 and sampler.name == "gp":
        raise InputError(
            "a Gaussian process that learns constraints beside several objectives needs optuna 5",
            where="sampler.name",
            allowed="tpe, nsga2, nsga3, random; or a newer optuna",
        )
