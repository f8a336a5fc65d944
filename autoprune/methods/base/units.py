"""The filters behind the units, as tensor operations on the whole network, for methods that train with a penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph, Group, Ints
from autoprune.engine.keep import Keep
from autoprune.errors import InputError
from autoprune.methods.base.method import Scores
from autoprune.schema import choices

#: Metadata of the hyper-parameter `scope`.
SCOPES = choices("coupled", "faithful")


def in_scope(model: nn.Module, graph: ChannelGraph, scope: str) -> tuple[Group, ...]:
    """The prunable groups that a method works on.

    Args:
        scope: `coupled` = all. `faithful` = the groups that papers prune which list layers by hand: channels that one
            layer alone makes, so that no residual stream is touched; depthwise layers follow the layer before them.

    Raises:
        InputError: nothing is in the scope.
    """
    makers = graph.per_unit(0)
    depthwise = {f"{path}.weight" for path, module in model.named_modules() if is_depthwise(module)}
    for slot in graph.slots:
        if slot.role == "out" and slot.tensor not in depthwise:
            makers[np.unique(slot.units)] += 1
    found = tuple(g for g in graph.prunable if scope == "coupled" or makers[g.units[0]] == 1)
    if not found:
        raise InputError("no prunable channels are made by one layer alone", where="method.scope", allowed="coupled")
    return found


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution of which each filter sees one channel of several."""
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels


def units_of(graph: ChannelGraph, groups: Iterable[Group]) -> Ints:
    """A table of units in which those of `groups` have their own number, and all others, as no unit, `unit_count`."""
    return graph.per_unit(graph.unit_count, ((group.units, group.units) for group in groups))


@dataclass(frozen=True, eq=False)
class Units:
    """The units of some groups and where their entries lie in the live model.

    Vectors over units have shape (units + 1,): the last entry stands for everything that is no unit of these groups.

    Fields:
        groups: the groups, in the order of the graph.
        slots: per tensor name of the model: dimension, and the unit of every index along it, int64 on its device.
        count: units of the graph.
    """

    groups: tuple[Group, ...]
    slots: tuple[tuple[str, int, Tensor], ...]
    count: int

    @classmethod
    def of(
        cls, model: nn.Module, graph: ChannelGraph, groups: Iterable[Group], roles: tuple[str, ...] = ("out",)
    ) -> Units:
        """The units of `groups`, in the parameters in which they play one of `roles`."""
        groups, parameters = tuple(groups), dict(model.named_parameters())
        own = units_of(graph, groups)
        slots = tuple(
            (slot.tensor, slot.dim, torch.from_numpy(own[slot.units]).to(parameters[slot.tensor].device))
            for slot in graph.slots
            if slot.role in roles and slot.tensor in parameters and (own[slot.units] < graph.unit_count).any()
        )
        return cls(groups, slots, graph.unit_count)

    def within(self, tensors: Iterable[str]) -> Units:
        """The same units in these tensors alone."""
        names = set(tensors)
        return Units(self.groups, tuple(slot for slot in self.slots if slot[0] in names), self.count)

    @cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.slots[0][2].device if self.slots else torch.device("cpu")

    @cached_property
    def members(self) -> tuple[Tensor, ...]:
        """The units of every group, int64."""
        return tuple(torch.from_numpy(group.units).to(self.device) for group in self.groups)

    @cached_property
    def table(self) -> Tensor:
        """`members` as one matrix (groups, units of the largest); the rest of a shorter row holds `count`."""
        return nn.utils.rnn.pad_sequence(list(self.members), batch_first=True, padding_value=self.count)

    def full(self, value: float) -> Tensor:
        """A vector over units, float32."""
        return torch.full((self.count + 1,), float(value), device=self.device)

    def outside(self, keep: Keep) -> Tensor:
        """bool vector over units: True for the units of these groups that `keep` leaves out."""
        kept, gone = dict(keep.kept), self.full(0) > 0
        for group, members in zip(self.groups, self.members, strict=True):
            if group.id in kept:
                gone[members] = True
                gone[members[list(kept[group.id])]] = False
        return gone

    def without(self, gone: Tensor) -> Keep:
        """The inverse of `outside`."""
        lost = {
            group.id: torch.nonzero(~gone[members]).flatten().tolist()
            for group, members in zip(self.groups, self.members, strict=True)
            if gone[members].any()
        }
        return Keep.of(lost)

    def lost(self, keep: Keep) -> Tensor:
        """How many units each group loses, as a vector over its units, int64."""
        return self.spread(self.outside(keep)[self.table].sum(1))

    def spread(self, per_group: Tensor) -> Tensor:
        """A number per group as a vector over units; 0 in the last entry."""
        values = torch.zeros(self.count + 1, dtype=per_group.dtype, device=self.device)
        values[self.table] = per_group[:, None].expand(self.table.shape)
        values[-1] = 0
        return values

    def positions(self, values: Tensor) -> Tensor:
        """Place of each unit in its group when sorted by value, 0 = smallest, equal ones as they come; int64."""
        values = values.clone()
        values[-1] = torch.inf  # what fills up the table comes last
        order = values[self.table].argsort(dim=1, stable=True)
        ranks = torch.arange(order.shape[1], device=self.device).expand(order.shape)
        places = torch.zeros(self.count + 1, dtype=torch.int64, device=self.device)
        places[self.table] = torch.zeros_like(order).scatter_(1, order, ranks)
        return places

    def parameters(self, model: nn.Module) -> Iterator[tuple[nn.Parameter, int, Tensor]]:
        """(parameter, dimension, unit of every index along it)."""
        for name, dim, units in self.slots:
            yield model.get_parameter(name), dim, units

    def total(self, model: nn.Module, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Per unit, the sum of `value` over what it owns; `value` maps (entries, rest) to numbers (entries,)."""
        sums = self.full(0)
        for parameter, dim, units in self.parameters(model):
            sums.index_add_(0, units, value(parameter.detach().movedim(dim, 0).reshape(len(units), -1)).float())
        sums[-1] = 0
        return sums

    def pull(self, model: nn.Module, strength: Tensor) -> None:
        """Gradient += strength of the unit * weight, the gradient of strength / 2 * ||weight||^2."""
        for parameter, dim, units in self.parameters(model):
            if parameter.grad is not None:
                parameter.grad.addcmul_(parameter.detach(), along(strength[units], parameter, dim))

    @torch.no_grad()
    def scale(self, model: nn.Module, factor: Tensor) -> None:
        """Weight *= factor of the unit; entries without a unit are left alone."""
        factor = factor.clone()
        factor[-1] = 1
        for parameter, dim, units in self.parameters(model):
            parameter.mul_(along(factor[units], parameter, dim))

    def scores(self, values: Tensor) -> Scores:
        """A vector over units as scores per group."""
        plain = values.double().cpu().numpy()
        return {group.id: plain[group.units] for group in self.groups}


def along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """A vector shaped so that it broadcasts along `dim` of `like`."""
    return values.view(*(-1 if d == dim else 1 for d in range(like.dim())))


def magnitude(rows: Tensor) -> Tensor:
    """Sum of absolute values, (entries, rest) -> (entries,)."""
    return rows.abs().sum(1)


def length(rows: Tensor) -> Tensor:
    """Euclidean norm, (entries, rest) -> (entries,)."""
    return torch.linalg.vector_norm(rows, dim=1)


def count(rows: Tensor) -> Tensor:
    """How many numbers there are, (entries, rest) -> (entries,)."""
    return rows.new_full((len(rows),), rows.shape[1])
