"""The nodes that random networks are made of: one kind for every way in which channels are coupled, and how to draw it.

The modules read sizes off the tensors they get, as good code does, but for the kinds that are there to be hard-coded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from torch import Tensor, nn

Shape = tuple[int, int, int]
Options = st.SearchStrategy[list[dict[str, Any]]]
WIDEST, MOST_PIXELS = 64, 81


@dataclass(frozen=True)
class Kind:
    """How to draw the options of a node on a source of some shape (None: does not apply) and how to build its module.

    Fields:
        build: (source shape, **options) -> module that takes the sources.
        options: source shape -> strategy of the options of one node, or of several on the same source (parts).
        partners: which further sources a node takes: `none`, `same` shape or same `pixels`.
        free: prunes whatever meets it, if sources are free: nothing is frozen in a network of such nodes.
    """

    build: Callable[..., nn.Module]
    options: Callable[[Shape], Options | None]
    partners: str
    free: bool


KINDS: dict[str, Kind] = {}


def kind(
    name: str, options: Callable[[Shape], Options | None], *, partners: str = "none", free: bool = True
) -> Callable[[Any], Any]:
    """Decorator: the class or function that builds nodes of this kind."""

    def add(build: Any) -> Any:
        KINDS[name] = Kind(build, options, partners, free)
        return build

    return add


# ---- options ---------------------------------------------------------------------------------------------------------

WIDTHS = (7, 14, 15, 12, 10, 11, 13, 5, 21)
OFFSETS = (3, 5, 7)
WINDOWS = ((1, 1, 0, 1), (3, 1, 1, 1), (3, 1, 0, 1), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 2, 2), (3, 1, 0, 2))


def one(**options: Any) -> Options:
    """Options of a single node; plain values are constants."""
    drawn = {name: v if isinstance(v, st.SearchStrategy) else st.just(v) for name, v in options.items()}
    return st.fixed_dictionaries(drawn).map(lambda values: [values])


def always(**options: Any) -> Callable[[Shape], Options]:
    return lambda _shape: one(**options)


def when(condition: Callable[[Shape], bool], **options: Any) -> Callable[[Shape], Options | None]:
    return lambda shape: one(**options) if condition(shape) else None


def windows(shape: Shape) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """(kernel, stride, padding, dilation) that fit into the image."""
    side = min(shape[1:])
    fits = [w for w in WINDOWS[1:] if side + 2 * w[2] >= (w[0] - 1) * w[3] + 1 and side // w[1] >= 2]
    return st.sampled_from([WINDOWS[0], *fits])


def divisors(channels: int, among: tuple[int, ...] = (2, 3)) -> list[int]:
    return [n for n in among if channels % n == 0 and channels > n]


def by_divisor(make: Callable[[int], Options], among: tuple[int, ...] = (2, 3)) -> Callable[[Shape], Options | None]:
    """Options that depend on a divisor of the number of channels; does not apply where there is none."""

    def options(shape: Shape) -> Options | None:
        fits = divisors(shape[0], among)
        return st.sampled_from(fits).flatmap(make) if fits else None

    return options


# ---- functions as modules --------------------------------------------------------------------------------------------


class Apply(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor], **constants: Any) -> None:
        super().__init__()
        self.function, self.constants = function, constants

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors, **self.constants)


def stateless(
    name: str, options: Callable[[Shape], Options | None], *, partners: str = "none", free: bool = True
) -> Callable[[Any], Any]:
    """Decorator: a function of tensors and options is a kind of node without weights."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        kind(name, options, partners=partners, free=free)(lambda _shape, **chosen: Apply(function, **chosen))
        return function

    return add
