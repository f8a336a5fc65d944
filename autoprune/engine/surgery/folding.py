"""Folding: the constant that a removed channel still emitted goes into the next bias or running mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.engine.graph import ChannelGraph, Slot
from autoprune.engine.surgery.tensors import (
    copy_with,
    example_inputs,
    kept_entries,
    kept_mask,
    named_tensors,
    zeroed,
)


def with_added_biases(graph: ChannelGraph, model: nn.Module) -> ChannelGraph:
    """The graph with the biases that earlier cuts added to layers of the model to hold constants, see below.

    A graph of a model that has been cut comes from the graph that it had before, where these biases were not there.
    """
    added = {name: len(tensor) for name, tensor in model.named_parameters() if name not in graph.tensors}
    biases = []
    for slot in graph.slots:
        name = f"{slot.layer}.bias"
        if slot.role == "out" and name in added:
            units = np.tile(slot.units, added[name] // len(slot.units))  # of a transposed one: the same in every group
            biases.append(Slot(name, 0, "bias", units))
    return replace(graph, slots=(*graph.slots, *biases)) if biases else graph


class _DeltaRecorder(TorchDispatchMode):
    """Collects, for every convolution and linear layer that loses inputs, what its lost inputs add to its outputs.

    `gone` maps the weight's data pointer to (tensor name, lost input entries). A batch norm that reads the result
    directly takes the correction on its running mean; otherwise the layer's bias does.
    """

    def __init__(self, gone: Mapping[int, tuple[str, Tensor]], names: Mapping[int, str]) -> None:
        super().__init__()
        self.gone, self.names = gone, names
        self.deltas: dict[str, Tensor] = {}
        self.has_bias: set[str] = set()
        self.norm_of: dict[str, str] = {}
        self._outputs: dict[int, tuple[Tensor, str]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name == "convolution":
            self._read_convolution(args, out)
        elif name in ("addmm", "mm"):
            self._read_linear(args, out)
        elif "batch_norm" in name:
            self._follow_norm(args)
        return out

    def _read_convolution(self, args, out) -> None:  # type: ignore[no-untyped-def]
        x, weight, bias, stride, transposed, groups = args[0], args[1], args[2], args[3], args[6], args[8]
        if weight.data_ptr() not in self.gone:
            return
        name, lost = self.gone[weight.data_ptr()]
        if transposed:  # (in, out / groups, …) -> (out, in / groups, …); of its taps an output sees one in `stride`
            weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1) / prod(stride)
            lost = lost[lost < weight.shape[1]]  # the same offsets go out of every group
        constant = _channel_constants(x).reshape(groups, -1).index_select(1, lost)
        kernel = weight.index_select(1, lost).flatten(2).sum(2)
        delta = torch.einsum("gol,gl->go", kernel.reshape(groups, -1, len(lost)), constant).flatten()
        self._add_delta(name, delta, bias is not None, out)

    def _read_linear(self, args, out) -> None:  # type: ignore[no-untyped-def]
        x, weight = args[-2:]
        if weight.data_ptr() not in self.gone:
            return
        name, lost = self.gone[weight.data_ptr()]
        delta = _channel_constants(x).index_select(0, lost) @ weight.index_select(0, lost)
        self._add_delta(name, delta, len(args) == 3, out)

    def _add_delta(self, name: str, delta: Tensor, has_bias: bool, out: Tensor) -> None:
        if name in self.deltas and not torch.allclose(self.deltas[name], delta, atol=1e-6):
            delta = torch.zeros_like(delta)  # a shared layer that sees different constants: no one bias is right
        self.deltas[name] = delta
        self._outputs[id(out)] = (out, name)
        if has_bias:
            self.has_bias.add(name)

    def _follow_norm(self, args) -> None:  # type: ignore[no-untyped-def]
        source, mean = args[0], args[3]
        if id(source) in self._outputs and mean is not None and mean.data_ptr() in self.names:
            self.norm_of[self._outputs[id(source)][1]] = self.names[mean.data_ptr()]


def _channel_constants(x: Tensor) -> Tensor:
    """The value of each channel of (N, C, …), shape (C,); 0 where two places inside differ: no constant, no folding."""
    middle, beside = (x[(n, slice(None), *((size - n * n) // 2 for size in x.shape[2:]))] for n in (0, -1))
    return torch.where(torch.isclose(middle, beside, rtol=1e-4, atol=1e-6), middle, 0)


def find_corrections(model: nn.Module, graph: ChannelGraph, stays: np.ndarray) -> dict[str, tuple[str, Tensor]]:
    """Weight name -> (`bias` or the name of a running mean, what the lost inputs add to each kept output)."""
    slots = graph.slots_by_tensor
    quiet = copy_with(model, lambda name, t: _silence_filters(t, slots.get(name, ()), stays)).eval()
    tensors = dict(named_tensors(quiet))
    recorder = _DeltaRecorder(
        {tensors[name].data_ptr(): (name, lost) for name, lost in _lost_inputs(graph, stays, tensors)},
        {tensor.data_ptr(): name for name, tensor in tensors.items()},
    )
    device = next(iter(tensors.values())).device
    args, kwargs = example_inputs(graph.inputs, device)
    with torch.no_grad(), recorder:
        quiet(*args, **kwargs)
    return {
        name: _choose_target(name, delta, recorder, graph, stays)
        for name, delta in recorder.deltas.items()
        if delta.any()
    }


def _silence_filters(tensor: Tensor, slots: Iterable[Slot], stays: np.ndarray) -> Tensor:
    filters = [slot for slot in slots if slot.role in ("out", "bias") and not kept_mask(slot.units, stays).all()]
    return zeroed(tensor, filters, stays) if filters else tensor


def _lost_inputs(graph: ChannelGraph, stays: np.ndarray, tensors: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    mixed = [units.ravel() for call in graph.cross_channel for _, units in call.blocks]
    foldable = ~stays
    foldable[np.concatenate(mixed) if mixed else []] = False  # what went through a norm over channels is no constant
    for slot in graph.slots:
        lost = np.flatnonzero(slot.owned & foldable[slot.units])
        if slot.role == "in" and len(lost):
            yield slot.tensor, torch.from_numpy(lost).to(tensors[slot.tensor].device)


def _choose_target(
    name: str, delta: Tensor, recorder: _DeltaRecorder, graph: ChannelGraph, stays: np.ndarray
) -> tuple[str, Tensor]:
    for slot in graph.slots_by_tensor[name]:
        if slot.role == "out":
            kept = torch.from_numpy(kept_entries(slot.units, stays)).to(delta.device)
            delta = delta.reshape(-1, len(slot.units))[:, kept].flatten()  # of a transposed one: in every group
    norm = recorder.norm_of.get(name)
    return ("bias", delta) if norm is None or name in recorder.has_bias else (norm, delta)


def apply_correction(pruned: nn.Module, weight: str, target: str, delta: Tensor) -> None:
    """Put what the lost inputs of a weight added where `find_corrections` says."""
    path, _, leaf = weight.rpartition(".")
    module = pruned.get_submodule(path)
    if target != "bias":
        pruned.get_buffer(target).sub_(delta)
    elif leaf == "weight" and getattr(module, "bias", None) is not None:
        module.bias.data.add_(delta)
    elif leaf == "weight" and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        module.bias = nn.Parameter(delta.clone())
