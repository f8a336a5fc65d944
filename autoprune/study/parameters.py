"""Parameters of a search space: the nodes that its tree is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autoprune.recipe import MethodChoice

Scalar = str | int | float | bool | None

CheckMethod = Callable[[MethodChoice], object]

#: (name, where) -> the dataclass whose fields are the method's hyper-parameters; `InputError` if there is none.
FindMethod = Callable[[str, str], type[Any]]

KINDS = ("float", "int", "choice")

#: Parts of a recipe that are a name plus what goes with it; there, plain text stands for `{name: text}`.
NAMED = ("method", "allocation")

RATIOS = ("allocation", "ratios")

RANGE, RANGES = "range", "ranges"


class Suggest(Protocol):
    """Fills in the parameters, as Optuna's trials do."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high], a multiple of `step` above `low`."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`."""


@dataclass(frozen=True)
class Fixed:
    """A plain value: not searched."""

    value: Any


@dataclass(frozen=True)
class Float:
    """A number in [low, high]."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]: `low` plus a multiple of `step`."""

    low: int
    high: int
    log: bool = False
    step: int = 1


@dataclass(frozen=True)
class Choice:
    """One of a few scalars."""

    options: tuple[Scalar, ...]


@dataclass(frozen=True)
class Branch:
    """One of a few names, each with parameters of its own."""

    options: Mapping[str, Nested]


@dataclass(frozen=True)
class Each:
    """One parameter per `group` or per `stage` of the model; known once the space is bound to a graph."""

    scope: str
    item: Float | Int | Choice


@dataclass(frozen=True)
class Nested:
    """A mapping whose entries are nodes again."""

    items: Mapping[str, Node]


Node = Fixed | Float | Int | Choice | Branch | Each | Nested
