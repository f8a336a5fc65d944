"""One recorded trial of a study, run again as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprune.recipe import Recipe
from autoprune.schema import read
from autoprune.search.study_yaml import check_same_model, stored_runtime
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.folder import Study
from autoprune.study.lineages import lineage, recipes_by_number
from autoprune.study.outcome import Outcome
from autoprune.tasks import Task
from autoprune.training.runtime import pick_device
from autoprune.trial.latency_prices import priced_again
from autoprune.trial.latency_target import aimed_again
from autoprune.trial.lineage import run_lineage
from autoprune.trial.shared import SharedState


def run_again(study: Study, before: Outcome, task: Task) -> Outcome:
    """What a recorded trial gives when it is run once more, from the dense weights on."""
    notes = {outcome.id: outcome.notes for outcome in study.outcomes}
    lines = lineage(before.recipe, recipes_by_number(study.proposals))
    ancestors = [_as_it_was(recipe, notes.get(number, {})) for number, recipe in lines]
    recipe = _as_it_was(before.recipe, before.notes)
    runtime = stored_runtime(study)
    pick_device(runtime.device)
    shared = SharedState.of(task, runtime)
    check_same_model(study, shared)
    # A trial that completed has kept all constraints; times differ a little, and are not to end it now.
    where = f"{study.folder.config}: constraints"
    limits = read(Constraints, study.config.get("constraints", {}), where) if before.infeasible else None
    latency = Latency(**study.config.get("latency", {})) if before.latency_ms is not None else None
    options = {"id": before.id, "control": before.control}
    return run_lineage(ancestors, recipe, shared, constraints=limits, latency=latency, **options).outcome


def _as_it_was(recipe: Recipe, notes: Mapping[str, Any]) -> Recipe:
    """The recipe with what its trial found by a clock."""
    return priced_again(aimed_again(recipe, notes), notes)
