"""The stages of a trial."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE, allocate, check_target, share_kept
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import compose, shrink
from autoprune.engine.surgery.low_rank import decompose, decomposed, recompose, unprofitable
from autoprune.errors import AutopruneError
from autoprune.methods import Context, Method, Selection, Stage
from autoprune.recipe import Allocation, Recipe, Target, stable_hash
from autoprune.training.evaluate import recalibrate
from autoprune.training.fit import fit, steps_of
from autoprune.trial import checkpoint as checkpoint_module
from autoprune.trial.progress import _Job
from autoprune.trial.shared import Bench, _possible


class _ConstraintError(AutopruneError):
    """The pruned model exceeds what the study allows."""


def _stages(job: _Job) -> nn.Module:
    with job.progress.stage("prepare"):
        method = methods.build(job.recipe.method)
        found = _found(job)
    pruned, spent = found or _pruned(job, method)
    _finetune(job, method, pruned, spent)
    return pruned


def _pruned(job: _Job, method: Method) -> tuple[nn.Module, int]:
    """The cut and recalibrated model, and the training images spent on the way."""
    recipe, bench, progress = job.recipe, job.bench, job.progress
    with progress.stage("prepare"):
        _check_target(job)
        start = _start(job, method)
    spent = 0
    context = start.context
    for cut, share in enumerate(method.stage_shares):
        images = int(recipe.training.images * share)
        context = _cut(job, start, method, _sparsified(job, start.way, method, context, images, cut), cut)
        spent += images
    pruned = bench.runtime.place(context.model)
    _time(job, pruned)
    if not method.is_dense:
        _check(job, {**progress.ratios, "latency_ms": progress.latency_ms})
    with progress.stage("recalibrate"):
        recalibrate(pruned, bench.task, bench.runtime, seed=recipe.seed)
    if job.scratch is not None and progress.graph is not None and progress.keep is not None:
        cut_now = checkpoint_module.Cut(
            spent=spent,
            grouped=start.way.grouped,
            ratios=progress.ratios,
            latency_ms=progress.latency_ms,
            notes=progress.notes,
        )
        checkpoint_module.save_cut(job.scratch, pruned, progress.graph, progress.keep, cut_now)
    return pruned, spent


def _time(job: _Job, pruned: nn.Module) -> None:
    """Note the latency of the cut model; its weights do not matter."""
    if job.latency is None:
        return
    with job.progress.stage("latency"):
        timing = job.bench.timer.time(pruned, job.latency.batch)
    job.progress.latency_ms = timing.ms
    job.progress.ratios = {**job.progress.ratios, "latency": timing.ratio}


def _check_target(job: _Job) -> None:
    """End a trial before anything is trained if its target says that the cut model will break a constraint.

    With two targets the cut may end far below one of them, so only the cut itself tells.
    """
    asked, limits = job.recipe.target.ratios(), job.constraints.limits()
    if len(asked) == 1:
        _check(job, {name: ratio for name, ratio in asked.items() if ratio - TOLERANCE > limits.get(name, 1.0)})


def _check(job: _Job, costs: Mapping[str, float | None]) -> None:
    broken = job.constraints.broken(costs)
    if broken:
        raise _ConstraintError(broken)


def _found(job: _Job) -> tuple[nn.Module, int] | None:
    """The pruned model that an earlier process left, and the training images spent on it."""
    bench, progress = job.bench, job.progress
    found = checkpoint_module.load_cut(job.scratch, lambda: bench.start(job.recipe))
    if found is None:
        return None
    cut, start = found.cut, bench.start(job.recipe)
    way = bench if cut.grouped == bench.grouped else bench.whole_groups
    split = [layer for layer in found.ranks if layer not in decomposed(start)]
    progress.keep, progress.graph = found.keep, way.trace(decompose(start, split)) if split else way.graph
    progress.ratios, progress.notes, progress.latency_ms = dict(cut.ratios), dict(cut.notes), cut.latency_ms
    return bench.runtime.place(found.model), cut.spent


@dataclass(frozen=True, eq=False)
class _Start:
    """Where a trial begins: the bench of one way in which groups lose channels, and what the method works on."""

    way: Bench
    context: Context


def _start(job: _Job, method: Method) -> _Start:
    """Of the ways that can meet the target, the one that can keep most of the scores of the first weights."""
    recipe = job.recipe
    starts = [_begin(way, method, recipe) for way in job.bench.ways(recipe.allocation.grouped)]
    if method.is_dense:
        return starts[0]
    last = len(method.stage_shares) - 1

    def check(start: _Start) -> _Start:
        check_target(start.context.graph, _target(job, method, start.context.graph, last), recipe.allocation)
        return start

    def share(start: _Start) -> tuple[float, _Start]:
        scores, graph = start.way.scores(method, start.context), start.context.graph
        how = start.way.allocation(recipe.allocation, graph)
        keep = allocate(graph, scores, _target(job, method, graph, last), how)
        return share_kept(graph, scores, keep), start

    possible = _possible(check, starts)
    if len(starts) == 1:
        return possible[0]
    return max(map(share, possible), key=lambda found: found[0])[1]


def _begin(way: Bench, method: Method, recipe: Recipe) -> _Start:
    context = way.context(way.start(recipe), recipe.seed)
    model = method.prepare(context.model)
    if model is not context.model:
        context = replace(context, model=model, graph=way.trace(model))
    return _Start(way, context)


def _target(job: _Job, method: Method, graph: ChannelGraph, cut: int) -> Target:
    """What the model may cost after the cut, relative to what it costs before it."""
    now = cost(graph, Keep.all()).ratios(job.bench.dense_cost)
    limits = job.recipe.target.ratios()
    return Target(**{name: min(1.0, method.left_after(ratio, cut + 1) / now[name]) for name, ratio in limits.items()})


def _cut(job: _Job, start: _Start, method: Method, context: Context, cut: int) -> Context:
    """The smaller model and its graph; what is kept of the first graph is noted."""
    progress, way = job.progress, start.way
    with progress.stage("score"):
        context, selection = _selected(job, way, method, context, cut)
        keep = selection.keep
        progress.graph = context.graph if progress.graph is None else progress.graph
        progress.keep = compose(progress.graph, progress.keep or Keep.all(), keep)
        progress.ratios = cost(progress.graph, progress.keep).ratios(way.dense_cost)
        progress.notes |= selection.notes
    with progress.stage("cut"):
        return replace(context, model=method.rebuild(context, keep), graph=shrink(context.graph, keep))


def _selected(job: _Job, way: Bench, method: Method, context: Context, cut: int) -> tuple[Context, Selection]:
    """What the method keeps. Layers that it has decomposed for nothing are single again, and it selects anew."""
    split = set(decomposed(context.model)) - set(decomposed(job.bench.model))
    while True:
        scores, target = way.scores(method, context), _target(job, method, context.graph, cut)
        selection = method.select(context, scores, target, way.allocation(job.recipe.allocation, context.graph))
        wasted = split & set(unprofitable(context.model, context.graph, selection.keep))
        if not wasted:
            return context, selection
        model = recompose(context.model, wasted)
        context, split = replace(context, model=model, graph=way.trace(model)), split - wasted


def _sparsified(job: _Job, way: Bench, method: Method, context: Context, images: int, cut: int) -> Context:
    """The model that is scored: as it was, or a copy trained under the method's regulariser."""
    bench, recipe = job.bench, job.recipe
    with job.progress.stage("sparsify"):
        if images == 0:
            return context
        model = bench.runtime.place(copy.deepcopy(context.model))
        training = method.stage_training(recipe.training)
        steps = steps_of(training, images, len(bench.task.train))
        stage = Stage(Target(), Allocation(), training, steps, cut, recipe.training.weight_decay)
        if method.stage_aims:
            how = way.allocation(recipe.allocation, context.graph)
            stage = replace(stage, target=_target(job, method, context.graph, cut), allocation=how)
        # the model may have moved to another device, and its batches with it
        context = replace(context, model=model, batches=bench.context(model, recipe.seed).batches)
        regulariser = method.sparsify(context, stage)
        seed = recipe.seed + cut * 2**32
        # Stages that aim at nothing are the same for all targets; those after a first cut depend on where it aimed.
        share = not method.stage_aims and cut == 0
        key = stable_hash(
            ["sparsified", recipe.weights, method.name, method, stage.to_dict(), images, seed, len(bench.task.train)]
        )
        with _resumable(job, f"sparsify-{cut}", key if share else None) as checkpoint:
            fit(
                model,
                bench.task,
                training,
                bench.runtime,
                images=images,
                seed=seed,
                regulariser=regulariser,
                checkpoint=checkpoint,
                keep_last=share,
            )
    return replace(context, regulariser=regulariser)


@contextmanager
def _resumable(job: _Job, stage: str, key: str | None) -> Iterator[Path | None]:
    """The file that a stage's training is resumed from; with a key it comes from the store, and goes there."""
    store = job.bench.store
    if store is None or key is None:
        yield job.checkpoint(stage)
        return
    with tempfile.TemporaryDirectory(prefix="autoprune-stage-") as folder:
        file = job.checkpoint(stage) or Path(folder) / f"{stage}.pt"
        known = store.get(key)
        if known is not None and not file.exists():
            file.write_bytes(known)
        yield file
        if known is None:
            store.put(key, file.read_bytes())


def _finetune(job: _Job, method: Method, model: nn.Module, spent: int) -> None:
    recipe, bench = job.recipe, job.bench
    whole = recipe.training
    first = 0.0 in whole.rungs and method.judged_at_cut and not job.passed(0.0)
    if first and not job.rung(0.0, spent, job.measure(model, bench.runtime)):
        return
    left = max(0, whole.images - spent)
    shares = [share for share in whole.rungs if spent < share * whole.images < whole.images]
    rungs = {(share * whole.images - spent) / left: share for share in shares}

    def on_rung(images: int, accuracy: float) -> bool:
        share = min(shares, key=lambda share: abs(share * whole.images - spent - images))
        return job.passed(share) or job.rung(share, spent + images, accuracy)

    with job.progress.stage("finetune"):
        log = fit(
            model,
            bench.task,
            replace(whole, rungs=tuple(rungs)),
            bench.runtime,
            images=left,
            seed=recipe.seed,
            teacher=bench.teacher if whole.distill > 0 else None,
            on_rung=on_rung,
            checkpoint=job.checkpoint("finetune"),
        )
    if not log.stopped:
        job.rung(1.0, spent + log.images, job.measure(model, bench.exact))
        job.progress.stopped = False  # nothing was left to stop
