"""ChannelGraph: which channels of which tensors live and die together, and what each operation costs; no torch.

A *unit* is a set of coupled channels: entries of parameters and buffers that are pruned together or not at all. Units
have numbers; -1 stands for entries that no unit owns and that always stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoprune.errors import InputError, check_name

Ints = NDArray[np.int64]

Floats = NDArray[np.float64]


def unit_table(count: int, fill: Any, values: Iterable[tuple[Ints, ArrayLike]] = ()) -> NDArray[Any]:
    """A table that the units of a slot index, shape (count + 1,): its last row answers for -1, no unit.

    Args:
        count: how many units there are.
        fill: the value of all other rows, the last one among them; its type is the table's.
        values: pairs of units, shape (n,), and their values: one for all of them, or shape (n,).
    """
    table = np.full(count + 1, fill)
    for units, value in values:
        table[units] = value
    return table


def with_fixed(values: NDArray[Any], fixed: Any) -> NDArray[Any]:
    """Values per unit, shape (units,), as a table that the units of a slot index: `fixed` answers for -1, no unit."""
    return np.append(values, fixed)


@dataclass(frozen=True, eq=False)
class Slot:
    """One dimension of one parameter or buffer; `units[i]` is the unit that owns index i, or -1 (always stays).

    `role` says what the entries are to the units: `out` (filters of a convolution or linear layer), `bias` (of such
    filters), `in` (inputs of such a layer), `scale`, `shift`, `stat` (of a normalisation), or `other`.
    """

    tensor: str
    dim: int
    role: str
    units: Ints

    @property
    def layer(self) -> str:
        """Path of the module that holds the tensor, or what its weight is computed from; empty for the root."""
        return self.tensor.rpartition(".")[0].partition(".parametrizations.")[0].removeprefix("parametrizations.")

    @property
    def owned(self) -> NDArray[np.bool_]:
        """Which entries a unit owns, shape (entries,)."""
        return self.units >= 0


@dataclass(frozen=True, eq=False)
class Group:
    """Interchangeable units: all own entries in the same slots, equally often.

    Fields:
        id: name of the first layer whose filters these units are.
        units: unit numbers in the order of that layer's filters; position i in scores and in a Keep means `units[i]`.
        frozen: why no unit may be pruned, naming the operation; None if they may.
        stage: 0 for groups made at the highest resolution of the network, 1 for the next lower, and so on.
        layers: every layer that loses weights with these units.
    """

    id: str
    units: Ints
    frozen: str | None
    stage: int
    layers: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of units of the dense model."""
        return len(self.units)


@dataclass(frozen=True)
class Op:
    """One matrix-multiply-like operation: its FLOPs are `flops` times the kept entries of each of `dims`.

    `dims` and `out_dims` are rows of `ChannelGraph.widths`; `activations` times `out_dims` counts output elements.
    """

    name: str
    kind: str
    flops: int
    dims: tuple[int, ...]
    activations: int
    out_dims: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CrossChannelCall:
    """A call of an operation in which entries act on each other along `over`: layer norm, channel mean, softmax.

    It is the `index`-th call of the operation `name` in a forward pass. `blocks` are pairs of dimensions and the units
    along them (jointly, if there are several dimensions).
    """

    name: str
    index: int
    over: tuple[int, ...]
    blocks: tuple[tuple[tuple[int, ...], Ints], ...]


@dataclass(frozen=True, eq=False)
class ComputedWeight:
    """A layer's weight that the model computes from parameters, in weight norm for example.

    It is argument number `argument` of the `index`-th call of the operation `name` by the own code of `module` in a
    forward pass, matrix products counted together (`operations.counted_as`). Calls of other modules do not count: an
    LSTM multiplies all steps at once on the CPU, and step by step where it is traced. `blocks` are pairs of dimensions,
    counted from the last, which is -1, and the units along them: the same product may get its weight once more for
    every image.
    """

    module: str
    name: str
    index: int
    argument: int
    blocks: tuple[tuple[tuple[int, ...], Ints], ...]


@dataclass(frozen=True, eq=False)
class SizeAttribute:
    """An attribute of a module that holds numbers of channels: number i counts the entries of `parts[i]` that stay.

    A lone number has one part.
    """

    module: str
    name: str
    parts: tuple[Ints, ...]


@dataclass(frozen=True, eq=False)
class Scale:
    """A factor in the model's code that follows a width: (kept entries of `units`) ** `power`.

    It multiplies the outputs of `entries` along dimension `dim` of a tensor. Surgery multiplies these entries by (kept
    share of `units`) ** -`power`, so that the outputs are as they were.
    """

    tensor: str
    dim: int
    entries: Ints
    units: Ints
    power: float


@dataclass(frozen=True)
class InputSpec:
    """Shape and dtype name (`float32`) of one tensor that the model's forward takes.

    It is passed by keyword if it has a `name`, else as argument number `place`, or in a list that is this argument.
    """

    shape: tuple[int, ...]
    dtype: str
    name: str | None = None
    place: int = 0
    listed: bool = False


@dataclass(frozen=True, eq=False)
class Widths:
    """Kept entries of every dimension that costs anything, as an affine function of the kept units per prunable group.

    Shapes: `fixed` (rows,), `per_unit` (rows, prunable groups): width = fixed + per_unit @ kept.
    """

    fixed: Floats
    per_unit: Floats


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The result of `trace`: coupled channel groups and a cost model that is exact for every Keep.

    Fields:
        groups: all groups, frozen ones included, in the order of the forward pass.
        slots: every dimension of a tensor along which units lie.
        ops: operations that cost FLOPs, in the order of the forward pass.
        tensors: parameter name -> (entries that no unit owns, rows of `widths`): parameters = entries * widths.
        cross_channel: calls after which a channel depends on others of its kind, in the order of the forward pass.
        attributes: sizes that modules hold beside their weights, such as `groups` and `head_dim`.
        scales: where the model's code multiplies by a power of a width.
        computed_weights: weights of layers that are computed from parameters.
        inputs: what the model was traced with; FLOPs and activations count for this batch.
    """

    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    ops: tuple[Op, ...]
    tensors: Mapping[str, tuple[int, tuple[int, ...]]]
    widths: Widths
    cross_channel: tuple[CrossChannelCall, ...]
    attributes: tuple[SizeAttribute, ...]
    inputs: tuple[InputSpec, ...]
    unit_count: int
    scales: tuple[Scale, ...] = ()
    computed_weights: tuple[ComputedWeight, ...] = ()

    @cached_property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that may be pruned, in the order of the columns of `widths.per_unit`."""
        return tuple(group for group in self.groups if group.frozen is None)

    @cached_property
    def by_id(self) -> Mapping[str, Group]:
        """Prunable groups by id."""
        return {group.id: group for group in self.prunable}

    @cached_property
    def column(self) -> Mapping[str, int]:
        """Prunable group id -> column of `widths.per_unit`."""
        return {group.id: i for i, group in enumerate(self.prunable)}

    @cached_property
    def column_of_unit(self) -> Ints:
        """Column of the prunable group of every unit, -1 for frozen ones; the last row, -1 too, answers for no unit."""
        return self.per_unit(-1, ((group.units, i) for i, group in enumerate(self.prunable)))

    @cached_property
    def sizes(self) -> Ints:
        """Units per prunable group of the dense model, shape (prunable groups,)."""
        return np.array([group.size for group in self.prunable], dtype=np.int64)

    @cached_property
    def entries(self) -> tuple[Ints, Ints, Ints]:
        """All slots end to end: the unit of every entry and its index in its slot; and where slots begin and end."""
        sizes = [len(slot.units) for slot in self.slots]
        begins = np.cumsum([0, *sizes])
        units = np.concatenate([*(slot.units for slot in self.slots), np.zeros(0, dtype=np.int64)])
        return units, np.arange(len(units)) - np.repeat(begins[:-1], sizes), begins

    @cached_property
    def slots_by_tensor(self) -> Mapping[str, tuple[Slot, ...]]:
        """Tensor name -> its slots."""
        result: dict[str, tuple[Slot, ...]] = {}
        for slot in self.slots:
            result[slot.tensor] = (*result.get(slot.tensor, ()), slot)
        return result

    @cached_property
    def _slots_by_place(self) -> Mapping[tuple[str, int], Slot]:
        return {(slot.tensor, slot.dim): slot for slot in self.slots}

    def slot(self, tensor: str, dim: int) -> Slot | None:
        """The slot of this dimension; None if no unit lies along it."""
        return self._slots_by_place.get((tensor, dim))

    def per_unit(self, fill: Any, values: Iterable[tuple[Ints, ArrayLike]] = ()) -> NDArray[Any]:
        """`unit_table` of this graph, shape (units + 1,): the last row, `fill`, answers for entries without a unit."""
        return unit_table(self.unit_count, fill, values)

    def group(self, group_id: str) -> Group:
        """The prunable group of that id; raises `InputError` for frozen and unknown ones."""
        if group_id in self.by_id:
            return self.by_id[group_id]
        for group in self.groups:
            if group.id == group_id and group.frozen is not None:
                raise InputError(f"group {group_id!r} is frozen: {group.frozen}", allowed=", ".join(self.by_id))
        return self.by_id[check_name(group_id, self.by_id, kind="group")]
