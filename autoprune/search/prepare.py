"""Preparation of a search: load everything, and refuse bad input before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE, check_prunable, smallest
from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, Recipe
from autoprune.schema import to_plain
from autoprune.search.placement import Placement
from autoprune.search.proposing import first_recipes
from autoprune.search.proposing.feasible_space import feasible_space
from autoprune.search.running.early_stopping import pausing_shares
from autoprune.search.running.task_evaluator import Loaded, OpenLoaded, OpenTask
from autoprune.search.study_metric import with_metric
from autoprune.study.config import Resources, StudyConfig
from autoprune.study.constraints import Constraints
from autoprune.study.folder import StudyFolder
from autoprune.study.outcome import DENSE
from autoprune.study.space import Space
from autoprune.tasks import Task, load_task
from autoprune.tasks.checks import check_drawn_anew, check_task
from autoprune.timing.passes import check_runtime
from autoprune.training.fit import batch_of
from autoprune.training.runtime import Runtime, choose_runtime
from autoprune.trial.cache import FolderStore
from autoprune.trial.feasibility import Feasibility
from autoprune.trial.shared import SharedState


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study that may run: everything was loaded once and fits together.

    Fields:
        config: with the metric of its task.
        space: the study's space, bound to the model, its target narrowed to what can be met.
        shared: what all trials in this process share.
        open_evaluator: builds an evaluator where the trials run.
        feasibility: knows which recipes cannot work.
        remarks: what is to be said before it begins, in sentences: what of the space cannot work, what was measured.
    """

    config: StudyConfig
    space: Space
    shared: SharedState
    open_evaluator: OpenTask | OpenLoaded
    feasibility: Feasibility
    remarks: tuple[str, ...] = ()


def prepare(
    config: StudyConfig,
    folder: StudyFolder,
    placement: Placement,
    given: Task | None = None,
    *,
    recorded: Runtime | None = None,
) -> Prepared:
    """Load the task, trace the model, and see that the space's lowest target and the constraints can be met.

    Args:
        config: of the study.
        folder: of the study, which need not be there yet.
        placement: where the trials will run.
        given: the task, if it was given in Python; None = the one that the configuration describes.
        recorded: how the trials of a study that goes on have computed; None = it begins now. Then methods that cannot
            work are taken out of its space; the sampler of an older one has met them.

    Raises:
        InputError: data, checkpoint, model, loss, metric, target, constraints or the sampler's first recipes are wrong.
        ModelError: nothing of the model can be pruned.
    """
    recipe = config.space.corners()[0]
    if config.cascade.keep < 1:
        pausing_shares(config.space)
    task = load_task(config.task) if given is None else _same_task(given, config)
    config = with_metric(config, task.metric_spec)
    check_runtime(config.latency, "cuda" if config.resources.gpus else "cpu")
    model = task.model()
    check_asked(task, model, config)
    runtime = _measure_runtime(task, model, recipe, config.resources, recorded)
    store = FolderStore(folder.shared) if config.share else None
    shared = SharedState.of(task, runtime, store, model=model, share=config.share)
    check_prunable(shared.graph)
    space = config.space.bind([(group.id, group.stage) for group in shared.graph.prunable])
    for corner in space.corners():
        check_target_given(corner, "space.target")
    feasibility = Feasibility(shared)
    feasible = feasible_space(space, feasibility)
    unable = feasible.unable if recorded is None else ()
    config, space = replace(config, space=config.space.without_methods(unable)), feasible.space.without_methods(unable)
    check_constraints(config.constraints, space, shared)
    first_recipes.check_first(space, config.sampler)
    opener = _open_here(config, shared) if placement.in_process else _open_in_workers(shared, given, config, recipe)
    return Prepared(config, space, shared, opener, feasibility, feasible.remarks)


def _open_here(config: StudyConfig, shared: SharedState) -> OpenLoaded:
    cpus = config.resources.cpus_per_process
    return OpenLoaded(shared=shared, cpus=cpus, constraints=config.constraints, latency=config.timed)


def _open_in_workers(shared: SharedState, given: Task | None, config: StudyConfig, recipe: Recipe) -> OpenTask:
    """Workers train as was measured here, unless trials have a GPU and this machine has none.

    They get the weights that were loaded here: nodes without a file system in common would train dense models of their
    own. They get the task too if its data lie in memory or it was given in Python; else they read what it describes.
    """
    measured_here = shared.runtime.device != "cpu" or not config.resources.gpus
    task = shared.task if given is not None or shared.task.in_memory else to_plain(config.task)
    return OpenTask(
        loaded=Loaded(task, shared.model.state_dict()),
        runtime=shared.runtime if measured_here else None,
        cpus=config.resources.cpus_per_process,
        batch_size=_batch_of_process(recipe, config.resources),
        memory=config.resources.memory_per_process,
        gpus=config.resources.gpus_per_process,
        mps=config.resources.mps,
        share=config.share,
        constraints=config.constraints,
        latency=config.timed,
    )


def _measure_runtime(
    task: Task, model: torch.nn.Module, recipe: Recipe, resources: Resources, recorded: Runtime | None
) -> Runtime:
    """How trials compute fastest, measured here; as the study's earlier trials did, unless that is far slower here.

    Else what is nearly as fast may win, and then the study's record no longer says how each trial computed.
    """
    device = "cuda" if resources.gpus and torch.cuda.is_available() else "cpu"
    batch = _batch_of_process(recipe, resources)
    return choose_runtime(model, task, batch, device, resources.cpus_per_process, known=recorded)


def _batch_of_process(recipe: Recipe, resources: Resources) -> int:
    return max(1, recipe.training.batch_size // resources.processes)


def _same_task(given: Task, config: StudyConfig) -> Task:
    """The task, if the study's configuration describes it."""
    if to_plain(given.spec) != to_plain(config.task):
        what = f"the study was begun with another task: {dict(config.task)!r}"
        raise InputError(what, where="task", allowed="the same loss and metric")
    return given


def check_asked(task: Task, model: torch.nn.Module, config: StudyConfig) -> None:
    """Try the task on a few images, with what the space's recipes ask of it; see `check_recipes`.

    Args:
        model: the task's dense model.
    """
    check_recipes(task, model, config.space.corners())
    if config.finalists.share is not None and task.test is None:
        raise InputError("finalists are read on a test split", where="finalists", allowed="a task with `test`")


def check_recipes(task: Task, model: torch.nn.Module, corners: Sequence[Recipe]) -> None:
    """Try the task on a few images, with what recipes ask of it; see `check_task`.

    Args:
        model: the task's dense model.
    """
    asked = [recipe.training for recipe in corners]
    most = {name: max(getattr(training, name) for training in asked) for name in ("distill", "label_smoothing")}
    check_task(task, model, replace(asked[0], **most))
    for recipe in corners:
        batch_of(recipe.training, len(task.train))
        check_stage(recipe)
    if any(recipe.weights == "scratch" for recipe in corners):
        check_drawn_anew(task, model)


def check_stage(recipe: Recipe) -> None:
    """Raise `InputError` if the recipe's method cannot train its sparsify stage as the recipe says."""
    method = methods.build(recipe.method)
    if any(method.stage_shares):
        method.stage_training(recipe.training)


def check_target_given(recipe: Recipe, where: str) -> None:
    """Raise `TargetError` if a recipe says how to prune, but not how much: nothing would go."""
    if recipe.method.name != DENSE and not recipe.target.ratios():
        allowed = f"flops or params, the ratios to keep, in (0, 1]; or the method {DENSE}"
        raise TargetError(
            f"{recipe.method.name} has no target, so that nothing would be pruned", where=where, allowed=allowed
        )


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


def _smallest_ratios(allocation: Allocation, shared: SharedState) -> dict[str, float]:
    """The lowest cost ratios that an allocation can reach, with one grouping mode or another."""
    traced = shared.traced_models(allocation.grouped)
    ratios = [smallest(model.graph, allocation).ratios(shared.dense_cost) for model in traced]
    return {name: min(found[name] for found in ratios) for name in ratios[0]}
