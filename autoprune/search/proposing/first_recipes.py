"""The recipes that a search tries before its sampler takes over, in the sampler's words: parameter name -> value.

In this order: what the study was given (`Sampler.first`), the plainest ways to prune at several targets, and a spread
over methods and targets. The sampler draws parameters that a planned recipe leaves out, at random while there are
no results.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoprune.errors import InputError, StudyError, check_name
from autoprune.recipe import Recipe
from autoprune.study.config import Sampler
from autoprune.study.folder import Study
from autoprune.study.parameters import Branch, Choice, Float, Int, Nested, Scalar
from autoprune.study.space import Space

#: Parameter name -> value, in the sampler's words.
Params = Mapping[str, Any]

Parameter = Float | Int | Choice | Branch


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A plain way to prune that every search should have tried; parameters that it does not name are in the middle.

    Fields:
        method, allocation: by name; a space that does not offer both leaves this warm start out.
        shares: where in the range of the target, one recipe each.
        wanted: options of other parameters, where the space offers them.
    """

    method: str
    allocation: str
    shares: tuple[float, ...]
    wanted: Params = field(default_factory=dict)


#: Uniform L1 is what everything else is compared with, so it covers the whole range. L1 norms of different layers are
#: comparable only relative to their layer; Taylor estimates changes of the one loss, so they are compared as they are.
WARM_STARTS = (
    WarmStart(method="l1", allocation="uniform", shares=(0.15, 0.5, 0.85)),
    WarmStart(method="l1", allocation="global", shares=(0.3, 0.7), wanted={"allocation.global.normalise": "mean"}),
    WarmStart(method="taylor", allocation="global", shares=(0.3, 0.7), wanted={"allocation.global.normalise": "none"}),
)

#: Where recipes go on from the front one start is enough, as its target is the policy's: ten minutes on ResNet-20 with
#: it alone end above those with five methods (search_spaces/cifar10_resnet20.yaml).
LINEAGE_STARTS = (
    WarmStart(method="l1", allocation="global", shares=(0.5,), wanted={"allocation.global.normalise": "mean"}),
)


def first_recipes(space: Space, sampler: Sampler, seed: int, starts: Sequence[WarmStart] = WARM_STARTS) -> list[Params]:
    """The recipes before the sampler takes over: `sampler.startup` of them, or more if `first` has more."""
    plan = [dict(params) for params in sampler.first]
    if sampler.warm_start:
        plan += warm_starts(space, starts)[: max(sampler.startup - len(plan), 0)]
    return plan + spread(space, sampler.startup - len(plan), seed, plan)


def warm_starts(space: Space, starts: Sequence[WarmStart] = WARM_STARTS) -> list[Params]:
    """The starts that the space can express, in their order; no recipe twice."""
    plans: list[Params] = []
    for start in starts:
        for share in start.shares:
            named = {"method": start.method, "allocation": start.allocation}
            middle = Middle({**named, **start.wanted, **dict.fromkeys(target_parameters(space), share)})
            recipe = Recipe.from_dict(space.walk(middle), "space")
            meant = (recipe.method.name, recipe.allocation.name) == (start.method, start.allocation)
            if meant and middle.params not in plans:
                plans.append(middle.params)
    return plans


def middle_training(space: Space) -> dict[str, Any]:
    """The `training` of a space in plain data, ranges in their middle and choices at their first."""
    training = space.root.items.get("training")
    return {} if training is None else dict(Space(Nested({"training": training})).walk(Middle({}))["training"])


def spread(space: Space, count: int, seed: int, before: Sequence[Params] = ()) -> list[Params]:
    """Partial recipes that visit every method in turn and every slice of the target's range once (Latin hypercube).

    Methods that `before` has tried least come first. Random sampling alone leaves out one of six methods in a third of
    all starts of twelve (1 - (5/6)^12 = 0.89 per method).
    """
    random = np.random.default_rng([seed, 0x5F])
    tried = Counter(params.get("method") for params in before)
    methods = space.parameters().get("method")
    options = [str(name) for name in random.permutation(_options_of(methods))] if methods else []
    options.sort(key=lambda name: tried[name])
    slices = {name: random.permutation(max(count, 0)) for name in target_parameters(space)}
    starts: list[Params] = []
    for index in range(count):
        shares = {name: (order[index] + random.random()) / count for name, order in slices.items()}
        numbers = {name: number_at(kind, shares[name]) for name, kind in target_parameters(space).items()}
        starts.append({**numbers, **({"method": options[index % len(options)]} if options else {})})
    return starts


def target_parameters(space: Space) -> dict[str, Float | Int]:
    """The numeric parameters of the target; usually one, `target.flops`."""
    found = space.parameters().items()
    return {name: kind for name, kind in found if name.startswith("target.") and isinstance(kind, (Float, Int))}


def from_front(study: Study, space: Space, most: int) -> list[Params]:
    """The front of an earlier study in the words of this space, by rising FLOPs; at most `most`, spread along it.

    A recipe keeps the parameters that this space has too, with values that lie in its ranges; the sampler fills in the
    others. A recipe without such a parameter is left out. Task and model may differ: what was learnt there about
    methods and training rates is still a good guess.

    Raises:
        StudyError: the study has no front.
        InputError: none of its recipes has a parameter of this space.
    """
    where = str(study.folder.path)
    proposals = {proposal.id: proposal for proposal in study.proposals}
    members = [proposals[member.id] for member in study.front if member.id in proposals]
    if not members:
        raise StudyError("it has no front: nothing that was pruned ran to its end", where=where)
    known = space.parameters()
    found: list[Params] = []
    for member in members:
        words = {**_fixed_parameters(member.recipe), **member.params}
        params = {name: value for name, value in words.items() if name in known and contains(known[name], value)}
        if params and params not in found:
            found.append(params)
    if not found:
        raise InputError("its front has no parameter of this space", where=where, allowed=", ".join(known))
    picked = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [found[index] for index in picked]


def _fixed_parameters(recipe: Recipe) -> dict[str, Any]:
    """Method, allocation and target as parameters: an earlier study may have fixed what this space searches."""
    ratios = {f"target.{name}": ratio for name, ratio in recipe.target.ratios().items()}
    return {"method": recipe.method.name, "allocation": recipe.allocation.name, **ratios}


def check_first(space: Space, sampler: Sampler) -> None:
    """Raise `InputError` if `sampler.first` names a parameter that the bound space lacks, or a value outside of it."""
    known = space.parameters()
    for index, params in enumerate(sampler.first):
        where = f"sampler.first[{index}]"
        for name, value in params.items():
            check_name(name, known, kind="parameter", where=where)
            if not contains(known[name], value):
                allowed = _describe_values(known[name])
                raise InputError(f"{value!r} is not in the space", where=f"{where}.{name}", allowed=allowed)


def contains(kind: Parameter, value: Any) -> bool:
    """Whether a parameter may have this value."""
    if isinstance(kind, (Branch, Choice)):
        return any(type(option) is type(value) and option == value for option in _options_of(kind))
    if isinstance(value, bool) or not isinstance(value, int if isinstance(kind, Int) else (int, float)):
        return False
    on_grid = not isinstance(kind, Int) or (value - kind.low) % kind.step == 0
    return kind.low <= value <= kind.high and on_grid


def _options_of(kind: Parameter) -> list[Scalar]:
    return list(kind.options) if isinstance(kind, (Branch, Choice)) else []


def _describe_values(kind: Parameter) -> str:
    options = _options_of(kind)
    if isinstance(kind, (Branch, Choice)):
        return ", ".join(str(option) for option in options)
    return f"[{kind.low:g}, {kind.high:g}]"


class Middle:
    """Fills every parameter with what is wanted of it, else with the middle of its range or the first option.

    It stands in for a trial of the sampler, see `Space.walk`. `params` holds what was filled in.

    Args:
        wanted: by parameter: an option, or for a number where it lies in its range, as a share in [0, 1].
    """

    def __init__(self, wanted: Params) -> None:
        self.wanted = wanted
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The wanted or the middle share of the range, on a log scale if `log`."""
        return self._fill_in(name, number_at(Float(low, high, log), self.wanted.get(name, 0.5)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The same, on the grid."""
        return self._fill_in(name, number_at(Int(low, high, log, step), self.wanted.get(name, 0.5)))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """The wanted option if there is one of that name, else the first."""
        option = self.wanted.get(name)
        return self._fill_in(name, option if option in choices else choices[0])

    def _fill_in(self, name: str, value: Any) -> Any:
        self.params[name] = value
        return value


def number_at(kind: Float | Int, share: float) -> Any:
    """The number at a share in [0, 1] of the range."""
    if kind.log:
        number = math.exp(math.log(kind.low) + share * (math.log(kind.high) - math.log(kind.low)))
    else:
        number = kind.low + share * (kind.high - kind.low)
    number = min(max(number, kind.low), kind.high)
    if isinstance(kind, Int):
        return kind.low + kind.step * round((number - kind.low) / kind.step)
    return number
