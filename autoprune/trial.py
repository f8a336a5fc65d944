"""One trial: prepare, sparsify, score, cut, recalibrate, fine-tune, evaluate; each timed. No Ray, no Optuna.

A trial that fails (an exception, a loss that is not finite, no memory) is an Outcome with its error, not an exception.
"""

from __future__ import annotations

import copy
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autoprune import methods, midway
from autoprune.allocate import TOLERANCE, allocate, check_target, share_kept
from autoprune.cost import Cost, cost
from autoprune.decompose import decompose, decomposed, recompose, unprofitable
from autoprune.errors import AutopruneError, TargetError
from autoprune.graph import ChannelGraph
from autoprune.keep import Keep
from autoprune.latency import Timer
from autoprune.methods import Context, Method, Stage
from autoprune.recipe import Allocation, Recipe, Target, stable_hash
from autoprune.results import BROKEN, Outcome, Rung
from autoprune.sensitivity import loss_rises
from autoprune.shape import as_ratios
from autoprune.shrink import compose, shrink
from autoprune.space import Constraints, Latency
from autoprune.store import Store
from autoprune.tasks import Task
from autoprune.trace import trace
from autoprune.train import Runtime, Teacher, choose_runtime, evaluate, fit, random_stream, recalibrate, steps_of

#: Called after every rung with the rung and the cost ratios; False ends the trial with status `stopped`.
Report = Callable[[Rung, dict[str, float]], bool]

SCORE_BATCH = 128
S = TypeVar("S")
T = TypeVar("T")


class Bench:
    """What all trials of a study share in one process: task, dense model, channel graph, costs, scores found so far.

    Args:
        task: the problem; its model is loaded once.
        runtime: where and how to compute; measured on the dense model if not given.
        store: what other processes have found already, and will want to know.
        share: False = every trial finds everything itself, to measure what sharing is worth.

    In `graph` grouped convolutions and norms lose offsets.
    """

    def __init__(
        self, task: Task, runtime: Runtime | None = None, store: Store | None = None, *, share: bool = True
    ) -> None:
        self.task, self.store, self.share = task, store, share
        self.model = task.model()
        self.grouped = "offsets"
        self.graph = self.trace(self.model)
        shape = tuple(task.example().shape)
        self.runtime = runtime or choose_runtime(self.model, shape, SCORE_BATCH)
        self.timer = Timer(lambda: copy.deepcopy(self.model), shape, self.runtime)
        self._found: dict[str, methods.Scores] = {}

    @cached_property
    def whole_groups(self) -> Bench:
        """The same bench with a graph in which grouped convolutions and norms lose whole groups."""
        other = copy.copy(self)
        other.grouped = "groups"
        other.graph = other.trace(self.model)
        other._found = {}
        return other

    def trace(self, model: nn.Module) -> ChannelGraph:
        """The graph of a model for the task's images."""
        return trace(model, self.task.example().to(next(model.parameters()).device), grouped=self.grouped)

    def ways(self, grouped: str) -> list[Bench]:
        """The benches among which an allocation's `grouped` chooses."""
        return [self] * (grouped != "groups") + [self.whole_groups] * (grouped != "offsets")

    def start(self, recipe: Recipe) -> nn.Module:
        """The dense model with its `trained` weights or, from `scratch`, with weights drawn with the recipe's seed."""
        return self.model if recipe.weights == "trained" else self.task.build(recipe.seed)

    @cached_property
    def dense_cost(self) -> Cost:
        """Cost of the unpruned model."""
        return cost(self.graph, Keep.all())

    @property
    def exact(self) -> Runtime:
        """The runtime in fp32: what is reported is what the exported files compute."""
        return replace(self.runtime, precision="fp32")

    @cached_property
    def teacher(self) -> Teacher:
        """The dense model to distil from; all trials share its answers."""
        return Teacher(copy.deepcopy(self.model), **({} if self.share else {"memory": 0}))

    def dense_accuracy(self) -> float:
        """Validation accuracy of the dense model as it was handed in."""
        return evaluate(copy.deepcopy(self.model), self.task.validation, self.task, self.exact)

    def check(self, target: Target, how: Allocation | None = None) -> None:
        """Raise `TargetError` if no method could meet the target under this allocation."""
        how = how or Allocation()
        _possible(lambda way: check_target(way.graph, target, how), self.ways(how.grouped))

    def context(self, model: nn.Module, seed: int) -> Context:
        """What a method sees of this bench."""
        device = str(next(model.parameters()).device)
        return Context(model, self.graph, lambda images: self._batches(images, seed, device), self.task.loss, seed)

    def scores(self, method: Method, context: Context) -> methods.Scores:
        """The method's scores; those of the dense model are computed once per (method, hyper-parameters, seed)."""
        if context.model is not self.model or context.graph is not self.graph:
            return method.score(context)
        key = stable_hash(["scores", method.name, method, context.seed, self.grouped])
        return self._once(key, lambda: method.score(context))

    def allocation(self, how: Allocation, graph: ChannelGraph) -> Allocation:
        """What a method sees of an allocation: for `features`, the weights of this graph's groups as `ratios`.

        Sensitivity is that of the trained dense model, whatever weights the recipe starts from, measured once.
        """
        rises = {}
        if how.name == "features" and how.sensitivity:
            found = self._once(stable_hash(["sensitivity", self.grouped]), self._loss_rises)
            rises = {group: float(rise) for group, rise in found.items()}
        return as_ratios(graph, how, rises)

    def _loss_rises(self) -> methods.Scores:
        model = self.runtime.place(copy.deepcopy(self.model))
        with self.runtime.limits():
            return {group: np.asarray(rise) for group, rise in loss_rises(self.context(model, seed=0)).items()}

    def _once(self, key: str, find: Callable[[], methods.Scores]) -> methods.Scores:
        """Numbers per group that were found before, by this process or, as the store knows, by another one."""
        if not self.share:
            return find()
        if key not in self._found:
            self._found[key] = self._stored(key) or self._find(key, find)
        return self._found[key]

    def _stored(self, key: str) -> methods.Scores | None:
        known = self.store.get(key) if self.store is not None else None
        if known is None:
            return None
        with np.load(io.BytesIO(known)) as arrays:
            return {group.id: arrays[group.id] for group in self.graph.groups if group.id in arrays}

    def _find(self, key: str, find: Callable[[], methods.Scores]) -> methods.Scores:
        found = find()
        if self.store is not None:
            content = io.BytesIO()
            np.savez(content, **{group: np.asarray(values) for group, values in found.items()})
            self.store.put(key, content.getvalue())
        return found

    def _batches(self, images: int, seed: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.task.train), generator=random_stream(seed, 1))[:images]
        yield from self.task.train.batches(order, SCORE_BATCH, device=device)


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished trial: its outcome and, if it completed, the pruned model, what was kept, and of which graph."""

    outcome: Outcome
    model: nn.Module | None = None
    keep: Keep | None = None
    graph: ChannelGraph | None = None


@dataclass
class _Progress:
    """What a running trial knows of itself; turned into an Outcome whatever happens."""

    began: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    keep: Keep | None = None
    graph: ChannelGraph | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    latency_ms: float | None = None
    notes: dict[str, methods.Note] = field(default_factory=dict)
    stopped: bool = False
    broken: str = ""
    tested: float | None = None

    def take_over(self, past: midway.Past) -> None:
        """Go on counting where an earlier process ended."""
        self.began -= past.elapsed
        self.seconds, self.rungs = dict(past.seconds), list(past.rungs)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def elapsed(self) -> float:
        return time.perf_counter() - self.began


@dataclass(frozen=True, eq=False)
class _Job:
    """What the stages of one trial share."""

    recipe: Recipe
    bench: Bench
    report: Report
    scratch: Path | None
    progress: _Progress
    started: float
    constraints: Constraints
    latency: Latency | None

    def checkpoint(self, stage: str) -> Path | None:
        """Where a stage's training is resumed from."""
        return self.scratch / f"{stage}.pt" if self.scratch else None

    def measure(self, model: nn.Module, runtime: Runtime) -> float:
        """Validation accuracy."""
        with self.progress.stage("evaluate"):
            return evaluate(model, self.bench.task.validation, self.bench.task, runtime)

    def test(self, model: nn.Module) -> None:
        """Note the accuracy on the test split: nothing is decided any more."""
        with self.progress.stage("test"):
            self.progress.tested = evaluate(model, self.bench.task.test, self.bench.task, self.bench.exact)

    def passed(self, share: float) -> bool:
        """Whether this rung was measured, and reported, by an earlier process."""
        return any(rung.share == share for rung in self.progress.rungs)

    def rung(self, share: float, images: int, accuracy: float) -> bool:
        """Note a rung and ask whether to go on."""
        progress = self.progress
        progress.rungs.append(Rung(share=share, images=images, accuracy=accuracy, seconds=progress.elapsed()))
        if self.scratch is not None:
            midway.save_past(self.scratch, self.past())
        progress.stopped = not self.report(progress.rungs[-1], progress.ratios)
        return not progress.stopped

    def past(self) -> midway.Past:
        """What the trial has behind it."""
        progress = self.progress
        return midway.Past(
            started=self.started,
            elapsed=progress.elapsed(),
            seconds=dict(progress.seconds),
            rungs=tuple(progress.rungs),
        )


def run_trial(recipe: Recipe, task: Task, report: Report | None = None) -> Outcome:
    """Run one recipe on a task and return what it gave; see `run` for trials that share work."""
    return run(recipe, Bench(task), report).outcome


def run(
    recipe: Recipe,
    bench: Bench,
    report: Report | None = None,
    *,
    id: int = 0,  # noqa: A002 - the field of Outcome has this name
    control: bool = False,
    clock: Callable[[], float] | None = None,
    scratch: Path | None = None,
    final: bool = False,
    constraints: Constraints | None = None,
    latency: Latency | None = None,
) -> Trial:
    """Run one recipe; never raises for a failing recipe.

    Args:
        recipe: what to do.
        bench: what it shares with other trials.
        report: hears of every rung and may end the trial.
        id: copied into the outcome.
        control: copied into the outcome.
        clock: seconds since the study began; default: since the trial began.
        scratch: folder for what the trial may go on from; with it, a trial that is run again, on this or another
            machine, goes on where it was interrupted or stopped. Rungs before that are not reported again.
        final: once it has ended, the model is also measured on the test split.
        constraints: what the pruned model may not exceed; if it does, the trial ends right after the cut with status
            `stopped`, and the error says by which constraint. The dense model may exceed them all.
        latency: how the pruned model is timed, right after the cut; None = not at all.
    """
    progress = _Progress()
    now = clock or progress.elapsed
    past, started = midway.load_past(scratch), now()
    if past is not None:
        progress.take_over(past)
        started = past.started
    limits = constraints or Constraints()
    job = _Job(recipe, bench, report or _go_on, scratch, progress, started, limits, latency)
    model, error = None, None
    try:
        model = _stages(job)
        if final and not progress.stopped:
            job.test(model)
        if scratch is not None:
            midway.save_past(scratch, job.past())  # once more: the stage that a rung ended is timed only now
    except _ConstraintError as broken:
        progress.broken = f"{BROKEN}{broken}"
    except Exception as failure:  # noqa: BLE001 - a failing recipe is data: the search learns from it and goes on
        error = _one_line(failure)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    outcome = replace(_outcome(recipe, progress, error), id=id, control=control, started=started, finished=now())
    return Trial(outcome, model if outcome.completed else None, progress.keep, progress.graph)


class _ConstraintError(AutopruneError):
    """The pruned model exceeds what the study allows."""


def _go_on(_rung: Rung, _ratios: dict[str, float]) -> bool:
    return True


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
        cut_now = midway.Cut(
            spent=spent,
            grouped=start.way.grouped,
            ratios=progress.ratios,
            latency_ms=progress.latency_ms,
            notes=progress.notes,
        )
        midway.save_cut(job.scratch, pruned, progress.graph, progress.keep, cut_now)
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
    found = midway.load_cut(job.scratch, lambda: bench.start(job.recipe))
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
        context, keep = _selected(job, way, method, context, cut)
        progress.graph = context.graph if progress.graph is None else progress.graph
        progress.keep = compose(progress.graph, progress.keep or Keep.all(), keep)
        progress.ratios = cost(progress.graph, progress.keep).ratios(way.dense_cost)
        progress.notes |= method.notes(context, keep)
    with progress.stage("cut"):
        return replace(context, model=method.rebuild(context, keep), graph=shrink(context.graph, keep))


def _selected(job: _Job, way: Bench, method: Method, context: Context, cut: int) -> tuple[Context, Keep]:
    """What the method keeps. Layers that it has decomposed for nothing are single again, and it selects anew."""
    split = set(decomposed(context.model)) - set(decomposed(job.bench.model))
    while True:
        scores, target = way.scores(method, context), _target(job, method, context.graph, cut)
        keep = method.select(context, scores, target, way.allocation(job.recipe.allocation, context.graph))
        wasted = split & set(unprofitable(context.model, context.graph, keep))
        if not wasted:
            return context, keep
        model = recompose(context.model, wasted)
        context, split = replace(context, model=model, graph=way.trace(model)), split - wasted


def _possible(act: Callable[[S], T], ways: Sequence[S]) -> list[T]:
    """What the act gives for each way whose widths can meet the target; the last way's `TargetError` if none can."""
    found, refusal = [], None
    for way in ways:
        try:
            found.append(act(way))
        except TargetError as error:
            refusal = error
    if refusal is not None and not found:
        raise refusal
    return found


def _sparsified(job: _Job, way: Bench, method: Method, context: Context, images: int, cut: int) -> Context:
    """The model that is scored: as it was, or a copy trained under the method's pressure."""
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
            stage = replace(stage, target=_target(job, method, context.graph, cut), how=how)
        # the model may have moved to another device, and its batches with it
        context = replace(context, model=model, batches=bench.context(model, recipe.seed).batches)
        pressure = method.sparsify(context, stage)
        seed = recipe.seed + cut * 2**32
        # Stages that aim at nothing are the same for all targets; those after a first cut depend on where it aimed.
        share = not method.stage_aims and cut == 0
        key = stable_hash(
            ["sparsified", recipe.weights, method.name, method, stage, images, seed, len(bench.task.train)]
        )
        with _resumable(job, f"sparsify-{cut}", key if share else None) as checkpoint:
            fit(
                model,
                bench.task,
                training,
                bench.runtime,
                images=images,
                seed=seed,
                pressure=pressure,
                checkpoint=checkpoint,
                keep_last=share,
            )
    return replace(context, pressure=pressure)


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


def _outcome(recipe: Recipe, progress: _Progress, error: str | None) -> Outcome:
    status = "failed" if error else "stopped" if progress.stopped or progress.broken else "completed"
    ratios: dict[str, Any] = {f"{name}_ratio": value for name, value in progress.ratios.items()}
    return Outcome(
        id=0,
        recipe=recipe,
        status=status,
        accuracy=progress.rungs[-1].accuracy if status == "completed" else None,
        rungs=tuple(progress.rungs),
        widths=progress.keep.widths(progress.graph) if progress.keep is not None and progress.graph is not None else {},
        seconds=progress.seconds,
        notes=progress.notes,
        seed=recipe.seed,
        error=error or progress.broken or None,
        latency_ms=progress.latency_ms,
        test_accuracy=progress.tested if status == "completed" else None,
        **ratios,
    )


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, AutopruneError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]
