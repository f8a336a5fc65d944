"""What of a space can work on its model: its targets begin where one can be met, and what cannot work is said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, MethodChoice, Recipe
from autoprune.search.proposing.first_recipes import Middle, Params, target_parameters
from autoprune.study.outcome import DENSE
from autoprune.study.parameters import Branch, Choice, Float
from autoprune.study.space import Space
from autoprune.trial.feasibility import Feasibility

#: Recipes drawn at random that tell how much of a space can work.
DRAWN = 100


@dataclass(frozen=True, kw_only=True)
class FeasibleSpace:
    """What of a space can work.

    Fields:
        space: with the range of its target narrowed to what can be met.
        unable: methods that cannot work however long the trial.
        remarks: what is to be said of it, in sentences.
    """

    space: Space
    unable: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def feasible_space(space: Space, feasibility: Feasibility) -> FeasibleSpace:
    """What of a space can work.

    Args:
        space: bound to the model.

    Raises:
        TargetError: no target of the range can be met.
        InputError: no method can work, or most recipes cannot meet their targets.
    """
    refused = _refused_methods(space, feasibility)
    space, narrowed = _narrowed(space, feasibility)
    _check_reach(space, feasibility)
    remarks = (f"{error.what}: it is not drawn" for error in refused.values())
    return FeasibleSpace(
        space=space, unable=tuple(refused), remarks=(*remarks, *narrowed, *_targets_not_met(space, feasibility))
    )


def _check_reach(space: Space, feasibility: Feasibility) -> None:
    """Raise `TargetError` if a target at the low or high end of the space is out of reach for all of its recipes."""
    recipes = _pruning(space)
    for target in dict.fromkeys(recipe.target for recipe in recipes):
        refusals = [_reach_refusal(replace(recipe, target=target), feasibility) for recipe in recipes]
        if all(refusals) and isinstance(error := refusals[-1], InputError):
            raise TargetError(error.what, where="space.target", allowed=error.allowed)


def _reach_refusal(recipe: Recipe, feasibility: Feasibility) -> InputError | None:
    try:
        feasibility.check_reach(recipe)
    except InputError as error:
        return error
    return None


def _refused_methods(space: Space, feasibility: Feasibility) -> dict[str, InputError]:
    """The methods that cannot work however long the trial, and why; raises `InputError` if none is left."""
    refused, able = {}, set[str]()
    for recipe in _pruning(space):
        try:
            feasibility.check_method(recipe)
            able.add(recipe.method.name)
        except InputError as error:
            refused[recipe.method.name] = error
    if refused and not able:
        error = next(iter(refused.values()))
        raise InputError(error.what, where=f"space.{error.where}", allowed=error.allowed)
    return {name: error for name, error in refused.items() if name not in able}


def _narrowed(space: Space, feasibility: Feasibility) -> tuple[Space, tuple[str, ...]]:
    """The space without the targets that no method reaches under any allocation; the remark that says so."""
    targets = {name for recipe in _pruning(space) for name in recipe.target.ratios()}
    for name, kind in target_parameters(space).items():
        ratio = name.removeprefix("target.")
        least = min((found.get(ratio, 0.0) for found in _reachable(space, feasibility)), default=0.0)
        if not isinstance(kind, Float) or len(targets) > 1 or least <= kind.low:
            continue
        low = math.ceil(least * 1e4) / 1e4
        if low >= kind.high:
            what = f"{ratio}: {kind.low:g} to {kind.high:g} cannot be reached"
            raise TargetError(what, where="space.target", allowed=f"{ratio} >= {low:.4f}")
        said = f"{name} is searched from {low:g}, not from {kind.low:g}: less cannot be reached on this model"
        return space.with_target(ratio, replace(kind, low=low)), (said,)
    return space, ()


def _targets_not_met(space: Space, feasibility: Feasibility) -> tuple[str, ...]:
    """How many recipes cannot meet their targets; raises `InputError` if most cannot."""
    refusals = [feasibility.refusal(recipe) for recipe in _drawn(space)]
    unmet = [error for error in refusals if isinstance(error, TargetError)]
    judged = len(unmet) + sum(error is None for error in refusals)
    said = f"{len(unmet)} of {judged} recipes drawn at random cannot meet their target"
    if len(unmet) > judged / 2:
        what = f"{said}, one because {unmet[0].what:.100}"
        raise InputError(what, where="space", allowed="higher targets, or smaller round_to and min_channels")
    return (f"{said}; such recipes are drawn again",) if unmet else ()


def _pruning(space: Space) -> list[Recipe]:
    return [recipe for recipe in space.corners() if recipe.method.name != DENSE]


def _reachable(space: Space, feasibility: Feasibility) -> Iterator[dict[str, float]]:
    """The smallest ratios of every method that can work with every allocation."""
    recipes = _pruning(space)
    choices: list[MethodChoice] = []
    for recipe in recipes:
        choices += [recipe.method] if recipe.method not in choices else []
    allocations: list[Allocation] = []
    for recipe in recipes:
        allocations += [recipe.allocation] if recipe.allocation not in allocations else []
    for choice, allocation in itertools.product(choices, allocations):
        try:
            yield feasibility.smallest_ratios(choice, allocation)
        except InputError:  # the method cannot work on this model, which is said
            continue


def _drawn(space: Space) -> Iterator[Recipe]:
    random = np.random.default_rng(0)
    for _ in range(DRAWN):
        plain = space.walk(Middle(_random_params(space, random)))
        if (recipe := Recipe.from_dict(plain, "space")).method.name != DENSE:
            yield recipe


def _random_params(space: Space, random: np.random.Generator) -> Params:
    """For every parameter an option or, as `Middle` wants it, a share of its range."""
    return {
        name: list(kind.options)[random.integers(len(kind.options))]
        if isinstance(kind, (Branch, Choice))
        else random.random()
        for name, kind in space.parameters().items()
    }
