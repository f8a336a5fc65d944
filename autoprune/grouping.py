"""Labels that met in a forward pass -> ChannelGraph: units, the groups they form, and what each operation costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from autoprune.attributes import size_attributes
from autoprune.graph import ChannelGraph, Group, InputSpec, Ints, Mixer, Op, Slot, Widths
from autoprune.labels import FIXED
from autoprune.rules import Flow, RawOp


@dataclass(frozen=True, eq=False)
class LabelSlot:
    """One labelled tensor dimension: its labels are the `size` numbers from `first` on."""

    tensor: str
    dim: int
    first: int
    size: int

    @property
    def labels(self) -> Ints:
        """Shape (size,)."""
        return np.arange(self.first, self.first + self.size)


@dataclass(frozen=True, eq=False)
class Run:
    """One labelled forward pass: what it was run on and what the rules found out.

    `sizes` counts the entries of every parameter; `attributes` are the integers that modules hold, by module and name.
    """

    specs: tuple[InputSpec, ...]
    slots: tuple[LabelSlot, ...]
    flow: Flow
    sizes: Mapping[str, int]
    attributes: Mapping[str, Mapping[str, int]]

    @property
    def labels(self) -> int:
        """The number of labels handed out, FIXED included."""
        return self.slots[-1].first + self.slots[-1].size if self.slots else FIXED + 1


@dataclass(frozen=True, eq=False)
class _Units:
    """Components of tied labels that hold filters. `of_label[l]` is the unit of label l or -1; `reason` by unit."""

    of_label: Ints
    reasons: Mapping[int, str]
    count: int


def components(flow: Flow, labels: int) -> Ints:
    """The number of the connected component of every label, shape (labels,)."""
    ties = np.concatenate(flow.ties, axis=1) if flow.ties else np.zeros((2, 0), dtype=np.int64)
    links = coo_matrix((np.ones(ties.shape[1], dtype=np.int8), (ties[0], ties[1])), shape=(labels, labels))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _units(run: Run, blamed: Mapping[int, str]) -> _Units:
    component = components(run.flow, run.labels)
    filters = np.concatenate([a.ravel() for a, role in run.flow.roles if role == "out"] or [np.zeros(0, np.int64)])
    owners = np.unique(component[filters[filters != FIXED]])
    number = np.full(run.labels, -1)
    number[owners] = np.arange(len(owners))
    of_label = number[component]
    of_label[FIXED] = -1
    reasons: dict[int, str] = dict(blamed)
    for frozen, why in run.flow.freezes:
        for unit in np.unique(of_label[frozen]).tolist():
            if unit >= 0:
                reasons.setdefault(unit, why)
    return _Units(of_label, reasons, len(owners))


def build_graph(run: Run, blamed: Mapping[int, str]) -> ChannelGraph:
    """The graph that a run's ties and freezes make; `blamed` freezes further units, with the reason."""
    units = _units(run, blamed)
    roles = _slot_roles(run)
    slots = [Slot(s.tensor, s.dim, roles.get(i, "other"), units.of_label[s.labels]) for i, s in enumerate(run.slots)]
    slots = [slot for slot in slots if (slot.units >= 0).any()]
    rows = _Rows(units, [slot.units for slot in slots])
    ops = tuple(_op(op, rows) for op in run.flow.ops)
    tensors = _tensor_terms(run.sizes, slots, rows)
    groups = _groups(slots, units, rows, run.flow.ops)
    return ChannelGraph(
        groups,
        tuple(slots),
        ops,
        tensors,
        rows.widths(groups),
        _mixers(run, units),
        size_attributes(run.attributes, run.flow, units.of_label),
        run.specs,
        units.count,
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

    def signatures(self) -> NDArrayU:
        """A 64-bit hash per unit of how often it occurs in which arrays: equal hash, same group."""
        codes = np.random.default_rng(0).integers(1, 2**63, len(self.arrays), dtype=np.uint64)
        result = np.zeros(self.units.count, dtype=np.uint64)
        for code, array in zip(codes, self.arrays, strict=True):
            np.add.at(result, array[array >= 0], code)
        return result

    def widths(self, groups: Sequence[Group]) -> Widths:
        prunable = [group for group in groups if group.frozen is None]
        owner = np.full(self.units.count + 1, len(prunable))  # the last entry answers for unit -1
        for i, group in enumerate(prunable):
            owner[group.units] = i
        counts = np.array([np.bincount(owner[a], minlength=len(prunable) + 1) for a in self.arrays], dtype=np.float64)
        counts = counts.reshape(len(self.arrays), len(prunable) + 1)
        sizes = np.array([group.size for group in prunable], dtype=np.float64)
        return Widths(counts[:, -1], counts[:, :-1] / sizes if prunable else counts[:, :-1])


NDArrayU = np.ndarray[Any, np.dtype[np.uint64]]


def _mixers(run: Run, units: _Units) -> tuple[Mixer, ...]:
    return tuple(
        Mixer(raw.name, raw.index, raw.over, tuple((dims, units.of_label[labels]) for dims, labels in raw.blocks))
        for raw in run.flow.mixers
        if any((units.of_label[labels] >= 0).any() for _, labels in raw.blocks)
    )


def _slot_roles(run: Run) -> dict[int, str]:
    starts = np.array([slot.first for slot in run.slots])
    roles: dict[int, str] = {}
    for labels, role in run.flow.roles:
        real = labels[labels != FIXED]
        for index in np.unique(np.searchsorted(starts, real, side="right") - 1):
            roles[int(index)] = role
    return roles


def _op(op: RawOp, rows: _Rows) -> Op:
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


def _groups(slots: Sequence[Slot], units: _Units, rows: _Rows, ops: Sequence[RawOp]) -> tuple[Group, ...]:
    signature = rows.signatures().tolist()
    stages, layers = _unit_stages(units, ops), _layers(slots)
    members: dict[tuple[int, str | None], dict[int, None]] = {}
    for slot in _in_forward_order([slot for slot in slots if slot.role == "out"], ops):
        for unit in slot.units[slot.units >= 0].tolist():
            members.setdefault((signature[unit], units.reasons.get(unit)), {})[unit] = None
    used: Counter[str] = Counter()
    groups = []
    for (_, reason), own in members.items():
        first = next(iter(own))
        name = next(layer for layer, role in layers[first] if role == "out")
        used[name] += 1
        unique = name if used[name] == 1 else f"{name}#{used[name]}"
        names = tuple(dict.fromkeys(layer for layer, _ in layers[first]))
        groups.append(Group(unique, np.array(list(own)), reason, stages[first], names))
    return tuple(groups)


def _in_forward_order(slots: Sequence[Slot], ops: Sequence[RawOp]) -> list[Slot]:
    place: dict[str, int] = {}
    for i, op in enumerate(ops):
        place.setdefault(op.name, i)
    return sorted(slots, key=lambda slot: place.get(_layer(slot.tensor), len(ops)))


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _layers(slots: Sequence[Slot]) -> dict[int, list[tuple[str, str]]]:
    result: dict[int, list[tuple[str, str]]] = {}
    for slot in slots:
        for unit in np.unique(slot.units[slot.units >= 0]).tolist():
            result.setdefault(unit, []).append((_layer(slot.tensor), slot.role))
    return result


def _unit_stages(units: _Units, ops: Sequence[RawOp]) -> dict[int, int]:
    """Stage of the first operation that makes each unit; stages count distinct resolutions, the highest is 0."""
    levels = sorted({op.resolution for op in ops}, reverse=True)
    stages: dict[int, int] = {}
    for op in ops:
        for array in op.out_dims:
            for unit in np.unique(units.of_label[array]).tolist():
                stages.setdefault(unit, levels.index(op.resolution))
    return stages
