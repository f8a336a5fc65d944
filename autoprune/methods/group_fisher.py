"""Group Fisher pruning: units go one by one while training goes on, always the one whose mask matters least."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from autoprune.engine.allocation.allocate import TOLERANCE, allocate
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.cost import costs_of_counts
from autoprune.engine.graph import ChannelGraph, Floats, Group, Ints
from autoprune.engine.keep import Keep
from autoprune.errors import InputError
from autoprune.methods.base.method import Context, Note, Scores, Stage
from autoprune.methods.base.staged import ConstantRate, Decided
from autoprune.methods.base.units import Units, in_scope
from autoprune.recipe import Allocation, Target
from autoprune.schema import choices, within

#: Columns of `costs_of_counts`, by what a score is divided by; `memory` is the paper's, maps that are made.
_COLUMNS = {"flops": 0, "memory": 2}
_COSTS = ("flops", "params", "activations")


@dataclass(frozen=True, kw_only=True)
class GroupFisher(ConstantRate, Decided):
    """At even distances the unit of least s(u) / what it costs is switched off; the others train on.

    A unit has one mask on the inputs of all layers that read it, a depthwise or grouped layer among them. With all
    masks at 1, s(u) = sum over images n of (sum over readers and positions of dL_n/dm)^2, gathered since the last
    removal in the passes that train. What a unit costs is the difference that it makes at the widths of that moment,
    so `memory` counts the maps of all layers that make it.

    The paper removes a unit every 25 steps, as long as that takes. Here the stage has an end: the distance follows from
    the number of units that would have to go if every group lost the same share. Where there are fewer steps than that,
    several go at a time (the notes say how many), each at the widths that the one before has left; whatever the target
    still asks for when the stage ends goes then, by the last scores. With `round_to`, units go in blocks and are
    compared by their sums. An allocation other than `global` sets the widths at which groups stop.

    Groups that something reads which is not a convolution or linear layer called as a module, such as the queries of
    attention, have no such mask and are left whole. A normalisation over several channels still sees the masked ones
    during the stage.

    Fields:
        share: share of the training images spent so.
        spread: share of those steps over which removals are spread.
        at_once: units that go at a time at least; more of them are compared by more images. The paper has 1.
        normaliser: what a score is divided by.
        images: training images for the score without a stage.
        lr: learning rate of the stage, constant.
    """

    name: ClassVar[str] = "group_fisher"
    source: ClassVar[str] = (
        "Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, algorithm 1; lengths scaled"
    )
    summary: ClassVar[str] = "one mask per coupled channel; the one of least squared gradient per memory goes, again"

    spread: float = field(default=0.8, metadata=within(0.05, 1, search=(0.4, 1)))
    at_once: int = field(default=1, metadata=within(1, 1000, log=True, search=(1, 8)))
    normaliser: str = field(default="memory", metadata=choices("memory", "flops", "none"))
    images: int = field(default=1024, metadata=within(1, 10**9, log=True, search=(128, 8192)))
    lr: float = field(default=0.005, metadata=within(1e-5, 1, log=True, search=(5e-4, 0.05)))

    def sparsify(self, context: Context, stage: Stage) -> Removal:
        """The removals; how far apart they are is decided now."""
        groups, readers = read_groups(context, self.scope)
        units = Units.of(context.model, context.graph, groups, roles=("in", "out", "bias"))
        choice = Choice.of(context.graph, groups, stage.target, stage.how, self.normaliser)
        need = choice.estimate()
        budget = max(1, math.floor(self.spread * stage.steps))
        at_once = max(self.at_once, math.ceil(need / budget), choice.coarsest)
        every = max(1, budget // max(1, math.ceil(need / at_once)))
        return Removal(units, MaskGradients(readers, context.graph.unit_count), choice, every, at_once)

    def score(self, context: Context) -> Scores:
        """s(u) / what the unit costs, mean over `images` images, all masks at 1."""
        groups, readers = read_groups(context, self.scope)
        ear, seen = MaskGradients(readers, context.graph.unit_count), 0
        total: Tensor | float = 0.0
        with ear.listening(context.model):
            for inputs, labels in context.batches(self.images):
                context.model.zero_grad(set_to_none=True)
                context.loss(context.model(inputs), labels).backward()
                total, seen = ear.take() + total, seen + ear.images
        context.model.zero_grad(set_to_none=True)
        values = torch.as_tensor(total / seen).double().cpu().numpy()
        worth = worths(context.graph, self.normaliser)
        return {group.id: values[group.units] / worth[context.graph.column[group.id]] for group in groups}


# ---- the readers of units --------------------------------------------------------------------------------------------


def read_groups(context: Context, scope: str) -> tuple[tuple[Group, ...], dict[str, Tensor]]:
    """The groups that can be masked where they are read, and the unit of every input channel of their readers.

    Raises:
        InputError: there are none.
    """
    model, graph = context.model, context.graph
    readers = _readers(model, graph)
    called = _called(context, readers)
    read, deaf = (np.zeros(graph.unit_count + 1, dtype=bool) for _ in range(2))  # the last entry answers for -1
    for name, units in readers.items():
        (read if name in called else deaf)[units] = True
    for slot in graph.slots:  # keys of attention are `in` as well: they lie where others have inputs, but along filters
        name = slot.tensor.rpartition(".")[0]
        if slot.role == "in" and not (name in called and slot.dim == _input_dim(model.get_submodule(name))):
            deaf[slot.units] = True
    fit = tuple(g for g in in_scope(model, graph, scope) if read[g.units].all() and not deaf[g.units].any())
    if not fit:
        allowed = "a model with channels that only convolutions and linear layers read"
        raise InputError("no prunable channels can be masked where they are read", where="method", allowed=allowed)
    wanted = np.full(graph.unit_count + 1, graph.unit_count)
    for group in fit:
        wanted[group.units] = group.units
    device = next(model.parameters()).device
    found = {name: wanted[units] for name, units in readers.items()}
    return fit, {
        name: torch.from_numpy(units).to(device) for name, units in found.items() if units.min() < graph.unit_count
    }


def _readers(model: nn.Module, graph: ChannelGraph) -> dict[str, Ints]:
    """Convolutions and linear layers by name, with the unit of every input channel, or -1."""
    readers = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            slots = graph.slots_by_tensor.get(f"{name}.weight", ())
            units = _inputs(layer, {(slot.role, slot.dim): slot.units for slot in slots})
            if units is not None:
                readers[name] = units
    return readers


def _input_dim(layer: nn.Module) -> int:
    """Along which dimension of its weight a layer has its inputs."""
    return 0 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 1


def _inputs(layer: nn.Module, slots: Mapping[tuple[str, int], Ints]) -> Ints | None:
    """The unit of every input channel; None if they are nobody's.

    The weight of a grouped layer has the inputs of one group for all. One that loses whole groups, a depthwise one
    included, has no slot for them: its filters belong to the units of the inputs.
    """
    channels = layer.in_channels if isinstance(layer, nn.modules.conv._ConvNd) else layer.in_features
    if (units := slots.get(("in", _input_dim(layer)))) is not None:
        return np.tile(units, channels // len(units))
    groups = getattr(layer, "groups", 1)
    if groups == 1 or ("out", 0) not in slots:
        return None
    filters = slots["out", 0].reshape(groups, -1)
    owner = np.where((filters == filters[:, :1]).all(axis=1), filters[:, 0], -1)
    return np.repeat(owner, channels // groups)


def _called(context: Context, readers: Mapping[str, Ints]) -> set[str]:
    """Those that are called as modules: some models use the weights of a layer without calling it."""
    model, called = context.model, set[str]()
    was_training = model.training

    def note(name: str, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args:  # `_tap` changes the first
            called.add(name)

    handles = [model.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in readers]
    try:
        with torch.no_grad():
            model.eval()(next(iter(context.batches(1)))[0])
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return called


class MaskGradients:
    """Hears the passes of a model and gives sum over images n of (dL_n/dm_u)^2, L the mean loss of N images.

    The masks themselves are never made: dL_n/dm = sum over positions of x dL_n/dx at every input x of a reader, which
    the backward pass has at hand. dL_n is N times the derivative of the mean loss.

    Args:
        readers: by name, the unit of every input channel, `count` for none.
        count: units of the graph.
    """

    def __init__(self, readers: Mapping[str, Tensor], count: int) -> None:
        self.readers, self.count = readers, count
        self.on, self.images = True, 0
        self.heard: list[tuple[Tensor, Tensor]] = []

    @contextlib.contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Within it passes that build a graph are heard while `on`."""
        handles = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for name, units in self.readers.items():
            layer = model.get_submodule(name)
            dim = -1 if isinstance(layer, nn.Linear) else 1
            handles.append(layer.register_forward_pre_hook(partial(self._tap, units, dim)))
        try:
            yield
        finally:
            self.heard.clear()
            for handle in handles:
                handle.remove()

    def _begin(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.images = len(next(iter((*args, *kwargs.values()))))
        self.heard.clear()

    def _tap(self, units: Tensor, dim: int, _layer: nn.Module, args: tuple[Any, ...]) -> Any:
        if not (self.on and torch.is_grad_enabled()):
            return None
        x = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        return (_Tap.apply(x, dim, lambda sums: self.heard.append((units, sums))), *args[1:])

    def take(self) -> Tensor:
        """What the last backward pass gave, a vector over units with one more entry at the end, float32."""
        assert self.heard, "the pass was not heard: it must run within `train.listening`"
        units = torch.cat([units for units, _ in self.heard])
        sums = torch.cat([self._by_image(sums).t() for _, sums in self.heard])
        self.heard.clear()
        gradients = sums.new_zeros(self.count + 1, self.images).index_add_(0, units, sums)
        gradients[-1] = 0
        return gradients.mul_(self.images).square_().sum(1)

    def _by_image(self, sums: Tensor) -> Tensor:
        """(rows, channels) -> (images, channels): a layer may see an image as several rows, one after the other."""
        return sums.float().reshape(self.images, -1, sums.shape[1]).sum(1)


class _Tap(torch.autograd.Function):
    """The identity; its backward pass hands sums over positions of x dL/dx, shape (rows, channels), to `give`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, give: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.dim, ctx.give = dim, give
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        positions = [d for d in range(1, x.dim()) if d != ctx.dim % x.dim()]
        product = x * grad
        # torch adds up bfloat16 in float32; asking for float32 sums takes as long again as the product itself
        ctx.give(product.sum(positions) if positions else product)
        return grad, None, None


# ---- the choice ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Choice:
    """Which units go next.

    Fields:
        groups: those that may lose units.
        widths: of each, the widths it may have, ascending.
        target: what the model may cost.
        how: the allocation.
        normaliser: what a score is divided by.
    """

    graph: ChannelGraph
    groups: tuple[Group, ...]
    widths: tuple[Ints, ...]
    target: Target
    how: Allocation
    normaliser: str

    @classmethod
    def of(
        cls, graph: ChannelGraph, groups: tuple[Group, ...], target: Target, how: Allocation, normaliser: str
    ) -> Choice:
        """Under an allocation: its widths and, unless it ranks globally, how far each group may go.

        Raises:
            TargetError: the target is out of reach.
        """
        scored = {group.id: np.zeros(group.size) for group in groups}
        allowed, lowest = allowed_widths(graph, how, scored), dict.fromkeys(scored, 0)
        if how.name != "global":
            lowest |= allocate(graph, scored, target, how).widths(graph)
        widths = tuple(allowed[group.id][allowed[group.id] >= lowest[group.id]] for group in groups)
        return cls(graph, groups, widths, target, how, normaliser)

    @cached_property
    def dense(self) -> Floats:
        """FLOPs, parameters and activations of the dense model."""
        return costs_of_counts(self.graph, self.graph.sizes[None])[0]

    @property
    def coarsest(self) -> int:
        """Units of the largest block."""
        return max((int(np.diff(widths).max(initial=1)) for widths in self.widths), default=1)

    def estimate(self) -> int:
        """How many units would go if every group lost the same share, or as the allocation says if it does."""
        even = self.how if self.how.name != "global" else replace(self.how, name="uniform")
        keep = allocate(self.graph, {group.id: np.zeros(group.size) for group in self.groups}, self.target, even)
        return int((self.graph.sizes - keep.counts(self.graph)).sum())

    def counts(self, alive: NDArray[np.bool_]) -> Ints:
        """Units alive per prunable group."""
        return np.array([alive[group.units].sum() for group in self.graph.prunable], dtype=np.int64)

    def excess(self, counts: Ints) -> Floats:
        """How far the worst limit is overshot by each row of `counts`, as a share of the dense cost; shape (rows,)."""
        costs = costs_of_counts(self.graph, counts)
        ratios = np.divide(costs, self.dense, out=np.ones_like(costs), where=self.dense > 0)
        over = [ratios[:, _COSTS.index(name)] - limit for name, limit in self.target.ratios().items()]
        return np.max(over, axis=0) if over else np.full(len(counts), -np.inf)

    def reached(self, alive: NDArray[np.bool_]) -> bool:
        """Whether the target is met: nothing is left to go, or nothing fits any more and it is within the tolerance."""
        excess = self.excess(self.counts(alive)[None])[0]
        return bool(excess <= 0 or (excess <= TOLERANCE and self.next(np.zeros(len(alive)), alive) is None))

    def next(self, scores: Floats, alive: NDArray[np.bool_]) -> Ints | None:
        """The block of least score / worth that does not leave the target behind by more than the tolerance.

        None if there is no such block. Ties: the group that comes first.
        """
        counts = self.counts(alive)
        columns, blocks = [], []
        for group, widths in zip(self.groups, self.widths, strict=True):
            column = self.graph.column[group.id]
            place = int(np.searchsorted(widths, counts[column]))
            if place > 0:
                left = group.units[alive[group.units]]
                columns.append(column)
                blocks.append(left[np.argsort(scores[left], kind="stable")][: counts[column] - widths[place - 1]])
        if not blocks:
            return None
        after = np.repeat(counts[None], len(blocks), axis=0)
        after[np.arange(len(blocks)), columns] -= [len(block) for block in blocks]
        saved = _saved(self.graph, counts, after, self.normaliser)
        values = np.array([scores[block].sum() for block in blocks]) / saved
        values[self.excess(after) < -TOLERANCE] = np.inf
        best = int(np.argmin(values))
        return blocks[best] if values[best] < np.inf else None

    def searched(self, scores: Floats, gone: list[int]) -> Keep:
        """Widths around those reached that meet the target; what is `gone` goes first, but some may come back.

        Raises:
            TargetError: there are none.
        """
        values = np.zeros(self.graph.unit_count)
        for group, worth in zip(self.graph.prunable, worths(self.graph, self.normaliser), strict=True):
            values[group.units] = scores[group.units] / worth
        values[gone] = np.arange(len(gone)) - len(gone)
        how = replace(self.how, normalise="none")
        return allocate(self.graph, {group.id: values[group.units] for group in self.groups}, self.target, how)


class Removal:
    """The regulariser: gathers squared mask gradients, switches units off and holds them so.

    A unit is switched off by zeros in all weights that read or make it. To the readers that is a mask of 0 on their
    inputs, but nothing is multiplied in the passes, and the model computes what it will once it is cut.

    Args:
        units: with all that becomes zero.
        ear: hears the passes.
        choice: says who goes.
        every: steps between two removals.
        at_once: units that go then.
    """

    def __init__(self, units: Units, ear: MaskGradients, choice: Choice, every: int, at_once: int) -> None:
        self.units, self.ear, self.choice, self.every, self.at_once = units, ear, choice, every, at_once
        self.sums, self.at_end, self.put_back = units.full(0), 0, 0
        self._remember([])

    def listening(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within it the passes of the model are heard, until the target is met."""
        return self.ear.listening(model)

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Add up the squared mask gradients; switch units off if it is time, all that is left in the last step."""
        if not self.ear.on:
            return
        self.sums += self.ear.take()
        due, last = (step + 1) % self.every == 0, step == steps - 1
        if due or last:
            scores = _of_all_processes(self.sums).double().cpu().numpy()
            self.sums.zero_()
            self._remove(scores, self.at_once if due else 0)
            if last:
                self._finish(scores)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """What is switched off stays so: the optimiser's momentum has moved it."""
        if self.gone:
            self.units.scale(model, self.factor)

    def _remove(self, scores: Floats, most: int) -> None:
        alive, gone = self.alive, self.gone
        before = len(gone)
        while len(gone) - before < most and not self.choice.reached(alive):
            block = self.choice.next(scores, alive)
            if block is None:
                break
            gone.extend(block.tolist())
            alive[block] = False
        self._remember(gone)

    def _finish(self, scores: Floats) -> None:
        """Meet the target now; where single units are worth more than the tolerance, other widths are searched."""
        before = len(self.gone)
        self._remove(scores, self.units.count)
        if self.choice.excess(self.choice.counts(self.alive)[None])[0] > TOLERANCE:
            kept = self.choice.searched(scores, self.gone)
            outside = torch.nonzero(self.units.outside(kept)).flatten().tolist()
            self.put_back = len(set(self.gone[:before]) - set(outside))
            self._remember(sorted(outside))
        self.at_end = len(self.gone) - (before - self.put_back)

    def _remember(self, gone: list[int]) -> None:
        """Take note of who is gone, in that order."""
        self.gone, self.alive = gone, np.ones(self.units.count, dtype=bool)
        self.alive[gone] = False
        self.factor = self.units.full(1)
        self.factor[gone] = 0
        self.ear.on = not self.choice.reached(self.alive)

    def keep(self) -> Keep:
        """What is not switched off."""
        return self.units.without(self.factor == 0)

    def notes(self, model: nn.Module) -> dict[str, Note]:
        """Units per event, steps between events, units removed so, and those that went when the stage ended."""
        return {
            "units_per_event": self.at_once,
            "steps_per_event": self.every,
            "removed": len(self.gone) - self.at_end,
            "removed_at_end": self.at_end,
            "put_back": self.put_back,
        }

    def state_dict(self) -> dict[str, Any]:
        """What was gathered since the last removal, who is gone, and the counters."""
        counters = {name: getattr(self, name) for name in ("at_end", "put_back")}
        return {"sums": self.sums.tolist(), "gone": list(self.gone), **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.sums = torch.tensor(state["sums"], dtype=self.sums.dtype, device=self.sums.device)
        self.at_end, self.put_back = state["at_end"], state["put_back"]
        self._remember(list(state["gone"]))


def _of_all_processes(sums: Tensor) -> Tensor:
    """Each process hears its own images, and all must decide alike."""
    total = sums.clone()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
    return total


def worths(graph: ChannelGraph, normaliser: str) -> Floats:
    """What one unit of each prunable group costs in the dense model, shape (prunable groups,)."""
    after = graph.sizes - np.eye(len(graph.sizes), dtype=np.int64)
    return _saved(graph, graph.sizes, after, normaliser)


def _saved(graph: ChannelGraph, counts: Ints, after: Ints, normaliser: str) -> Floats:
    """What each row of `after` saves, at least 1: some units make no map, as those of an embedding."""
    if normaliser == "none":
        return np.ones(len(after))
    column = _COLUMNS[normaliser]
    now, then = costs_of_counts(graph, counts[None])[0, column], costs_of_counts(graph, after)[:, column]
    return np.maximum(now - then, 1.0)
