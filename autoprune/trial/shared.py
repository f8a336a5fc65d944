"""What all trials of a study share in one process."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autoprune import methods
from autoprune.engine.allocation.allocate import check_target
from autoprune.engine.allocation.features import as_ratios, needs_rises
from autoprune.engine.cost import Cost, cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.errors import TargetError
from autoprune.methods import Context, Method
from autoprune.recipe import Allocation, Recipe, Target, stable_hash
from autoprune.tasks import Task
from autoprune.training.distillation import Teacher
from autoprune.training.evaluate import evaluate
from autoprune.training.latency import Timer
from autoprune.training.runtime import Runtime, choose_runtime
from autoprune.training.seeds import random_stream
from autoprune.trial.cache import Store
from autoprune.trial.sensitivity import loss_rises

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
        if needs_rises(how):
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
