"""The stages of a trial, one function each, from explicit arguments to a value; none keeps a record.

In the order of a trial: `check_constraints` before anything is trained, and `choose_start` (`start.py`); for every cut
of the method `sparsify`, `select_channels` and `remove_channels`; then `recalibrate` (`training.evaluate`) and
`fine_tune`. `run.py` calls them, times them and writes down what they give.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from autoprune.engine.allocation.allocate import TOLERANCE, check_widths
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import shrink
from autoprune.engine.surgery.low_rank import recompose, unprofitable
from autoprune.errors import AutopruneError, TargetError
from autoprune.methods import Context, Method, Note, Scores, Selection, Stage
from autoprune.recipe import Allocation, Recipe, Target, Training, stable_hash
from autoprune.study.constraints import Constraints
from autoprune.training.fit import FitLog, fit, steps_of
from autoprune.trial.remains import Remains
from autoprune.trial.shared import SharedState
from autoprune.trial.start import StartingPoint, target_of_cut


class ConstraintError(AutopruneError):
    """The pruned model exceeds what the study allows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """What a method keeps at one cut.

    Fields:
        context: what it selected from; layers that it had decomposed for nothing are single again.
        remains: what was left of the dense network before the cut, as the context's model is.
        keep: of the context's graph.
        notes: of the method.
    """

    context: Context
    remains: Remains
    keep: Keep
    notes: Mapping[str, Note]


@dataclass(frozen=True, eq=False)
class RungPlan:
    """The rungs that lie in the fine-tuning of a trial.

    Fields:
        images: training images of the whole trial.
        spent: of these, seen before the fine-tuning.
        shares: the rungs, as shares of `images`.
    """

    images: int
    spent: int
    shares: tuple[float, ...]

    @classmethod
    def of(cls, training: Training, spent: int) -> RungPlan:
        """Those between what is spent and the end; the end itself is no part of it."""
        shares = tuple(share for share in training.rungs if spent < share * training.images < training.images)
        return cls(training.images, spent, shares)

    @property
    def images_left(self) -> int:
        """Training images of the fine-tuning."""
        return max(0, self.images - self.spent)

    def within_fine_tuning(self) -> tuple[float, ...]:
        """The rungs as shares of `images_left`."""
        return tuple((share * self.images - self.spent) / self.images_left for share in self.shares)

    def share_after(self, images: int) -> float:
        """Which rung it is that is measured after so many images of the fine-tuning."""
        return min(self.shares, key=lambda share: abs(share * self.images - self.spent - images))


def check_constraints(constraints: Constraints, target: Target) -> None:
    """End a trial before anything is trained if its target says that the cut model will break a constraint.

    With two targets the cut may end far below one of them, so only the cut itself tells.

    Raises:
        ConstraintError: it will.
    """
    asked, limits = target.ratios(), constraints.limits()
    if len(asked) == 1:
        check_costs(constraints, {name: r for name, r in asked.items() if r - TOLERANCE > limits.get(name, 1.0)})


def check_costs(constraints: Constraints, costs: Mapping[str, float | None]) -> None:
    """Raise `ConstraintError` if one of the costs exceeds its limit."""
    broken = constraints.broken(costs)
    if broken:
        raise ConstraintError(broken)


def sparsify(
    context: Context,
    method: Method,
    recipe: Recipe,
    shared: SharedState,
    start: StartingPoint,
    *,
    cut: int,
    checkpoint: Path | None,
) -> Context:
    """What is scored at cut number `cut`: the model as it was, or a copy trained under its regulariser.

    Args:
        checkpoint: the training is resumed from this file.
    """
    images = stage_images(method, recipe, cut)
    if images == 0:
        return context
    model = shared.runtime.place(copy.deepcopy(context.model))
    stage = _describe_stage(context, method, recipe, shared, start, cut)
    # the model may have moved to another device, and its batches with it
    context = replace(context, model=model, batches=shared.context(model, recipe.seed).batches)
    regulariser = method.sparsify(context, stage)
    seed = recipe.seed + cut * 2**32  # another stream at every cut
    # Stages that aim at nothing are the same for all targets; those after a first cut depend on where it aimed.
    alike = not method.stage_aims and cut == 0 and recipe.weights != "front"
    key = _stage_key(method, recipe, stage, shared)
    with shared.cache.file(key, checkpoint) if alike else nullcontext(checkpoint) as file:
        fit(
            model,
            shared.task,
            stage.training,
            shared.runtime,
            images=images,
            seed=seed,
            regulariser=regulariser,
            checkpoint=file,
            keep_last=alike,
            processes=shared.processes,
        )
    return replace(context, regulariser=regulariser)


def stage_images(method: Method, recipe: Recipe, cut: int) -> int:
    """Training images of the sparsify stage before cut number `cut`."""
    return int(recipe.training.images * method.stage_shares[cut])


def select_channels(
    context: Context,
    method: Method,
    recipe: Recipe,
    shared: SharedState,
    start: StartingPoint,
    remains: Remains,
    *,
    cut: int,
) -> Selected:
    """What the method keeps. Layers that it has decomposed for nothing are single again, and it selects anew.

    A cut before the last is left to the next one where no widths come near what it aims at, or where those that do
    leave none that meet the recipe's target.

    Args:
        remains: what is left of the dense network in the context's model.
    """
    traced, split = remains.traced, set(remains.ranks)
    while True:
        scores = shared.scores(method, context, traced)
        allocation = shared.allocation(recipe.allocation, traced, context.graph)
        selection = shared.processes.agree(_select(context, method, recipe, shared, start, cut, scores, allocation))
        wasted = split & set(unprofitable(context.model, context.graph, selection.keep))
        if not wasted:
            return Selected(context=context, remains=remains, keep=selection.keep, notes=selection.notes)
        model = recompose(context.model, wasted)
        remains, split = remains.of(model), split - wasted
        context = replace(context, model=model, graph=remains.left)


def _select(
    context: Context,
    method: Method,
    recipe: Recipe,
    shared: SharedState,
    start: StartingPoint,
    cut: int,
    scores: Scores,
    allocation: Allocation,
) -> Selection:
    """What the method keeps; all, at a cut before the last that would be in the way of the recipe's target."""
    target, last = _target_of_cut(context, method, recipe, shared, start, cut), len(method.stage_shares) - 1
    if cut == last:
        return method.select(context, scores, target, allocation)
    try:
        selection = method.select(context, scores, target, allocation)
        left = replace(context, graph=shrink(context.graph, selection.keep))
        check_widths(left.graph, _target_of_cut(left, method, recipe, shared, start, last), allocation, scores)
    except TargetError:
        return Selection(Keep.all())
    return selection


def remove_channels(method: Method, selected: Selected) -> Context:
    """The smaller model and its graph."""
    context, keep = selected.context, selected.keep
    return replace(context, model=method.rebuild(context, keep), graph=shrink(context.graph, keep))


def fine_tune(
    model: nn.Module,
    recipe: Recipe,
    shared: SharedState,
    plan: RungPlan,
    *,
    on_rung: Callable[[int, float], bool],
    checkpoint: Path | None,
) -> FitLog:
    """Train the pruned model on the images that are left; it distils from the dense model if the recipe says so.

    Args:
        on_rung, checkpoint: see `fit`.
    """
    training = replace(recipe.training, rungs=plan.within_fine_tuning())
    return fit(
        model,
        shared.task,
        training,
        shared.runtime,
        images=plan.images_left,
        seed=recipe.seed,
        teacher=shared.teacher if training.distill > 0 else None,
        on_rung=on_rung,
        checkpoint=checkpoint,
        processes=shared.processes,
    )


def _describe_stage(
    context: Context, method: Method, recipe: Recipe, shared: SharedState, start: StartingPoint, cut: int
) -> Stage:
    training = method.stage_training(recipe.training)
    steps = steps_of(training, stage_images(method, recipe, cut), len(shared.task.train))
    stage = Stage(Target(), Allocation(), training, steps, cut, recipe.training.weight_decay)
    if not method.stage_aims:
        return stage
    target = _target_of_cut(context, method, recipe, shared, start, cut)
    allocation = shared.allocation(recipe.allocation, start.remains.traced, context.graph)
    return replace(stage, target=target, allocation=allocation)


def _target_of_cut(
    context: Context, method: Method, recipe: Recipe, shared: SharedState, start: StartingPoint, cut: int
) -> Target:
    first = cost(start.graph, Keep.all())
    return target_of_cut(recipe.target, method, context.graph, cut, first, shared.dense_cost)


def _stage_key(method: Method, recipe: Recipe, stage: Stage, shared: SharedState) -> str:
    """Everything that the weights depend on which a first sparsify stage that aims at nothing ends with."""
    images, available = stage_images(method, recipe, 0), len(shared.task.train)
    return stable_hash(
        ["sparsified", recipe.weights, method.name, method, stage.to_dict(), images, recipe.seed, available]
    )
