"""A global ranking by score per time, as one by score per number of each group: the engine has no clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoprune.engine.allocation.prices import saved_per_unit
from autoprune.recipe import Recipe
from autoprune.study.constraints import Latency
from autoprune.trial.shared import SharedState

#: The note of an outcome that says what a channel of each group saves.
PRICES_NOTE = "latency_per_channel"
#: Digits of these numbers: with those of the note a trial is run again as it was.
DIGITS = 4


def has_no_prices(recipe: Recipe) -> bool:
    """Whether it ranks scores per latency, and what a channel of each group saves is yet to be found."""
    return (recipe.allocation.name, recipe.allocation.per) == ("global", "latency")


def priced(recipe: Recipe, shared: SharedState, latency: Latency | None) -> Recipe:
    """The recipe with what a channel of each group saves of the dense model's time; any other recipe as it is.

    Args:
        latency: how models are timed; None = by `Latency()`.
    """
    if not has_no_prices(recipe):
        return recipe
    traced = shared.traced_models(recipe.allocation.grouped)[0]
    prediction = shared.predicted_time(traced, recipe.allocation, latency or Latency())
    prices = saved_per_unit(traced.graph, prediction.ratios)
    return _with_prices(recipe, {group: round(price, DIGITS) for group, price in prices.items()})


def priced_again(recipe: Recipe, notes: Mapping[str, Any]) -> Recipe:
    """The recipe with the numbers that its trial found, as the outcome's notes say: times differ from run to run."""
    found = notes.get(PRICES_NOTE)
    return recipe if found is None else _with_prices(recipe, json.loads(found))


def prices_as_note(recipe: Recipe) -> str:
    """What `priced_again` reads."""
    return json.dumps(dict(recipe.allocation.prices))


def _with_prices(recipe: Recipe, prices: Mapping[str, float]) -> Recipe:
    return replace(recipe, allocation=replace(recipe.allocation, per="given", prices=prices))
