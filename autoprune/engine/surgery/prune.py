"""Model + graph + Keep -> a new, smaller model. The model handed in is never touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.computed_weights import compensated, recompute_attributes, without_power_iteration
from autoprune.engine.surgery.folding import apply_correction, find_corrections, with_added_biases
from autoprune.engine.surgery.held_numbers import hold_numbers
from autoprune.engine.surgery.refusals import check_can_be_cut
from autoprune.engine.surgery.tensors import all_kept, copy_with, cut_tensor, kept_entries, named_tensors
from autoprune.errors import InputError


def prune(model: nn.Module, graph: ChannelGraph, keep: Keep, *, fold: bool = True) -> nn.Module:
    """A new model without the channels that `keep` leaves out, in the mode (train or eval) of the old one.

    With `fold`, what a pruned channel still emits once its filter is gone (for instance relu(bn(0))) is added to the
    bias or taken off the running mean of whatever reads it: exact away from zero-padded borders. One forward pass in
    eval mode on a copy with the filters silenced finds these constants. Two kinds of reader are cut without folding:
    a layer that is used several times with different constants, and a weight that is no `weight` of a convolution or
    linear module; batch-norm statistics and fine-tuning have to make up for those.

    Raises:
        InputError: `keep` does not fit the graph, the graph does not fit the model, or the model cannot be cut.
    """
    check_can_be_cut(model)
    stays = keep.units(graph)
    graph = with_added_biases(graph, model)
    _check_model(model, graph)
    corrections = find_corrections(model, graph, stays) if fold and not stays.all() else {}
    cuts = all_kept(graph, stays).cuts(graph)
    scaled = compensated(model, graph, stays)
    pruned = copy_with(model, lambda name, tensor: cut_tensor(scaled.get(name, tensor), cuts.get(name, ())))
    sync_sizes(pruned, sizes_after(graph, stays))
    for path, (target, delta) in corrections.items():
        apply_correction(pruned, path, target, delta)
    _undo_scales(pruned, graph, stays)
    return pruned


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


def _undo_scales(pruned: nn.Module, graph: ChannelGraph, stays: np.ndarray) -> None:
    """Take back what the model's code makes of its smaller widths (see `graph.Scale`)."""
    tensors = dict(named_tensors(pruned)) if graph.scales else {}
    for scale in graph.scales:
        share = len(kept_entries(scale.units, stays)) / len(scale.units)
        slot = graph.slot(scale.tensor, scale.dim)
        kept = np.arange(tensors[scale.tensor].shape[scale.dim]) if slot is None else kept_entries(slot.units, stays)
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
            hold_numbers(modules[path], name, counts)
    for module in modules.values():
        recompute_attributes(module)
        for name, count in _counted_by_weights(module).items():
            if getattr(module, name) != count:  # setting an attribute of a module takes 1 us, reading one 0.1
                setattr(module, name, count)


def _counted_by_weights(module: nn.Module) -> dict[str, int]:
    """Attributes whose values the shapes of the module's own tensors imply."""
    if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
        with without_power_iteration(module):
            rows, columns, *_ = _matrix_shape(module)
        if isinstance(module, nn.Linear):
            return {"out_features": rows, "in_features": columns}
        columns *= module.groups
        inside, outside = (rows, columns) if module.transposed else (columns, rows)
        return {"in_channels": inside, "out_channels": outside}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        vector = module.weight if module.running_mean is None else module.running_mean
        return {} if vector is None else {"num_features": len(vector)}
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return _counted_by_gates(module)
    return {"num_parameters": len(module.weight)} if isinstance(module, nn.PReLU) else {}


def _matrix_shape(module: nn.modules.conv._ConvNd | nn.Linear) -> Sequence[int]:
    """The shape of a layer's weight, or of the largest parameter from which somebody's hook computes it."""
    hooked = [p for p in module._parameters.values() if p is not None and p.dim() > 1]
    if "weight" in module._parameters or is_parametrized(module) or not hooked:
        return module.weight.shape
    return max(hooked, key=torch.numel).shape


_GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}


def _counted_by_gates(module: nn.Module) -> dict[str, int]:
    """Sizes of a recurrent module: its first weight has as many rows as all gates have hidden units."""
    first = module.weight_ih_l0 if isinstance(module, nn.RNNBase) else module.weight_ih
    gates = next((count for kind, count in _GATES.items() if isinstance(module, kind)), 1)
    sizes = {"input_size": first.shape[1], "hidden_size": first.shape[0] // gates}
    return sizes | ({"proj_size": len(module.weight_hr_l0)} if getattr(module, "proj_size", 0) else {})
