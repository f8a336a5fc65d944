"""Labels that met in a forward pass -> ChannelGraph: units, the groups they form, and what each operation costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.engine.graph import (
    ChannelGraph,
    ComputedWeight,
    CrossChannelCall,
    Group,
    Ints,
    Op,
    Slot,
    Widths,
    unit_table,
)
from autoprune.engine.labels.blocks import FIXED
from autoprune.engine.labels.evidence import LabelledOp
from autoprune.engine.labels.ties import Ties
from autoprune.engine.tracing.components import components
from autoprune.engine.tracing.labelled_run import LabelledRun
from autoprune.engine.tracing.size_attributes import size_attributes


@dataclass(frozen=True, eq=False)
class _Units:
    """Components of tied labels that hold filters.

    `of_label[l]` is the unit of label l or -1; `reason_index[u]` is where in `reasons` lies what freezes unit u, or -1.
    """

    of_label: Ints
    reason_index: Ints
    reasons: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.reason_index)


def _find_units(run: LabelledRun, culprits: Mapping[int, str]) -> _Units:
    component = components(run)
    filters = np.concatenate([a.ravel() for a, role in run.evidence.roles if role == "out"] or [np.zeros(0, np.int64)])
    owners = np.unique(component[filters[filters != FIXED]])
    number = np.full(run.label_count, -1)
    number[owners] = np.arange(len(owners))
    of_label = number[component]
    of_label[FIXED] = -1
    return _Units(of_label, *_reasons_to_stay(run.ties, of_label, len(owners), culprits))


def _reasons_to_stay(
    ties: Ties, of_label: Ints, count: int, culprits: Mapping[int, str]
) -> tuple[Ints, tuple[str, ...]]:
    """For every unit the place of its first reason to stay, -1 if there is none; and the reasons."""
    places: dict[str, int] = {}
    reason_index = unit_table(count, -1)
    for unit, reason in culprits.items():
        reason_index[unit] = places.setdefault(reason, len(places))
    reason_index[-1] = 0  # answers for labels without a unit: nothing to freeze
    for labels, reason in ties.freezes:
        units = of_label[labels]
        reason_index[units[reason_index[units] < 0]] = places.setdefault(reason, len(places))
    return reason_index[:-1], tuple(places)


def build_graph(run: LabelledRun, culprits: Mapping[int, str]) -> ChannelGraph:
    """The graph that a run's ties and freezes make; `culprits` freezes further units, with the reason."""
    units = _find_units(run, culprits)
    roles = _slot_roles(run)
    slots = [
        Slot(s.tensor, s.dim, role, units.of_label[s.first : s.first + s.size])
        for s, role in zip(run.slots, roles, strict=True)
    ]
    slots = [slot for slot in slots if slot.owned.any()]
    rows = _Rows(units, [slot.units for slot in slots])
    ops = tuple(_op_of_units(op, rows) for op in run.evidence.ops)
    tensors = _tensor_terms(run.sizes, slots, rows)
    groups = _form_groups(slots, units, rows, run.evidence.ops)
    return ChannelGraph(
        groups,
        tuple(slots),
        ops,
        tensors,
        rows.widths(groups),
        _cross_channel_calls(run, units),
        size_attributes(run.attributes(), run.evidence, units.of_label),
        run.specs,
        units.count,
        computed_weights=_computed_weights(run, units),
    )


class _Rows:
    """Collects the arrays of units whose kept entries are counted; equal arrays share a row."""

    def __init__(self, units: _Units, arrays: Iterable[Ints]) -> None:
        self.units = units
        self.arrays: list[Ints] = []
        self._index: dict[bytes, int] = {}
        for array in arrays:
            self.add(array)

    def add(self, units: Ints) -> int:
        key = units.tobytes()
        if key not in self._index:
            self._index[key] = len(self.arrays)
            self.arrays.append(units)
        return self._index[key]

    def add_labels(self, labels: Ints) -> int:
        return self.add(self.units.of_label[labels].ravel())

    def signatures(self) -> _Hashes:
        """A 64-bit hash per unit of how often it occurs in which arrays: equal hash, same group."""
        codes = np.random.default_rng(0).integers(1, 2**63, len(self.arrays), dtype=np.uint64)
        result = unit_table(self.units.count, np.uint64(0))
        np.add.at(result, *_joined_arrays(self.arrays, codes))
        return result[:-1]

    def widths(self, groups: Sequence[Group]) -> Widths:
        prunable = [group for group in groups if group.frozen is None]
        owner = unit_table(self.units.count, len(prunable), ((group.units, i) for i, group in enumerate(prunable)))
        rows, columns = len(self.arrays), len(prunable) + 1
        units, row = _joined_arrays(self.arrays, np.arange(rows))
        counts = np.bincount(row * columns + owner[units], minlength=rows * columns).reshape(rows, columns)
        sizes = np.array([group.size for group in prunable], dtype=np.float64)
        return Widths(counts[:, -1].astype(np.float64), counts[:, :-1] / sizes)


def _joined_arrays(arrays: Sequence[Ints], values: Ints | _Hashes) -> tuple[Ints, Ints | _Hashes]:
    """All arrays in one, and beside every entry the value of the array it comes from."""
    flat = [array.ravel() for array in arrays] or [np.zeros(0, np.int64)]
    return np.concatenate(flat), np.repeat(values, [len(array) for array in flat] if arrays else 0)


_Hashes = np.ndarray[Any, np.dtype[np.uint64]]


def _cross_channel_calls(run: LabelledRun, units: _Units) -> tuple[CrossChannelCall, ...]:
    return tuple(
        CrossChannelCall(
            call.name, call.index, call.over, tuple((dims, units.of_label[labels]) for dims, labels in call.blocks)
        )
        for call in run.evidence.cross_channel
        if any((units.of_label[labels] >= 0).any() for _, labels in call.blocks)
    )


def _computed_weights(run: LabelledRun, units: _Units) -> tuple[ComputedWeight, ...]:
    return tuple(
        ComputedWeight(
            weight.module,
            weight.name,
            weight.index,
            weight.argument,
            tuple((dims, units.of_label[a]) for dims, a in weight.blocks),
        )
        for weight in run.evidence.computed_weights
    )


_ROLES = ("out", "bias", "in", "stat", "scale", "shift")


def _slot_roles(run: LabelledRun) -> list[str]:
    """The role of every slot; where rules name several (weights that two layers share), the first of `_ROLES`."""
    found = [len(_ROLES)] * len(run.slots)
    if not run.evidence.roles:
        return ["other"] * len(run.slots)
    labels, _ = _joined_arrays([a for a, _ in run.evidence.roles], np.zeros(len(run.evidence.roles), dtype=np.int64))
    begins = np.cumsum([0, *(a.size for a, _ in run.evidence.roles)])[:-1]
    starts = np.array([slot.first for slot in run.slots])
    lowest, highest = (at.reduceat(labels, begins) for at in (np.minimum, np.maximum))
    ends = np.searchsorted(starts, np.stack([lowest, highest]), side="right").T - 1
    for (labels, role), (low, high) in zip(run.evidence.roles, ends.tolist(), strict=True):
        if low == high >= 0:
            found[high] = min(found[high], _ROLES.index(role))
            continue
        for place in np.unique(np.searchsorted(starts, labels[labels != FIXED], side="right") - 1):
            found[place] = min(found[place], _ROLES.index(role))  # several slots, or FIXED entries among them
    return [(*_ROLES, "other")[place] for place in found]


def _op_of_units(op: LabelledOp, rows: _Rows) -> Op:
    dims, out_dims = (tuple(rows.add_labels(a) for a in arrays) for arrays in (op.dims, op.out_dims))
    return Op(op.name, op.kind, op.flops, dims, op.activations, out_dims)


def _tensor_terms(
    sizes: Mapping[str, int], slots: Sequence[Slot], rows: _Rows
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Parameter name -> (entries that no unit owns, rows of the slots along which units lie)."""
    terms: dict[str, tuple[int, tuple[int, ...]]] = {name: (size, ()) for name, size in sizes.items()}
    for slot in slots:
        if slot.tensor in terms:
            fixed, dims = terms[slot.tensor]
            terms[slot.tensor] = (fixed // len(slot.units), (*dims, rows.add(slot.units)))
    return terms


def _form_groups(slots: Sequence[Slot], units: _Units, rows: _Rows, ops: Sequence[LabelledOp]) -> tuple[Group, ...]:
    members = _group_members(slots, units, rows, ops)
    firsts = np.array([own[0] for own in members], dtype=np.int64)
    stages = _unit_stages(units, ops)[firsts].tolist()
    used: Counter[str] = Counter()
    groups = []
    for own, stage, layers in zip(members, stages, _layers_and_roles(slots, firsts, units.count), strict=True):
        name = next(layer for layer, role in layers if role == "out")
        used[name] += 1
        unique = name if used[name] == 1 else f"{name}#{used[name]}"
        reason_index = units.reason_index[own[0]]
        reason = None if reason_index < 0 else units.reasons[reason_index]
        groups.append(Group(unique, own, reason, stage, tuple(dict.fromkeys(layer for layer, _ in layers))))
    return tuple(groups)


def _group_members(slots: Sequence[Slot], units: _Units, rows: _Rows, ops: Sequence[LabelledOp]) -> list[Ints]:
    """The units of every group in the order of their first filters; groups in the order of their first units."""
    filters = [slot.units for slot in _in_forward_order([slot for slot in slots if slot.role == "out"], ops)]
    order = np.concatenate([*filters, np.zeros(0, np.int64)])
    order = order[order >= 0]
    at = np.arange(len(order))
    first = np.zeros(units.count, dtype=np.int64)
    first[order[::-1]] = at[::-1]  # written last, the first place stays
    order = order[first[order] == at]
    spread = np.random.default_rng(1).integers(1, 2**63, len(units.reasons) + 1, dtype=np.uint64)
    keys = rows.signatures() + spread[units.reason_index]  # equal: in the same slots and frozen for the same reason
    _, begins, group = np.unique(keys[order], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(begins))[group]
    by_rank = order[np.argsort(rank, kind="stable")]
    return np.split(by_rank, np.cumsum(np.bincount(rank))[:-1]) if len(order) else []


def _in_forward_order(slots: Sequence[Slot], ops: Sequence[LabelledOp]) -> list[Slot]:
    place: dict[str, int] = {}
    for i, op in enumerate(ops):
        place.setdefault(op.name, i)
    return sorted(slots, key=lambda slot: place.get(_layer_name(slot), len(ops)))


def _layer_name(slot: Slot) -> str:
    """The layer's name; a parameter of the model itself is its own layer."""
    return slot.layer or slot.tensor


def _layers_and_roles(slots: Sequence[Slot], wanted: Ints, count: int) -> list[list[tuple[str, str]]]:
    """For each of the wanted units, the layers and roles of the slots that it lies in."""
    place = unit_table(count, -1, [(wanted, np.arange(len(wanted)))])
    units, slot_of = _joined_arrays([slot.units for slot in slots], np.arange(len(slots)))
    found = place[units]
    hits = found >= 0
    names = [(_layer_name(slot), slot.role) for slot in slots]
    result: list[list[tuple[str, str]]] = [[] for _ in wanted]
    for unit, slot in zip(found[hits].tolist(), slot_of[hits].tolist(), strict=True):
        result[unit].append(names[slot])
    return result


def _unit_stages(units: _Units, ops: Sequence[LabelledOp]) -> Ints:
    """Stage of the first operation that makes each unit; stages count distinct resolutions, the highest is 0."""
    levels = sorted({op.resolution for op in ops}, reverse=True)
    made = [(array, levels.index(op.resolution)) for op in ops for array in op.out_dims]
    labels, level = _joined_arrays([array for array, _ in made], np.array([level for _, level in made], dtype=np.int64))
    stages = unit_table(units.count, 0)
    stages[units.of_label[labels][::-1]] = level[::-1]  # written last, the first operation stays
    return stages[:-1]
