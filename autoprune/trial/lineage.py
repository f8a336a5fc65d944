"""A lineage run as one: recipes that go on from each other, from the dense model to the last."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoprune.recipe import Recipe
from autoprune.study.outcome import Outcome
from autoprune.trial.pruned_model import save_pruned
from autoprune.trial.run import Report, Trial, run
from autoprune.trial.shared import SharedState


def run_lineage(
    ancestors: Sequence[Recipe],
    recipe: Recipe,
    shared: SharedState,
    report: Report | None = None,
    *,
    parent: Path | None = None,
    **options: Any,
) -> Trial:
    """Run the ancestors one after the other, then the recipe on what they left; never raises for a failing recipe.

    What is reported and measured is the recipe alone; its outcome counts the images of its ancestors. An ancestor that
    does not complete makes the recipe fail.

    Args:
        ancestors: from the dense model on; none = only the recipe runs.
        parent: the model that the first of all goes on from, if it does.
        options: of `run.run`, for the recipe.
    """
    started = options["clock"]() if ancestors and options.get("clock") else None
    with tempfile.TemporaryDirectory(prefix="autoprune-lineage-") as folder:
        images, last = 0, parent
        for number, ancestor in enumerate(ancestors):
            done = run(ancestor, shared, parent=last)
            if not done.outcome.completed or done.model is None or done.remains is None:
                return Trial(_failed_for(recipe, number, done, options))
            images, last = images + done.outcome.own_images, Path(folder) / str(number)
            save_pruned(last, done.model, done.remains, {})
        trial = run(recipe, shared, report, parent=last, **options)
        began = {} if started is None else {"started": started}
        return replace(
            trial, outcome=replace(trial.outcome, ancestor_images=images, ancestors=tuple(ancestors), **began)
        )


def _failed_for(recipe: Recipe, number: int, done: Trial, options: dict[str, Any]) -> Outcome:
    """The outcome of a recipe whose ancestor did not complete."""
    error = f"ancestor {number} of the lineage {done.outcome.status}: {done.outcome.error}"
    known = {name: options[name] for name in ("id", "control") if name in options}
    return replace(done.outcome, **known, recipe=recipe, seed=recipe.seed, status="failed", error=error, metric=None)
