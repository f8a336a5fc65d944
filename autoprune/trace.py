"""Model + example input -> ChannelGraph: one forward pass on meta tensors with integer labels beside the data.

Every entry of every parameter dimension gets a label; labels go through the operations as the data do (`rules.py`);
what meets is tied; connected components are the units. A second pass on a copy with one unit per group cut (the probe)
finds what the first cannot see, sizes and indices written in the model's code, and freezes the groups to blame.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.errors import ModelError
from autoprune.graph import ChannelGraph, Group, InputSpec, Ints, Slot
from autoprune.grouping import LabelSlot, Run, build_graph, components
from autoprune.keep import Keep
from autoprune.labels import FIXED
from autoprune.rules import Call, Flow, apply, operation_name
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


def _label_slots(model: nn.Module) -> list[LabelSlot]:
    """Labels for every dimension of size > 1 of every tensor; of a convolution's weight only for filters and inputs."""
    kernels = {
        f"{path}.weight".lstrip(".") for path, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)
    }
    slots, first = [], FIXED + 1
    for name, tensor in named_tensors(model):
        for dim, size in enumerate(tensor.shape[:2] if name in kernels else tensor.shape):
            if size > 1:
                slots.append(LabelSlot(name, dim, first, size))
                first += size
    return slots


def _run(model: nn.Module, specs: tuple[InputSpec, ...]) -> Run:
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
    return Run(specs, slots, flow, {name: p.numel() for name, p in model.named_parameters()})


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


# ---- the probe -------------------------------------------------------------------------------------------------------


def _probed(meta: nn.Module, run: Run) -> ChannelGraph:
    """Cut one unit of every group at once and run again; on failure find the groups to blame, freeze them, repeat."""
    graph, blamed = build_graph(run, {}), dict[int, str]()
    while groups := [group for group in graph.prunable if group.size > 1]:
        check = partial(_failure, meta, graph)
        why = check(groups)
        if why is None:
            break
        for group in _guilty(groups, check):
            reason = check([group]) or why
            blamed |= dict.fromkeys(group.units.tolist(), reason)
        graph = build_graph(run, blamed)
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


def _misaligned(graph: ChannelGraph, stays: np.ndarray, run: Run) -> str | None:
    """Two units of the dense graph that meet in the cut model: some index in the model's code did not move along."""
    origin = np.full(run.labels, -1)
    dense = {(slot.tensor, slot.dim): slot for slot in graph.slots}
    for own in run.slots:
        slot = dense.get((own.tensor, own.dim))
        if slot is not None:
            origin[own.labels] = slot.units[kept_entries(slot.units, stays)]
    known = origin >= 0
    pairs = np.unique(np.stack([components(run.flow, run.labels)[known], origin[known]]), axis=1)
    if len(np.unique(pairs[0])) != pairs.shape[1]:
        return "after a cut other channels would meet: the model's code fixes an index or a padding"
    if len(np.unique(pairs[1])) != pairs.shape[1]:
        return "after a cut channels that belong together would part: the model's code fixes an index"
    if not _same_mixers(graph, stays, run, origin):
        return "after a cut other channels would be mixed: the model's code fixes an index"
    return None


def _same_mixers(graph: ChannelGraph, stays: np.ndarray, run: Run, origin: Ints) -> bool:
    """Whether every mixing call of the cut model sees the units that stay of those it saw before."""
    before = {(m.name, m.index): [units[(units >= 0) & stays[units]] for _, units in m.blocks] for m in graph.mixers}
    after = {
        (m.name, m.index): [origin[labels][origin[labels] >= 0] for _, labels in m.blocks] for m in run.flow.mixers
    }
    return all(_distinct(before[call]) == _distinct(after.get(call, [])) for call in before)


def _distinct(arrays: Iterable[Ints]) -> set[int]:
    return {int(unit) for array in arrays for unit in np.unique(array)}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
