"""Preparation of a search: load everything, and refuse bad input before anything is written."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE, check_prunable, smallest
from autoprune.errors import InputError, ModelError, TargetError
from autoprune.files import written_whole
from autoprune.recipe import Allocation, Recipe
from autoprune.schema import to_plain
from autoprune.search.placement import Placement
from autoprune.search.proposing import first_recipes
from autoprune.search.running.halving import pausing_shares
from autoprune.search.running.task_evaluator import OpenLoaded, OpenTask
from autoprune.study.config import Resources, StudyConfig
from autoprune.study.constraints import Constraints
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.outcome import DENSE
from autoprune.study.space import Space
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime, choose_runtime
from autoprune.trial.cache import FolderStore
from autoprune.trial.shared import SharedState

#: Packages whose versions are written into `study.yaml`.
VERSIONS = ("autoprune", "torch", "ray", "optuna", "numpy")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study that may run: everything was loaded once and fits together.

    Fields:
        space: the study's space, bound to the model.
        shared: of this process.
        open_evaluator: builds an evaluator where the trials run.
    """

    config: StudyConfig
    space: Space
    shared: SharedState
    open_evaluator: OpenTask | OpenLoaded


def prepare(config: StudyConfig, folder: StudyFolder, placement: Placement) -> Prepared:
    """Load the task, trace the model, and see that the space's lowest target and the constraints can be met.

    Args:
        config: of the study.
        folder: of the study, which need not be there yet.
        placement: where the trials will run.

    Raises:
        InputError: data, checkpoint, model, target, constraints or the sampler's first recipes are wrong.
        StudyError: nothing of the model can be pruned.
    """
    recipe = config.space.corners()[0]
    if config.cascade.keep < 1:
        pausing_shares(config.space)
    task = load_task(config.task)
    runtime = _measure_runtime(task.model(), tuple(task.example().shape), recipe, config.resources)
    shared = SharedState.of(task, runtime, FolderStore(folder.shared) if config.share else None, share=config.share)
    check_prunable(shared.graph)
    space = config.space.bind([(group.id, group.stage) for group in shared.graph.prunable])
    check_targets(space, shared)
    check_constraints(config.constraints, space, shared)
    first_recipes.check_first(space, config.sampler)
    opener = _open_here(config, shared) if placement.in_process else _open_in_workers(config, runtime, recipe)
    return Prepared(config, space, shared, opener)


def _open_here(config: StudyConfig, shared: SharedState) -> OpenLoaded:
    cpus = config.resources.cpus_per_trial
    return OpenLoaded(shared=shared, cpus=cpus, constraints=config.constraints, latency=config.timed)


def _open_in_workers(config: StudyConfig, runtime: Runtime, recipe: Recipe) -> OpenTask:
    """Workers train as was measured here, unless trials have a GPU and this machine has none."""
    measured_here = runtime.device != "cpu" or not config.resources.gpus_per_trial
    return OpenTask(
        task=to_plain(config.task),
        runtime=runtime if measured_here else None,
        cpus=config.resources.cpus_per_trial,
        batch_size=recipe.training.batch_size,
        share=config.share,
        constraints=config.constraints,
        latency=config.timed,
    )


def _measure_runtime(model: torch.nn.Module, shape: tuple[int, ...], recipe: Recipe, resources: Resources) -> Runtime:
    """How trials compute fastest, measured here."""
    device = "cuda" if resources.gpus_per_trial and torch.cuda.is_available() else "cpu"
    return choose_runtime(model, shape, recipe.training.batch_size, device, resources.cpus_per_trial)


def check_targets(space: Space, shared: SharedState) -> None:
    """Raise `TargetError` if the lowest target of the space is out of reach for each of its allocations."""
    corners = [recipe for recipe in space.corners() if recipe.method.name != DENSE]
    for target in dict.fromkeys(recipe.target for recipe in corners):
        refusal = None
        for recipe in corners:
            try:
                shared.check_reachable(target, recipe.allocation)
                break
            except TargetError as error:
                refusal = error
        else:
            if refusal is not None:
                raise TargetError(refusal.what, where="space.target", allowed=refusal.allowed)


def check_constraints(constraints: Constraints, space: Space, shared: SharedState) -> None:
    """Raise `InputError` if no recipe of the space can keep a constraint, as far as that is known before anything runs.

    How long a model takes is not: a latency that nothing keeps shows in the trials.
    """
    corners = [recipe for recipe in space.corners() if recipe.method.name != DENSE]
    for name, limit in constraints.limits().items():
        where = f"constraints.{name}"
        asked = [recipe.target.ratios() for recipe in corners]
        if all(len(ratios) == 1 and ratios.get(name, 0.0) - TOLERANCE > limit for ratios in asked):
            lowest = min(ratios[name] for ratios in asked)
            raise InputError(f"{limit:g} is below every target", where=where, allowed=f"{lowest:g}, or lower targets")
        least = min(_smallest_ratios(recipe.allocation, shared).get(name, 0.0) for recipe in corners)
        if least > limit:
            what = f"{limit:g} cannot be reached"
            raise InputError(what, where=where, allowed=f"{least:.4g}, the smallest ratio, or more")


def _smallest_ratios(how: Allocation, shared: SharedState) -> dict[str, float]:
    """The lowest cost ratios that an allocation can reach, in one way to cut groups or another."""
    ratios = [smallest(way.graph, how).ratios(shared.dense_cost) for way in shared.traced_models(how.grouped)]
    return {name: min(found[name] for found in ratios) for name in ratios[0]}


def check_new_folder(path: Path) -> None:
    """Raise `InputError` unless a study can be written there: the folder is new or empty, and its parent lets us."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            "exists already", where=str(path), allowed="a new or empty folder, or `autoprune resume` for a study"
        )
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("cannot be written", where=str(path), allowed="a folder that you may write to")


def create_folder(folder: StudyFolder, prepared: Prepared) -> None:
    """Make the study folder with its `study.yaml`; the only file a search starts with."""
    facts = {
        **prepared.config.to_plain(),
        "dense": _describe_dense_model(prepared.shared),
        "groups": _describe_groups(prepared.shared),
        "runtime": to_plain(prepared.shared.runtime),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }
    text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with written_whole(folder.config) as beside:
            beside.write_text(text, encoding="utf-8")
        folder.models.mkdir()
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(folder.path)) from None


def stored_config(study: Study) -> StudyConfig:
    """The configuration of a study that began earlier."""
    known = {key: item for key, item in study.config.items() if key in StudyConfig.__dataclass_fields__}
    return StudyConfig.from_plain(known, str(study.folder.config), check_method=methods.build)


def check_same_model(study: Study, prepared: Prepared) -> None:
    """Raise `ModelError` if the model's groups are not those the study began with."""
    if _describe_groups(prepared.shared) != study.config.get("groups"):
        raise ModelError("the model has other channel groups than when the study began", where=str(study.folder.config))


def _describe_dense_model(shared: SharedState) -> dict[str, Any]:
    cost: Mapping[str, Any] = to_plain(shared.dense_cost)
    return {"accuracy": shared.dense_accuracy(), **{name: int(value) for name, value in cost.items()}}


def _describe_groups(shared: SharedState) -> list[dict[str, Any]]:
    return [
        {"id": group.id, "size": group.size, "stage": group.stage, "frozen": group.frozen}
        for group in shared.graph.groups
    ]
