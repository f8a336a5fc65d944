"""Shared trial state: what all trials of a study share in one process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import check_target
from autoprune.engine.allocation.features import as_ratios, needs_rises
from autoprune.engine.allocation.predicted_time import PredictedTime
from autoprune.engine.allocation.strategies import Uniform, allocation_of, limits_of
from autoprune.engine.cost import Cost, cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError, TargetError
from autoprune.methods import Context, Method, Scores
from autoprune.recipe import Allocation, Target, stable_hash
from autoprune.study.constraints import Latency
from autoprune.tasks import Task
from autoprune.timing.machine import machine_name
from autoprune.timing.pairs import NOT_TIMED, Timer, Timing
from autoprune.timing.passes import resolved
from autoprune.timing.random_models import fit_to_random_models
from autoprune.training.distillation import Teacher
from autoprune.training.evaluate import evaluate
from autoprune.training.loss_mode import asked_for_losses
from autoprune.training.processes import ALONE, Processes
from autoprune.training.protocols import Batch
from autoprune.training.runtime import Runtime, choose_runtime
from autoprune.training.seeds import random_stream
from autoprune.trial.cache import AgreedStore, Store, StudyCache
from autoprune.trial.sensitivity import loss_rises

SCORE_BATCH = 128
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TracedModel:
    """The dense model and its channel graph in one grouping mode.

    Fields:
        grouped: what grouped convolutions and norms lose, `offsets` or `groups`; see `trace`.
        example: the inputs of a forward pass; see `Task.example`.
    """

    model: nn.Module
    graph: ChannelGraph
    grouped: str
    example: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module, example: tuple[Any, ...], grouped: str) -> TracedModel:
        """Trace the model."""
        return cls(model, _graph_of(model, example, grouped), grouped, example)

    def graph_of(self, model: nn.Module) -> ChannelGraph:
        """The graph of another model for the same inputs, in the same mode."""
        return _graph_of(model, self.example, self.grouped)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedState:
    """What all trials of a study share in one process; made by `SharedState.of`.

    Fields:
        task: the problem; its model is loaded once.
        offsets: the dense model traced so that grouped convolutions and norms lose offsets.
        runtime: where and how to compute.
        timer: times pruned models against the dense one.
        cache: numbers and trained weights that several trials need.
        processes: with which this one runs every trial together.
    """

    task: Task
    offsets: TracedModel
    runtime: Runtime
    timer: Timer
    cache: StudyCache
    processes: Processes = ALONE

    @classmethod
    def of(
        cls,
        task: Task,
        runtime: Runtime | None = None,
        store: Store | None = None,
        *,
        model: nn.Module | None = None,
        share: bool = True,
        processes: Processes = ALONE,
    ) -> SharedState:
        """Load the task's model and trace it.

        Args:
            runtime: measured on the dense model if not given.
            model: the dense model, where it was loaded before.
            store, share: see `StudyCache`.
            processes: all of them call this.
        """
        model, example = task.model() if model is None else model, task.example()
        runtime = runtime or choose_runtime(model, task, SCORE_BATCH)
        return cls(
            task=task,
            offsets=TracedModel.of(model, example, "offsets"),
            runtime=runtime,
            timer=Timer(lambda: copy.deepcopy(model), example, runtime),
            cache=StudyCache(store and AgreedStore(store, processes), share=share),
            processes=processes,
        )

    @property
    def model(self) -> nn.Module:
        """The dense model with its trained weights."""
        return self.offsets.model

    @property
    def graph(self) -> ChannelGraph:
        """The dense model's graph in which grouped convolutions and norms lose offsets."""
        return self.offsets.graph

    @cached_property
    def whole_groups(self) -> TracedModel:
        """The dense model traced so that grouped convolutions and norms lose whole groups."""
        return TracedModel.of(self.model, self.offsets.example, "groups")

    def traced_models(self, grouped: str) -> list[TracedModel]:
        """Those among which an allocation's `grouped` chooses."""
        return [self.offsets] * (grouped != "groups") + [self.whole_groups] * (grouped != "offsets")

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
        """The dense model to distil from; all trials share its cached outputs."""
        return Teacher(copy.deepcopy(self.model), **({} if self.cache.share else {"memory": 0}))

    def dense_metric(self) -> float:
        """The task's metric of the dense model as it was handed in, on the validation split."""
        return evaluate(copy.deepcopy(self.model), self.task.validation, self.task, self.exact)

    def test_value(self, model: nn.Module) -> float:
        """The task's metric of a model on the test split; raises `InputError` if the task has none."""
        if self.task.test is None:
            raise InputError("the task has no test split", where="task", allowed="a task with `test`")
        return evaluate(model, self.task.test, self.task, self.exact, self.processes)

    def timing(self, model: nn.Module, latency: Latency) -> Timing:
        """How long a pruned model takes; of several processes the first measures, and the others wait."""
        return self.processes.agree(self.timer.time(model, latency) if self.processes.leads else NOT_TIMED)

    def predicted_time(self, traced: TracedModel, allocation: Allocation, latency: Latency) -> PredictedTime:
        """What models of widths that the allocation allows take, fitted to some that are timed once per study.

        Those of other limits, on another kind of machine or timed in another way have a prediction of their own.
        """
        limits, how = limits_of(allocation), resolved(latency, self.runtime.device)
        threads = how.threads or self.runtime.threads
        key = stable_hash(["time", limits, how, threads, machine_name(self.runtime.device), traced.grouped])

        def find() -> Scores:
            if not self.processes.leads:
                return {}
            measure = partial(self.timer.roughly, latency=latency)
            return fit_to_random_models(
                traced.model, traced.graph, allocation_of(Uniform(), limits), measure
            ).to_arrays()

        found = self.cache.numbers(key, PredictedTime.ARRAYS, lambda: self.processes.agree(find()))
        return PredictedTime.of_arrays(traced.graph, found)

    def check_reachable(self, target: Target, allocation: Allocation | None = None) -> None:
        """Raise `TargetError` if no method could meet the target under this allocation."""
        chosen = allocation or Allocation()
        where_possible(lambda traced: check_target(traced.graph, target, chosen), self.traced_models(chosen.grouped))

    def context(self, model: nn.Module, seed: int, graph: ChannelGraph | None = None) -> Context:
        """What a method sees of this task.

        Args:
            graph: of the model; by default that of the dense model.
        """
        device = str(next(model.parameters()).device)
        task = self.task

        def batches(images: int) -> Iterator[Batch]:
            order = torch.randperm(len(task.train), generator=random_stream(seed, 1))[:images]
            yield from task.train.batches(order, min(SCORE_BATCH, task.images_per_pass), device=device)

        return Context(
            model=model,
            graph=self.graph if graph is None else graph,
            batches=batches,
            loss=partial(_loss_in_eval_mode, task),
            predict=task.predict,
            seed=seed,
        )

    def scores(self, method: Method, context: Context, traced: TracedModel | None = None) -> Scores:
        """The method's scores; those of the dense model are computed once per (method, hyper-parameters, seed).

        So are those of other methods that it builds on, whatever its own hyper-parameters.
        """
        traced = traced or self.offsets
        asking = replace(context, find_scores=lambda other: self.scores(other, context, traced))

        def score() -> Scores:
            with self.runtime.gradients():
                return method.score(asking)

        if context.model is not traced.model or context.graph is not traced.graph:
            return self.processes.agree(score())
        key = stable_hash(["scores", method.name, method, context.seed, traced.grouped])
        return self._find_once(key, traced, score)

    def allocation(self, allocation: Allocation, traced: TracedModel, graph: ChannelGraph) -> Allocation:
        """What a method sees of an allocation: for `features`, the weights of this graph's groups as `ratios`.

        Sensitivity is that of the trained dense model, whatever weights the recipe starts from, measured once.
        """
        rises = {}
        if needs_rises(allocation):
            key = stable_hash(["sensitivity", traced.grouped])
            found = self._find_once(key, traced, lambda: self._measure_sensitivity(traced))
            rises = {group: float(rise) for group, rise in found.items()}
        return as_ratios(graph, allocation, rises)

    def _measure_sensitivity(self, traced: TracedModel) -> Scores:
        model = self.runtime.place(copy.deepcopy(self.model))
        context = self.context(model, seed=0, graph=traced.graph)
        with self.runtime.limits():
            return {group: np.asarray(rise) for group, rise in loss_rises(context).items()}

    def _find_once(self, key: str, traced: TracedModel, find: Callable[[], Scores]) -> Scores:
        groups = [group.id for group in traced.graph.groups]
        return self.cache.numbers(key, groups, lambda: self.processes.agree(find()))


def where_possible(act: Callable[[S], T], options: Sequence[S]) -> list[T]:
    """What `act` gives for each option that can meet the target; the last option's `TargetError` if none can."""
    found, refusal = [], None
    for option in options:
        try:
            found.append(act(option))
        except TargetError as error:
            refusal = error
    if refusal is not None and not found:
        raise refusal
    return found


def _loss_in_eval_mode(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """The task's plain loss for a model in eval mode."""
    with asked_for_losses(model) if task.loss_while_training else nullcontext():
        return task.loss(model, batch).value


def _graph_of(model: nn.Module, example: tuple[Any, ...], grouped: str) -> ChannelGraph:
    return trace(model, example, grouped=grouped)
