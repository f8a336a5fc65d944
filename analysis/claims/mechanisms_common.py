"""What the modules about mechanisms share: a stage that can be looked into, a short trial, verdicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from autoprune import methods
from autoprune.analysis.claims.methods_cifar10 import TRAINING
from autoprune.methods import Context, Method, Stage
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target
from autoprune.training.fit import fit, steps_of
from autoprune.trial.run import Trial, run
from autoprune.trial.shared import SharedState

Found = dict[str, Any]
#: A claim, what was measured, and whether it holds.
Claim = tuple[str, str, str]
HALF, UNIFORM = Target(flops=0.5), Allocation(name="uniform")
Look = Callable[[int, nn.Module, Any], None]


@dataclass
class _Watched:
    """A regulariser with a callback after every step."""

    regulariser: Any
    look: Look

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.regulariser.before_step(model, step, steps)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.regulariser.after_step(model, step, steps)
        self.look(step, model, self.regulariser)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.regulariser.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.regulariser.load_state_dict(state)


def pressed(
    shared: SharedState, method: Method, images: int, look: Look, *, instead: Any = None, start: nn.Module | None = None
) -> tuple[Context, Any]:
    """A copy of a model after a sparsify stage of the method, and the regulariser with what it found.

    Args:
        look: called after every step.
        instead: a regulariser to use in place of the method's own.
        start: the model; default: the pretrained one.
    """
    training = method.stage_training(replace(TRAINING, images=images))
    steps = steps_of(training, images, len(shared.task.train))
    context = shared.context(shared.runtime.place(copy.deepcopy(start or shared.model)), 0)
    stage = Stage(HALF, UNIFORM, training, steps)
    regulariser = instead or method.sparsify(context, stage)
    watched = _Watched(regulariser, look)
    fit(context.model, shared.task, training, shared.runtime, images=images, seed=0, regulariser=watched)
    return replace(context, regulariser=regulariser), regulariser


def build(name: str, **params: Any) -> Method:
    """The method with these hyper-parameters."""
    return methods.build(MethodChoice(name=name, params=params))


def staged(shared: SharedState, name: str, params: Mapping[str, Any], images: int, how: Allocation = UNIFORM) -> Trial:
    """A trial to half of the FLOPs that spends all its images in the sparsify stage.

    Raises:
        RuntimeError: it failed.
    """
    choice = MethodChoice(name=name, params={**params, "share": 1.0})
    training = replace(TRAINING, images=images, rungs=(0.0,))
    trial = run(Recipe(method=choice, target=HALF, allocation=how, training=training), shared)
    if trial.outcome.error is not None:
        raise RuntimeError(trial.outcome.error)
    return trial


# ---- verdicts --------------------------------------------------------------------------------------------------------


def verdict(differences: Sequence[float]) -> str:
    """`yes` or `no` if the mean is two standard errors from zero, else `unclear`; of one seed half a point counts."""
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else 0.25
    return "unclear" if abs(mean) < 2 * error else holds(mean > 0)


def verdicts(differences: Sequence[Sequence[float]]) -> str:
    """One word if all verdicts are the same, else all of them."""
    found = [verdict(one) for one in differences]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def by_rank(rho: float, count: int) -> str:
    """The verdict on a rank correlation of `count` pairs; without any its standard error is 1 / sqrt(count - 1)."""
    return "unclear" if abs(rho) < 2 / np.sqrt(count - 1) else holds(rho > 0)


def to(before: float, after: float) -> str:
    """A value before and after."""
    return f"{before:.3g} -> {after:.3g}"


def holds(so: bool) -> str:
    """The last column."""
    return "yes" if so else "no"


def rounded(values: Any, digits: int = 4) -> Any:
    """Numbers, also those in lists and mappings, to so many significant digits: files stay readable."""
    if isinstance(values, Mapping):
        return {key: rounded(value, digits) for key, value in values.items()}
    if isinstance(values, (list, tuple, np.ndarray)):
        return [rounded(value, digits) for value in values]
    return float(f"{values:.{digits}g}") if isinstance(values, (float, np.floating)) else values
