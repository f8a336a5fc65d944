"""Group-Sparsity Hinge: one matrix behind every layer, whose columns are its channels and whose rows are its rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.cost import cost, cost_of_counts
from autoprune.engine.graph import ChannelGraph, Group
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.low_rank import decomposable, decompose, decomposed
from autoprune.methods.base.method import Context, Scores, Selection, Stage, sum_over_slots
from autoprune.methods.base.staged import Staged
from autoprune.methods.base.units import Units, in_scope
from autoprune.recipe import Allocation, Target, Training
from autoprune.schema import choices, within
from autoprune.training.fit import learning_rate

DIRECTIONS = choices("prune", "decompose", "either")
PENALTIES = choices("l1", "half", "l1-2", "logsum")
TINY = 1e-12
#: How often in a stage the penalty looks whether it may end.
LOOKS = 50


@dataclass(frozen=True, kw_only=True)
class Hinge(Staged):
    """Groups of a matrix A behind every layer are driven to zero: columns prune filters, rows lower the rank.

    A layer's filters are written as W' A, two layers in place of one. After every step a proximal
    operator shrinks the group norms of A, so that groups become exactly zero, while the loss is trained with the rest
    of the network at a lower rate. Then the smallest groups go, by norm: rows leave a layer of lower rank, columns a
    narrower one, which is single again if its rank does not pay. A stream that blocks add to is not touched by rows.

    The penalty ends, and the stage goes on without, once the target would be nearly met if all groups below a threshold
    went. With `allocation` `global`, `normalise: none` and `max_ratio: 0.8` the cut is the paper's: one threshold on
    the norms of all groups, searched to the target, and a fifth of each layer stays. Distillation is the recipe's
    (`training.distill`). We leave out the authors' adjustment of rates between a block's two layers and the learnable
    activation of their ResNets, and regularise every layer, not one per block. The paper's weight of the penalty, 2e-4
    at a rate of 0.1 for up to 156,000 steps, here follows from the length of the stage.

    Fields:
        strength: how many times over the penalty would use up a group of average norm by the end, if nothing
            resisted and the penalty was l1; up to 3 in the paper. On the pretrained ResNet-20 at half of the FLOPs,
            400 steps and as many after the cut, 3 gave 79.9 %, 1 gave 83.2 %, 0.3 gave 86.6 %, 0.1 gave 86.5 %.
        penalty: of the group norms n: `l1` n, `half` sqrt(n), `l1-2` sum n - sqrt(sum n^2) over a layer,
            `logsum` log(n + 1e-8).
        rest: learning rate of everything but A, relative to A's.
        direction: `prune` = columns alone, `decompose` = rows alone, `either` = both.
        directions: layer or pattern of layers -> a direction of their own; the first that fits counts.
        annealing: how many times weaker the penalty becomes at each of two points; 1 = never.
        first, second: these points, as shares of the sum of all norms at the start.
        threshold: below this share of its layer's average norm at the start a group counts as gone.
        near: how far from the target, as a share of the dense cost, the penalty ends.
        init: where A starts: `svd` = singular vectors times singular values, `identity` = I.
    """

    name: ClassVar[str] = "hinge"
    source: ClassVar[str] = "Li et al., Group Sparsity: The Hinge Between Filter Pruning and Decomposition, CVPR 2020"
    summary: ClassVar[str] = "group sparsity in a matrix behind each layer: its columns prune, its rows decompose"

    strength: float = field(default=0.3, metadata=within(0.01, 1000, log=True, search=(0.03, 3)))
    penalty: str = field(default="l1", metadata=PENALTIES)
    rest: float = field(default=0.1, metadata=within(1e-4, 1, log=True, search=(1e-2, 1)))
    direction: str = field(default="either", metadata=DIRECTIONS)
    directions: Mapping[str, str] = field(default_factory=dict, metadata=DIRECTIONS, hash=False)
    annealing: float = field(default=2.0, metadata=within(1, 100, search=(1, 4)))
    first: float = field(default=0.7, metadata=within(0, 1, search=(0.5, 0.9)))
    second: float = field(default=0.5, metadata=within(0, 1, search=(0.3, 0.5)))
    threshold: float = field(default=0.05, metadata=within(0, 1, search=(0.01, 0.2)))
    near: float = field(default=0.1, metadata=within(0, 1, search=(0.02, 0.2)))
    init: str = field(default="svd", metadata=choices("svd", "identity"))

    def prepare(self, model: nn.Module) -> nn.Module:
        """All layers decomposed that can be."""
        return decompose(model, decomposable(model), self.init)

    def stage_training(self, training: Training) -> Training:
        """No weight decay by the optimiser: the regulariser adds it, so that rates apply to it too."""
        return replace(super().stage_training(training), weight_decay=0.0)

    def sparsify(self, context: Context, stage: Stage) -> GroupSparsity:
        """The penalty on rows and columns of every A."""
        rows, columns = self._groups_by_direction(context)
        total = sum(learning_rate(stage.training, step, stage.steps) for step in range(stage.steps))
        mixes = tuple(f"{path}.mix.weight" for path in decomposed(context.model))
        groups = tuple(
            units
            for units in (
                Units.of(context.model, context.graph, rows, ("in",)).within(mixes),
                Units.of(context.model, context.graph, columns, ("out",)).within(mixes),
            )
            if units.slots
        )
        return GroupSparsity(context, groups, self, stage, weight=self.strength / max(total, TINY), mixes=mixes)

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those whose rows or columns are regularised."""
        rows, columns = self._groups_by_direction(context)
        return tuple(group.id for group in (*rows, *columns))

    def score(self, context: Context) -> Scores:
        """Norm of the unit's group: of its row of A, or of its columns and other filters."""
        rows, columns = self._groups_by_direction(context)
        squares = {
            role: sum_over_slots(context.model, context.graph, (role,), lambda part: part.square().sum(1))
            for role in ("in", "out")
        }
        return {
            **{group.id: np.sqrt(squares["in"][group.id]) for group in rows},
            **{group.id: np.sqrt(squares["out"][group.id]) for group in columns},
        }

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """By the allocation. `groups_at_zero`: share of the groups that the penalty has brought to zero."""
        norms = np.concatenate([np.zeros(0), *scores.values()])
        notes = {"groups_at_zero": float((norms <= 1e-6 * norms.max(initial=0.0)).mean())} if len(norms) else {}
        return replace(super().select(context, scores, target, allocation), notes=notes)

    def _groups_by_direction(self, context: Context) -> tuple[list[Group], list[Group]]:
        """The groups whose rows, and those whose columns, are regularised and may go."""
        inner = {f"{path}.basis": path for path in decomposed(context.model)}
        outer = [group for group in in_scope(context.model, context.graph, self.scope) if group.id not in inner]
        rows = [g for g in context.graph.prunable if g.id in inner and self._direction_of(inner[g.id]) != "prune"]
        graph = context.graph
        columns = [g for g in outer if all(self._direction_of(layer) != "decompose" for layer in makers(graph, g))]
        return rows, columns

    def _direction_of(self, layer: str) -> str:
        """The direction of a layer."""
        return next((way for key, way in self.directions.items() if fnmatchcase(layer, key)), self.direction)


def makers(graph: ChannelGraph, group: Group) -> list[str]:
    """The layers that have a group's units as filters, by the names that the dense model has for them."""
    first = int(group.units[0])
    tensors = [slot.tensor for slot in graph.slots if slot.role == "out" and first in slot.units]
    return [tensor.removesuffix(".weight").removesuffix(".mix") for tensor in tensors]


# ---- proximal operators ----------------------------------------------------------------------------------------------


def proximal(norms: Tensor, weights: Tensor, penalty: str) -> Tensor:
    """What group norms become: argmin over x >= 0 of (x - n)^2 / 2 + weight * penalty(x), 0 included; (groups,).

    For `half` it is the minimiser of (x - n)^2 + weight * sqrt(x), as in the authors' code. For `l1-2` the groups are
    those of one layer.
    """
    soft = (norms - weights).clamp_min(0)
    if penalty == "l1":
        return soft
    if penalty == "l1-2":
        length = torch.linalg.vector_norm(soft).clamp_min(TINY)
        return soft * (1 + weights / length)
    return _proximal_half(norms, weights) if penalty == "half" else _proximal_logsum(norms, weights)


def _proximal_half(norms: Tensor, weights: Tensor) -> Tensor:
    cut = 54 ** (1 / 3) / 4 * weights ** (2 / 3)
    angle = torch.arccos((weights / 8 * (norms.clamp_min(TINY) / 3) ** -1.5).clamp(-1, 1))
    return torch.where(norms > cut, norms * 2 / 3 * (1 + torch.cos(2 / 3 * (math.pi - angle))), 0.0)


def _proximal_logsum(norms: Tensor, weights: Tensor, eps: float = 1e-8) -> Tensor:
    inside = (norms - eps) ** 2 - 4 * (weights - norms * eps)
    root = ((norms - eps) + inside.clamp_min(0).sqrt()) / 2
    cost = (root - norms) ** 2 / 2 + weights * torch.log((root + eps) / eps)
    return torch.where((inside >= 0) & (root > 0) & (cost < norms**2 / 2), root, 0.0)


# ---- the penalty -----------------------------------------------------------------------------------------------------


class GroupSparsity:
    """The proximal steps of Hinge.

    Args:
        context: at the start of the stage.
        groups: units with the entries of A that they own: rows, then columns.
        method: whose hyper-parameters are used.
        stage: which has the target and the learning rate.
        weight: lambda at the start.
        mixes: names of the matrices A.
    """

    def __init__(
        self,
        context: Context,
        groups: tuple[Units, ...],
        method: Hinge,
        stage: Stage,
        *,
        weight: float,
        mixes: tuple[str, ...],
    ) -> None:
        self.groups, self.method, self.stage, self.weight, self.mixes = groups, method, stage, weight, set(mixes)
        self.graph, self.dense = context.graph, cost(context.graph, Keep.all())
        self.sides = _sides_of_layers(context.model, context.graph)
        self.balance = [self._mean_norms(units, self._group_norms(context.model, units)) for units in groups]
        self.start, self.over = self._sum_of_norms(context.model), False

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Weight decay; and a lower rate for all but A, by smaller gradients: SGD with momentum is linear in them."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach(), alpha=self.stage.weight_decay)
                if name not in self.mixes:
                    parameter.grad.mul_(self.method.rest)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Shrink rows, then columns: r = lambda_eff * mean norm of the layer's groups at the start * rate."""
        if self.over:
            return
        rate = self.weight * learning_rate(self.stage.training, step, steps) / self._annealing_so_far(model)
        for units, balance in zip(self.groups, self.balance, strict=True):
            norms = self._group_norms(model, units)
            shrunk = norms.clone()
            for members in units.members if self.method.penalty == "l1-2" else (slice(None),):
                shrunk[members] = proximal(norms[members], rate * balance[members], self.method.penalty)
            units.scale(model, torch.where(norms > 0, shrunk / norms.clamp_min(TINY), 0.0))
        if (step + 1) % max(1, steps // LOOKS) == 0:
            self.over = self._nearly_meets_target(model)

    def _nearly_meets_target(self, model: nn.Module) -> bool:
        """Whether the target would be nearly met without the groups below the threshold; at least a unit stays.

        A layer whose rank r does not pay costs what one of rank K n / (K + n) does: it becomes single again.
        """
        counts = self.graph.sizes.astype(np.float64)
        for units, balance in zip(self.groups, self.balance, strict=True):
            alive = (self._group_norms(model, units) > self.method.threshold * balance).cpu().numpy()
            for group in units.groups:
                counts[self.graph.column[group.id]] = max(1, alive[group.units].sum())
        for inner, (inputs, filters) in self.sides.items():
            wide, high = _width_left(counts, self.graph, inputs), _width_left(counts, self.graph, filters)
            counts[inner] = min(counts[inner], wide * high / (wide + high))
        ratios = cost_of_counts(self.graph, counts).ratios(self.dense)
        return all(ratios[name] <= limit + self.method.near for name, limit in self.stage.target.ratios().items())

    def _annealing_so_far(self, model: nn.Module) -> float:
        """By how much the penalty is weaker than at the start: the norms have come down past the annealing points."""
        left = self._sum_of_norms(model) / max(self.start, TINY)
        return self.method.annealing ** ((left <= self.method.first) + (left <= self.method.second))

    def _sum_of_norms(self, model: nn.Module) -> float:
        return float(sum(self._group_norms(model, units).sum() for units in self.groups))

    def _group_norms(self, model: nn.Module, units: Units) -> Tensor:
        return units.total(model, lambda part: part.square().sum(1)).sqrt()

    def _mean_norms(self, units: Units, norms: Tensor) -> Tensor:
        """The mean norm of each unit's group, a vector over units."""
        return units.spread(torch.stack([norms[members].mean() for members in units.members]))

    def state_dict(self) -> dict[str, Any]:
        """What was read off the model at the start, and whether the penalty has ended."""
        return {"balance": [values.tolist() for values in self.balance], "start": self.start, "over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.start, self.over = state["start"], state["over"]
        self.balance = [
            torch.tensor(values, device=old.device) for values, old in zip(state["balance"], self.balance, strict=True)
        ]


#: A side of a matrix: its size in the dense model, and the column of the group that it follows, if any.
_Side = tuple[int, int | None]


def _sides_of_layers(model: nn.Module, graph: ChannelGraph) -> dict[int, tuple[_Side, _Side]]:
    """Column of each inner group -> the sides K and n of its layer's matrix, which say when its rank pays."""

    def column_along(tensor: str, dim: int) -> int | None:
        slot = graph.slot(tensor, dim)
        column = -1 if slot is None else int(graph.column_of_unit[slot.units[0]])
        return column if column >= 0 else None

    found = {}
    for path in decomposed(model):
        basis, mix = f"{path}.basis.weight", f"{path}.mix.weight"
        if f"{path}.basis" in graph.column:
            entries, filters = model.get_parameter(basis)[0].numel(), len(model.get_parameter(mix))
            found[graph.column[f"{path}.basis"]] = (entries, column_along(basis, 1)), (filters, column_along(mix, 0))
    return found


def _width_left(counts: np.ndarray, graph: ChannelGraph, side: _Side) -> float:
    """How much is left of a side: in proportion to its group."""
    size, column = side
    return size if column is None else size * counts[column] / graph.sizes[column]
