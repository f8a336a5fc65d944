"""The settings of recipes as flat names and values, and as a few groups that trials can be compared by."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from autoprune.recipe import Recipe

#: Numbers of more different values than this are put into so many groups of equal count.
GROUPS = 5

_APART = frozenset({"name", "ratios", "prices"})

_ABSENT = "\0absent"


def settings_of(recipe: Recipe) -> dict[str, Hashable]:
    """The recipe's values by short names: `lr`, `allocation.depth`, `hinge.penalty`; without rungs and parent."""
    named: dict[str, Any] = {"method": recipe.method.name}
    for name, value in recipe.method.params.items():  # whatever a method takes; the other fields hold plain values
        named[f"{recipe.method.name}.{name}"] = value if isinstance(value, Hashable) else str(value)
    named |= {f"target.{name}": ratio for name, ratio in recipe.target.ratios().items()}
    named["allocation"] = recipe.allocation.name
    named |= {f"allocation.{name}": value for name, value in vars(recipe.allocation).items() if name not in _APART}
    named |= {f"allocation.{name}": value for name, value in recipe.allocation.ratios.items()}
    named |= {f"allocation.prices.{name}": value for name, value in recipe.allocation.prices.items()}
    named |= {name: value for name, value in vars(recipe.training).items() if name != "rungs"}
    named |= {"weights": recipe.weights, "seed": recipe.seed}
    return named


def varying(settings: Sequence[Mapping[str, Hashable]]) -> list[str]:
    """Names of settings that are not the same in all recipes, or that not all have; in the order they are met."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one.get(name, _ABSENT) for one in settings}) > 1]


def setting_text(name: str, value: object) -> str:
    """`lr 0.01235`, `decay_all yes`."""
    if isinstance(value, bool):
        return f"{name} {'yes' if value else 'no'}"
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def grouped(values: Sequence[Hashable | None]) -> list[str | None]:
    """A group for every value: the value itself, or of many different numbers a range of them; None stays None."""
    known = [value for value in values if value is not None]
    if len(set(known)) <= GROUPS or not all(_is_number(value) for value in known):
        return [None if value is None else _shown(value) for value in values]
    numbers = np.array(known, dtype=float)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, GROUPS + 1)))
    names = [f"{_shown(float(low))} to {_shown(float(high))}" for low, high in pairwise(edges)]
    places = iter(np.clip(np.searchsorted(edges, numbers, side="left") - 1, 0, len(names) - 1))
    return [None if value is None else names[next(places)] for value in values]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def by_group(groups: Iterable[str | None], values: np.ndarray) -> dict[str, np.ndarray]:
    """Group -> the values of its trials; those without a group are left out."""
    names = np.array([name or "" for name in groups], dtype=object)
    return {str(name): values[names == name] for name in dict.fromkeys(names) if name}
