"""Model + graph + Keep -> a new, smaller model. The model handed in is never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.copying import copy_module, select
from autoprune.errors import InputError
from autoprune.graph import ChannelGraph, InputSpec, Ints, Slot
from autoprune.keep import Keep

Replace = Callable[[str, Tensor], Tensor]
Cut = tuple[int, Ints]


def prune(model: nn.Module, graph: ChannelGraph, keep: Keep, *, fold: bool = True) -> nn.Module:
    """A new model without the channels that `keep` leaves out, in the mode (train or eval) of the old one.

    With `fold`, what a pruned channel still emits once its filter is gone (for instance relu(bn(0))) is added to the
    bias or taken off the running mean of whatever reads it: exact away from zero-padded borders. One forward pass in
    eval mode on a copy with the filters silenced finds these constants. Two kinds of reader are cut without folding:
    a layer that is used several times with different constants, and a weight that is no `weight` of a convolution or
    linear module; batch-norm statistics and fine-tuning have to make up for those.

    Raises:
        InputError: `keep` does not fit the graph, or the graph does not fit the model.
    """
    stays = keep.units(graph)
    _check_model(model, graph)
    corrections = _constants(model, graph, stays) if fold and not stays.all() else {}
    cuts = all_kept(graph, stays).cuts(graph)
    pruned = copy_with(model, lambda name, tensor: cut_tensor(tensor, cuts.get(name, ())))
    sync_sizes(pruned, sizes_after(graph, stays))
    for path, (target, delta) in corrections.items():
        _correct(pruned, path, target, delta)
    _rescale(pruned, graph, stays)
    return pruned


def copy_with(model: nn.Module, replace: Replace) -> nn.Module:
    """A copy of the module tree whose parameters and buffers are `replace(name, tensor)`; shared tensors stay shared.

    Weights are never copied twice: the copy of the tree meets them already replaced.
    """
    memo: dict[int, object] = {}
    for name, tensor in named_tensors(model):
        new = replace(name, tensor.detach())
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if is_parameter else new
    return copy_module(model, memo)


def named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Every parameter and buffer once, shared ones under their first name."""
    return tensors_of(dict(model.named_modules()))


def tensors_of(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """The parameters, then the buffers, that these modules hold themselves; shared ones once."""
    for held in ("_parameters", "_buffers"):
        seen: set[int] = set()
        for path, module in modules.items():
            for name, tensor in getattr(module, held).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{path}.{name}" if path else name, tensor


def example_inputs(
    specs: Iterable[InputSpec], device: torch.device | str, seed: int = 0
) -> tuple[list[Any], dict[str, Tensor]]:
    """Random tensors of the traced shapes (zeros for integers), as positional and keyword arguments."""
    generator = torch.Generator().manual_seed(seed)
    args: dict[int, Any] = {}
    kwargs: dict[str, Tensor] = {}
    for spec in specs:
        tensor = _example(spec, device, generator)
        if spec.name is not None:
            kwargs[spec.name] = tensor
        elif spec.listed:
            args.setdefault(spec.place, []).append(tensor)
        else:
            args[spec.place] = tensor
    return list(args.values()), kwargs


def _example(spec: InputSpec, device: torch.device | str, generator: torch.Generator) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if torch.device(device).type == "meta" or not dtype.is_floating_point:
        return torch.zeros(spec.shape, dtype=dtype, device=device)
    return torch.randn(spec.shape, generator=generator).to(device, dtype)


# ---- cutting ---------------------------------------------------------------------------------------------------------


def _check_model(model: nn.Module, graph: ChannelGraph) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model)}
    for slot in graph.slots:
        shape = shapes.get(slot.tensor)
        if shape is None or shape[slot.dim] != len(slot.units):
            found = "no such tensor" if shape is None else f"shape {shape}"
            raise InputError(
                f"the model is not the one that was traced: {found}",
                where=slot.tensor,
                allowed=f"size {len(slot.units)} along dimension {slot.dim}",
            )


def cut_tensor(tensor: Tensor, cuts: Sequence[Cut]) -> Tensor:
    """A copy of the indices that stay along each dimension that is cut."""
    if not cuts:
        return tensor.clone(memory_format=torch.preserve_format)
    if tensor.is_meta:
        kept = {dim: len(indices) for dim, indices in cuts}
        shape = [kept.get(dim, size) for dim, size in enumerate(tensor.shape)]
        return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    return select(tensor, [(dim, torch.from_numpy(indices).to(tensor.device)) for dim, indices in cuts])


@dataclass(frozen=True)
class AllKept:
    """The entries of all slots of a graph that stay, slot after slot.

    Fields: `units`, who owns each; `indices`, where it lies in its slot; slot i has those from ends[i] to ends[i+1].
    """

    units: Ints
    indices: Ints
    ends: Ints

    def cuts(self, graph: ChannelGraph) -> dict[str, list[Cut]]:
        """Tensor -> what stays along each of its dimensions that loses entries."""
        found: dict[str, list[Cut]] = {}
        for slot, (start, stop) in zip(graph.slots, pairwise(self.ends.tolist()), strict=True):
            if stop - start != len(slot.units):
                found.setdefault(slot.tensor, []).append((slot.dim, self.indices[start:stop]))
        return found


def all_kept(graph: ChannelGraph, stays: np.ndarray) -> AllKept:
    """`kept_entries` of every slot at once: 5 us less for each of some hundred slots."""
    units, indices, begins = graph.entries
    staying = np.append(stays, True)[units]  # the last answers for -1
    return AllKept(units[staying], indices[staying], np.append(0, np.cumsum(staying))[begins])


def kept_entries(units: Ints, stays: np.ndarray) -> Ints:
    """Indices along a slot that stay: those without a unit (-1) and those whose unit stays."""
    return np.flatnonzero((units < 0) | stays[units])


def zeroed(tensor: Tensor, slots: Iterable[Slot], stays: np.ndarray) -> Tensor:
    """A copy with zeros wherever a unit that does not stay owns an entry."""
    result = tensor.clone()
    for slot in slots:
        gone = np.setdiff1d(np.arange(len(slot.units)), kept_entries(slot.units, stays))
        result.index_fill_(slot.dim, torch.from_numpy(gone).to(tensor.device), 0)
    return result


def _rescale(pruned: nn.Module, graph: ChannelGraph, stays: np.ndarray) -> None:
    """Take back what the model's code makes of its smaller widths (see `graph.Scale`)."""
    tensors = dict(named_tensors(pruned)) if graph.scales else {}
    dense = {(slot.tensor, slot.dim): slot.units for slot in graph.slots}
    for scale in graph.scales:
        share = len(kept_entries(scale.units, stays)) / len(scale.units)
        units = dense.get((scale.tensor, scale.dim))
        kept = np.arange(tensors[scale.tensor].shape[scale.dim]) if units is None else kept_entries(units, stays)
        places = torch.from_numpy(np.flatnonzero(np.isin(kept, scale.entries)))
        if share != 1:
            rows = tensors[scale.tensor].detach().movedim(scale.dim, 0)  # a view: what is written here is the tensor's
            rows[places.to(rows.device)] *= share**-scale.power


def sizes_after(graph: ChannelGraph, stays: np.ndarray) -> dict[str, dict[str, list[int]]]:
    """Module -> attribute -> the numbers it holds in the model cut to the units that stay; only those that change."""
    sizes: dict[str, dict[str, list[int]]] = {}
    for attribute in graph.attributes:
        counts = [len(kept_entries(units, stays)) for units in attribute.parts]
        if counts != [len(units) for units in attribute.parts]:
            sizes.setdefault(attribute.module, {})[attribute.name] = counts
    return sizes


def sync_sizes(pruned: nn.Module, sizes: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Attributes that repeat a weight's shape, and those in `sizes`, become true: for printing, scripting, pruning."""
    modules = dict(pruned.named_modules())
    for path, own in sizes.items():
        for name, counts in own.items():
            held = getattr(modules[path], name)
            setattr(modules[path], name, type(held)(counts) if isinstance(held, (list, tuple)) else counts[0])
    for module in modules.values():
        for name, count in _counted_by_weights(module).items():
            if getattr(module, name) != count:  # setting an attribute of a module takes 1 us, reading one 0.1
                setattr(module, name, count)


def _counted_by_weights(module: nn.Module) -> dict[str, int]:
    """Attributes whose values the shapes of the module's own tensors imply."""
    if isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = module.weight.shape[0], module.weight.shape[1] * module.groups
        inside, outside = (rows, columns) if module.transposed else (columns, rows)
        return {"in_channels": inside, "out_channels": outside}
    if isinstance(module, nn.Linear):
        return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        vector = module.weight if module.running_mean is None else module.running_mean
        return {} if vector is None else {"num_features": len(vector)}
    return {"num_parameters": len(module.weight)} if isinstance(module, nn.PReLU) else {}


# ---- folding constants -----------------------------------------------------------------------------------------------


class _Reader(TorchDispatchMode):
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
            self._convolution(args, out)
        elif name in ("addmm", "mm"):
            self._linear(args, out)
        elif "batch_norm" in name:
            self._norm(args)
        return out

    def _convolution(self, args, out) -> None:  # type: ignore[no-untyped-def]
        x, weight, bias, stride, transposed, groups = args[0], args[1], args[2], args[3], args[6], args[8]
        if weight.data_ptr() not in self.gone:
            return
        name, lost = self.gone[weight.data_ptr()]
        if transposed:  # (in, out / groups, …) -> (out, in / groups, …); of its taps an output sees one in `stride`
            weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1) / prod(stride)
            lost = lost[lost < weight.shape[1]]  # the same offsets go out of every group
        constant = _constant(x).reshape(groups, -1).index_select(1, lost)
        kernel = weight.index_select(1, lost).flatten(2).sum(2)
        delta = torch.einsum("gol,gl->go", kernel.reshape(groups, -1, len(lost)), constant).flatten()
        self._note(name, delta, bias is not None, out)

    def _linear(self, args, out) -> None:  # type: ignore[no-untyped-def]
        x, weight = args[-2:]
        if weight.data_ptr() not in self.gone:
            return
        name, lost = self.gone[weight.data_ptr()]
        delta = _constant(x).index_select(0, lost) @ weight.index_select(0, lost)
        self._note(name, delta, len(args) == 3, out)

    def _note(self, name: str, delta: Tensor, has_bias: bool, out: Tensor) -> None:
        if name in self.deltas and not torch.allclose(self.deltas[name], delta, atol=1e-6):
            delta = torch.zeros_like(delta)  # a shared layer that sees different constants: no one bias is right
        self.deltas[name] = delta
        self._outputs[id(out)] = (out, name)
        if has_bias:
            self.has_bias.add(name)

    def _norm(self, args) -> None:  # type: ignore[no-untyped-def]
        source, mean = args[0], args[3]
        if id(source) in self._outputs and mean is not None and mean.data_ptr() in self.names:
            self.norm_of[self._outputs[id(source)][1]] = self.names[mean.data_ptr()]


def _constant(x: Tensor) -> Tensor:
    """The value of each channel of (N, C, …), shape (C,); 0 where two places inside differ: no constant, no folding."""
    middle, beside = (x[(n, slice(None), *((size - n * n) // 2 for size in x.shape[2:]))] for n in (0, -1))
    return torch.where(torch.isclose(middle, beside, rtol=1e-4, atol=1e-6), middle, 0)


def _constants(model: nn.Module, graph: ChannelGraph, stays: np.ndarray) -> dict[str, tuple[str, Tensor]]:
    """Weight name -> (`bias` or the name of a running mean, what the lost inputs add to each kept output)."""
    slots = graph.slots_by_tensor
    quiet = copy_with(model, lambda name, t: _silenced(t, slots.get(name, ()), stays)).eval()
    tensors = dict(named_tensors(quiet))
    reader = _Reader(
        {tensors[name].data_ptr(): (name, lost) for name, lost in _lost_inputs(graph, stays, tensors)},
        {tensor.data_ptr(): name for name, tensor in tensors.items()},
    )
    device = next(iter(tensors.values())).device
    args, kwargs = example_inputs(graph.inputs, device)
    with torch.no_grad(), reader:
        quiet(*args, **kwargs)
    return {
        name: _destination(name, delta, reader, graph, stays) for name, delta in reader.deltas.items() if delta.any()
    }


def _silenced(tensor: Tensor, slots: Iterable[Slot], stays: np.ndarray) -> Tensor:
    filters = [slot for slot in slots if slot.role in ("out", "bias") and not stays[slot.units[slot.units >= 0]].all()]
    return zeroed(tensor, filters, stays) if filters else tensor


def _lost_inputs(graph: ChannelGraph, stays: np.ndarray, tensors: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    mixed = [units.ravel() for mixer in graph.mixers for _, units in mixer.blocks]
    foldable = ~stays
    foldable[np.concatenate(mixed) if mixed else []] = False  # what went through a norm over channels is no constant
    for slot in graph.slots:
        lost = np.flatnonzero((slot.units >= 0) & foldable[slot.units])
        if slot.role == "in" and len(lost):
            yield slot.tensor, torch.from_numpy(lost).to(tensors[slot.tensor].device)


def _destination(
    name: str, delta: Tensor, reader: _Reader, graph: ChannelGraph, stays: np.ndarray
) -> tuple[str, Tensor]:
    for slot in graph.slots_by_tensor[name]:
        if slot.role == "out":
            delta = delta[torch.from_numpy(kept_entries(slot.units, stays)).to(delta.device)]
    norm = reader.norm_of.get(name)
    return ("bias", delta) if norm is None or name in reader.has_bias else (norm, delta)


def _correct(pruned: nn.Module, weight: str, target: str, delta: Tensor) -> None:
    path, _, leaf = weight.rpartition(".")
    module = pruned.get_submodule(path)
    if target != "bias":
        pruned.get_buffer(target).sub_(delta)
    elif leaf == "weight" and getattr(module, "bias", None) is not None:
        module.bias.data.add_(delta)
    elif leaf == "weight" and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        module.bias = nn.Parameter(delta.clone())
