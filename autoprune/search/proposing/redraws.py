"""Redraws: what is tried in turn where a recipe cannot work, before it is handed out or counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from autoprune.errors import InputError
from autoprune.recipe import Recipe
from autoprune.search.proposing.first_recipes import Params, target_parameters
from autoprune.study.parameters import Branch
from autoprune.study.space import Space

#: Why a recipe cannot work; None if nothing is known against it.
Refuse = Callable[[Recipe], InputError | None]

#: Draws of one recipe: a planned one keeps all but its target for so many, then what it says is given up; of these
#: the sampler draws so many, as it may insist on what cannot work, then they are drawn at random.
DRAWN_AS_PLANNED, DRAWN_BY_SAMPLER, DRAWN = 5, 15, 200
#: Where in the ranges of its target the control may lie, the middle first.
SHARES = (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9, 1.0)


def refuse_nothing(_recipe: Recipe) -> InputError | None:
    """Every recipe may work."""
    return None


def draws(space: Space, planned: Params | None, settled: Params) -> Iterator[Params | None]:
    """What the sampler is told to keep to at each draw of one recipe, in turn; None = nothing.

    Args:
        planned: what the recipe should be.
        settled: what it has to be.
    """
    targets = target_parameters(space)
    if planned is not None:
        yield {**planned, **settled}
        less = {name: value for name, value in planned.items() if name not in targets}
        yield from itertools.repeat({**less, **settled}, DRAWN_AS_PLANNED - 1)
    yield from itertools.repeat(settled or None, DRAWN - (DRAWN_AS_PLANNED if planned is not None else 0))


def middles(space: Space) -> Iterator[Params]:
    """What a recipe near the middle of the space may want: `uniform` first, and the middle target."""
    allocation = space.parameters().get("allocation")
    others = [name for name in allocation.options if name != "uniform"] if isinstance(allocation, Branch) else []
    for name, share in itertools.product(("uniform", *others), SHARES):
        yield {"allocation": name, **dict.fromkeys(target_parameters(space), share)}


def nothing_drawn(refusal: InputError | None) -> InputError:
    """What ends a search of whose recipes none can work."""
    what = "" if refusal is None else f", the last one because {refusal.what:.120}"
    allowed = "higher targets, smaller round_to and min_channels, or more training images"
    return InputError(f"none of {DRAWN} recipes drawn can work{what}", where="space", allowed=allowed)
