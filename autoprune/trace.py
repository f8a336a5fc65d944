"""Model + example input -> ChannelGraph: one forward pass on meta tensors with integer labels beside the data.

Every entry of every parameter dimension gets a label; labels go through the operations as the data do (`rules.py`);
what meets is tied; connected components are the units. A second pass on a copy with one unit per group cut (the probe)
finds what the first cannot see, sizes and indices written in the model's code, and freezes the groups to blame.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.errors import ModelError
from autoprune.graph import ChannelGraph, Group, InputSpec, Ints, Op, Slot, Widths
from autoprune.keep import Keep
from autoprune.labels import FIXED
from autoprune.rules import Call, Flow, RawOp, apply, operation_name
from autoprune.surgery import copy_with, kept_entries, named_tensors, sync_sizes

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
OUTPUT = "reaches the model's output"


def trace(model: nn.Module, inputs: Inputs) -> ChannelGraph:
    """The channel graph of a model, in eval mode, for inputs of these shapes; the model is not touched.

    Args:
        model: any module; runs on meta tensors, so no memory or time is spent on data.
        inputs: example tensor, tensors in the order of `forward`, or tensors by keyword.

    Raises:
        ModelError: the forward pass fails on these inputs.
    """
    meta, specs = _meta_copy(model), tuple(_specs(inputs))
    try:
        run = _run(meta, specs)
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ModelError(f"the forward pass fails: {reason}", where=type(model).__name__) from error
    return _probed(meta, run)


# ---- running a model with labels -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _LabelSlot:
    """One labelled tensor dimension: its labels are the `size` numbers from `first` on."""

    tensor: str
    dim: int
    first: int
    size: int

    @property
    def labels(self) -> Ints:
        return np.arange(self.first, self.first + self.size)


class _Labelling(TorchDispatchMode):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        apply(self.flow, Call(operation_name(func), func, args, kwargs or {}, out))
        return out


def _specs(inputs: Inputs) -> Iterable[InputSpec]:
    named = (
        inputs.items()
        if isinstance(inputs, Mapping)
        else [(None, t) for t in ([inputs] if isinstance(inputs, Tensor) else inputs)]
    )
    for name, tensor in named:
        if not isinstance(tensor, Tensor):
            raise ModelError(f"expected a tensor as example input, found {type(tensor).__name__}")
        yield InputSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), name)


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes but no data, plain tensor attributes of modules included."""
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor):
                memo[id(value)] = value.detach().to("meta")
    for _, tensor in named_tensors(model):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo).eval()


def _label_slots(model: nn.Module) -> list[_LabelSlot]:
    """Labels for every dimension of size > 1 of every tensor; of a convolution's weight only for filters and inputs."""
    kernels = {
        f"{path}.weight".lstrip(".") for path, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)
    }
    slots, first = [], FIXED + 1
    for name, tensor in named_tensors(model):
        for dim, size in enumerate(tensor.shape[:2] if name in kernels else tensor.shape):
            if size > 1:
                slots.append(_LabelSlot(name, dim, first, size))
                first += size
    return slots


@dataclass(frozen=True, eq=False)
class _Run:
    """One labelled forward pass: what it was run on and what the rules found out."""

    specs: tuple[InputSpec, ...]
    slots: tuple[_LabelSlot, ...]
    flow: Flow
    sizes: Mapping[str, int]

    @property
    def labels(self) -> int:
        """The number of labels handed out, FIXED included."""
        return self.slots[-1].first + self.slots[-1].size if self.slots else FIXED + 1


def _run(model: nn.Module, specs: tuple[InputSpec, ...]) -> _Run:
    flow, slots, tensors = Flow(), tuple(_label_slots(model)), dict(named_tensors(model))
    blocks: dict[str, list[Any]] = {}
    for slot in slots:
        blocks.setdefault(slot.tensor, []).append(((slot.dim,), slot.labels))
    for name, own in blocks.items():
        flow.set(tensors[name], own)
    made = [(spec.name, torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")) for spec in specs]
    with torch.no_grad(), _paths(model, flow), _Labelling(flow):
        out = model(*(t for name, t in made if name is None), **{name: t for name, t in made if name is not None})
    flow.path = ""
    for leaf in tree_leaves(out):
        flow.freeze_all(flow.get(leaf), OUTPUT)
    return _Run(specs, slots, flow, {name: p.numel() for name, p in model.named_parameters()})


@contextmanager
def _paths(model: nn.Module, flow: Flow):  # type: ignore[no-untyped-def]
    """While open, `flow.path` is the name of the module whose forward is running."""
    stack: list[str] = []

    def enter(path: str, _module: nn.Module, _args: object) -> None:
        stack.append(path)
        flow.path = path

    def leave(_module: nn.Module, _args: object, _out: object) -> None:
        stack.pop()
        flow.path = stack[-1] if stack else ""

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(enter, path)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ---- labels to graph -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Units:
    """Components of tied labels that hold filters. `of_label[l]` is the unit of label l or -1; `reason` by unit."""

    of_label: Ints
    reasons: Mapping[int, str]
    count: int


def _components(flow: Flow, labels: int) -> Ints:
    ties = np.concatenate(flow.ties, axis=1) if flow.ties else np.zeros((2, 0), dtype=np.int64)
    links = coo_matrix((np.ones(ties.shape[1], dtype=np.int8), (ties[0], ties[1])), shape=(labels, labels))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _units(run: _Run, blamed: Mapping[int, str]) -> _Units:
    component = _components(run.flow, run.labels)
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


def _build(run: _Run, blamed: Mapping[int, str]) -> ChannelGraph:
    units = _units(run, blamed)
    roles = _slot_roles(run)
    slots = [Slot(s.tensor, s.dim, roles.get(i, "other"), units.of_label[s.labels]) for i, s in enumerate(run.slots)]
    slots = [slot for slot in slots if (slot.units >= 0).any()]
    rows = _Rows(units, [slot.units for slot in slots])
    ops = tuple(_op(op, rows) for op in run.flow.ops)
    tensors = _tensor_terms(run.sizes, slots, rows)
    groups = _groups(slots, units, rows, run.flow.ops)
    return ChannelGraph(groups, tuple(slots), ops, tensors, rows.widths(groups), run.specs, units.count)


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


def _slot_roles(run: _Run) -> dict[int, str]:
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


# ---- the probe -------------------------------------------------------------------------------------------------------


def _probed(meta: nn.Module, run: _Run) -> ChannelGraph:
    """Cut one unit of every group at once and run again; on failure find the groups to blame, freeze them, repeat."""
    graph, blamed = _build(run, {}), dict[int, str]()
    while groups := [group for group in graph.prunable if group.size > 1]:
        check = partial(_failure, meta, graph)
        why = check(groups)
        if why is None:
            break
        for group in _guilty(groups, check):
            reason = check([group]) or why
            blamed |= dict.fromkeys(group.units.tolist(), reason)
        graph = _build(run, blamed)
    return graph


def _guilty(groups: list[Group], check: Callable[[list[Group]], str | None]) -> list[Group]:
    """The groups that fail when cut without the others; if no half fails alone, the first half."""
    if len(groups) == 1:
        return groups
    half = len(groups) // 2
    parts = [part for part in (groups[:half], groups[half:]) if check(part)]
    return [group for part in parts for group in _guilty(part, check)] or groups[:half]


def _failure(meta: nn.Module, graph: ChannelGraph, groups: Sequence[Group]) -> str | None:
    """Why the model breaks, or mixes up channels, when one unit of each of these groups is cut; None if it does not."""
    stays = _probe_keep(groups).units(graph)
    slots = graph.slots_by_tensor
    small = copy_with(meta, lambda name, tensor: _sliced(tensor, slots.get(name, ()), stays))
    sync_sizes(small, meta)
    try:
        run = _run(small, graph.inputs)
    except Exception as error:  # noqa: BLE001 - hard-coded sizes fail in as many ways as there are operations
        return f"the model's code fixes its size: {_first_line(error)}"
    return _misaligned(graph, stays, run)


def _probe_keep(groups: Sequence[Group]) -> Keep:
    """Drop the first unit of even groups and the last of odd ones, so that a shift between two groups shows."""
    return Keep.of({g.id: range(1, g.size) if i % 2 == 0 else range(g.size - 1) for i, g in enumerate(groups)})


def _sliced(tensor: Tensor, slots: Iterable[Slot], stays: np.ndarray) -> Tensor:
    shape = list(tensor.shape)
    for slot in slots:
        shape[slot.dim] = len(kept_entries(slot.units, stays))
    return torch.empty(shape, dtype=tensor.dtype, device="meta")


def _misaligned(graph: ChannelGraph, stays: np.ndarray, run: _Run) -> str | None:
    """Two units of the dense graph that meet in the cut model: some index in the model's code did not move along."""
    origin = np.full(run.labels, -1)
    dense = {(slot.tensor, slot.dim): slot for slot in graph.slots}
    for own in run.slots:
        slot = dense.get((own.tensor, own.dim))
        if slot is not None:
            origin[own.labels] = slot.units[kept_entries(slot.units, stays)]
    known = origin >= 0
    pairs = np.unique(np.stack([_components(run.flow, run.labels)[known], origin[known]]), axis=1)
    if len(np.unique(pairs[0])) != pairs.shape[1]:
        return "after a cut other channels would meet: the model's code fixes an index or a padding"
    if len(np.unique(pairs[1])) != pairs.shape[1]:
        return "after a cut channels that belong together would part: the model's code fixes an index"
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
