"""A recipe in words that need no manual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprune.analysis.report import facts
from autoprune.recipe import Allocation, MethodChoice, Recipe, Training
from autoprune.study.outcome import DENSE, RANDOM

_UNSAID: Mapping[str, Any] = vars(Training())


def recipe_sentence(recipe: Recipe) -> str:
    """What the recipe does from start to end, in one or two sentences."""
    if recipe.method.name == DENSE:
        return f"The dense model, not pruned. {_trained(recipe.training)}"
    return f"{_start(recipe)}, {_cut(recipe)} {_trained(recipe.training)}"


def _start(recipe: Recipe) -> str:
    starts = {"trained": "From the dense model", "scratch": "From fresh weights"}
    return starts.get(recipe.weights, f"From the model of trial {recipe.parent}")


def _cut(recipe: Recipe) -> str:
    ratios = [f"{100 * ratio:.3g} % of the {facts.COST_NAMES[name]}" for name, ratio in recipe.target.ratios().items()]
    down = f" down to {' and '.join(ratios)}" if ratios else ""
    chosen = (
        "channels drawn at random" if recipe.method.name == RANDOM else f"channels chosen by {_named(recipe.method)}"
    )
    return f"{chosen} are removed{down}, {_spread(recipe.allocation)}."


def _named(method: MethodChoice) -> str:
    given = ", ".join(f"{name} {_number(value)}" for name, value in method.params.items())
    return f"{method.name} ({given})" if given else method.name


_PER = {"flops": "the FLOPs saved", "latency": "the time saved", "given": "given prices"}


def _spread(allocation: Allocation) -> str:
    if allocation.name == "uniform":
        return "the same share of every layer"
    if allocation.name == "global":
        per = "" if allocation.per == "channel" else f" and by {_PER[allocation.per]}"
        return f"in one ranking of all layers (scores divided by their {allocation.normalise}{per})"
    if allocation.name == "ratios":
        return "by a share for every part: " + ", ".join(f"{k} {_number(v)}" for k, v in allocation.ratios.items())
    names = ("depth", "flops", "stream", "sensitivity")
    given = [f"{name} {getattr(allocation, name):+.2g}" for name in names if getattr(allocation, name)]
    return f"by what layers are like ({', '.join(given) or 'all alike'})"


def _trained(training: Training) -> str:
    more = [
        f"{name.replace('_', ' ')} {_number(getattr(training, name))}"
        for name in ("ema", "distill", "label_smoothing", "warmup", "clip")
        if getattr(training, name) != _UNSAID[name]
    ]
    said = [f"batches of {training.batch_size}", f"learning rate {training.lr:.3g}", training.schedule, *more]
    return f"Trained on {training.images:,} images ({', '.join(said)})."


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
