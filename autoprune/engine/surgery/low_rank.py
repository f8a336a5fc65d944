"""A layer as two of lower rank, and two as one. The inner channels are pruned like any others: that is their rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from autoprune.engine.graph import ChannelGraph, Slot, with_fixed
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.copying import copy_module
from autoprune.engine.surgery.tensors import kept_mask
from autoprune.errors import InputError

INITS = ("svd", "identity")


class Decomposed(nn.Sequential):
    """What a convolution or linear layer becomes: `basis`, of its own kernel and without bias, then `mix`, of kernel 1.

    As long as no inner channel is pruned it computes what the layer did; with r of them it costs r / n + r / K of it,
    for n filters of K weights.
    """

    basis: nn.Module
    mix: nn.Module

    def __init__(self, basis: nn.Module, mix: nn.Module) -> None:
        super().__init__()
        self.add_module("basis", basis)
        self.add_module("mix", mix)


def decomposable(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that can be decomposed: linear ones and convolutions of one group, not transposed."""
    inside = {f"{path}.{name}" for path, m in model.named_modules() if isinstance(m, Decomposed) for name in m._modules}
    return tuple(
        path for path, module in model.named_modules() if _can_decompose(module) and path not in inside and path
    )


def decomposed(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that are decomposed."""
    return tuple(path for path, module in model.named_modules() if isinstance(module, Decomposed))


def inner_channels(model: nn.Module) -> dict[str, int]:
    """The decomposed layers and their inner channels."""
    return {path: len(model.get_parameter(f"{path}.basis.weight")) for path in decomposed(model)}


def decompose(model: nn.Module, layers: Iterable[str], init: str = "svd") -> nn.Module:
    """A new model that computes the same, with these layers decomposed at full rank.

    Args:
        init: `svd`: basis = V^T, mix = U S of the filters' matrix U S V^T, so that an inner channel weighs as much as
            its singular value; `identity`: basis = the filters themselves, mix = I.

    Raises:
        InputError: a name that `decomposable` does not list, or an unknown `init`.
    """
    if init not in INITS:
        raise InputError(f"unknown start {init!r}", where="decompose", allowed=", ".join(INITS))
    result = copy_module(model, {})
    for path in layers:
        layer = _checked_layer(result, path)
        basis, mix = _svd_factors(_filter_matrix(layer)) if init == "svd" else _identity_factors(_filter_matrix(layer))
        _replace_layer(result, path, _decomposed_layer(layer, basis, mix))
    return result


def hollow(model: nn.Module, ranks: Mapping[str, int]) -> nn.Module:
    """A new model with these layers decomposed at these ranks, their weights left at zero: to load others into."""
    result = copy_module(model, {})
    for path, rank in ranks.items():
        layer = _checked_layer(result, path)
        matrix = _filter_matrix(layer)
        basis, mix = matrix.new_zeros(rank, matrix.shape[1]), matrix.new_zeros(len(matrix), rank)
        _replace_layer(result, path, _decomposed_layer(layer, basis, mix))
    return result


def recompose(model: nn.Module, layers: Iterable[str]) -> nn.Module:
    """A new model in which these decomposed layers are single ones again; computes the same."""
    result = copy_module(model, {})
    for path in layers:
        pair = result.get_submodule(path)
        if not isinstance(pair, Decomposed):
            raise InputError(
                f"layer {path!r} is not decomposed", where="recompose", allowed=", ".join(decomposed(result))
            )
        basis, mix = pair.basis, pair.mix
        weight = _filter_matrix(mix) @ _filter_matrix(basis)
        weight = weight.reshape(len(weight), *basis.weight.shape[1:])  # type: ignore[union-attr,operator,arg-type]
        _replace_layer(result, path, _layer_like(basis, weight, _joint_bias(basis, mix)))
    return result


def with_other_layers(keep: Keep, graph: ChannelGraph, other: ChannelGraph) -> Keep:
    """What `keep` keeps of one graph, said of another one of the same network with other layers decomposed.

    Inner channels that only the other graph has are all kept.
    """
    before, after = with_fixed(keep.units(graph), True), np.ones(other.unit_count + 1, dtype=bool)
    for slot in other.slots:
        found = [graph.slot(name, slot.dim) for name in _possible_names(slot)]
        same = next((place for place in found if place is not None), None)
        if same is not None:
            after[slot.units] &= before[same.units]
    stays = {group.id: np.flatnonzero(after[group.units]).tolist() for group in other.prunable}
    return Keep.of({group: kept for group, kept in stays.items() if len(kept) < other.by_id[group].size})


def _possible_names(slot: Slot) -> tuple[str, ...]:
    """The names that a slot's tensor has if its layer is as it is, is decomposed, or is single.

    A basis has the layer's inputs (dimension 1), a mix its filters and their biases (dimension 0).
    """
    layer, _, leaf = slot.tensor.rpartition(".")
    half = ".basis" if slot.dim == 1 else ".mix"
    single = (f"{layer.removesuffix(half)}.{leaf}",) if layer.endswith(half) else ()
    return (slot.tensor, f"{layer}{half}.{leaf}", *single)


def unprofitable(model: nn.Module, graph: ChannelGraph, keep: Keep) -> tuple[str, ...]:
    """Of the decomposed layers, those that would cost no less than a single layer at the widths of `keep`.

    With r inner channels, n filters and K weights each: r (K + n) >= K n.
    """
    stays = keep.units(graph)

    def width(tensor: str, dim: int) -> int:
        slot = graph.slot(tensor, dim)
        return int(model.get_parameter(tensor).shape[dim] if slot is None else kept_mask(slot.units, stays).sum())

    found = []
    for path in decomposed(model):
        basis, mix = f"{path}.basis.weight", f"{path}.mix.weight"
        rank, filters = width(basis, 0), width(mix, 0)
        entries = width(basis, 1) * prod(model.get_parameter(basis).shape[2:])
        if rank * (entries + filters) >= entries * filters:
            found.append(path)
    return tuple(found)


def _can_decompose(module: nn.Module) -> bool:
    plain = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == 1
    return plain or type(module) is nn.Linear


def _checked_layer(model: nn.Module, path: str) -> nn.Module:
    if path not in decomposable(model):
        allowed = ", ".join(decomposable(model)) or "the model has no such layer"
        raise InputError(f"layer {path!r} cannot be decomposed", where="decompose", allowed=allowed)
    return model.get_submodule(path)


def _filter_matrix(layer: nn.Module) -> Tensor:
    """The filters, (filters, weights of each), detached."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator,union-attr,assignment]
    return weight.reshape(len(weight), -1)


def _joint_bias(basis: nn.Module, mix: nn.Module) -> Tensor | None:
    """What the two add to every output; a basis has a bias if constants of pruned channels were folded into it."""
    inner: Tensor | None = basis.bias  # type: ignore[assignment]
    outer: Tensor | None = mix.bias  # type: ignore[assignment]
    if inner is None:
        return outer
    through = _filter_matrix(mix) @ inner.detach()
    return through if outer is None else outer.detach() + through


def _svd_factors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return right.to(matrix.dtype), (left * values).to(matrix.dtype)


def _identity_factors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return matrix.clone(), torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def _decomposed_layer(layer: nn.Module, basis: Tensor, mix: Tensor) -> Decomposed:
    first = _layer_like(layer, basis.reshape(len(basis), *layer.weight.shape[1:]), None)  # type: ignore[union-attr,operator]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    if isinstance(layer, nn.Linear):
        return Decomposed(first, _with_weights(nn.Linear(len(basis), len(mix), bias=bias is not None), mix, bias))
    last = type(layer)(len(basis), len(mix), 1, bias=bias is not None)  # type: ignore[operator]
    return Decomposed(first, _with_weights(last, mix.reshape(last.weight.shape), bias))


def _layer_like(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A layer that works as this one does, with other filters."""
    if isinstance(layer, nn.Linear):
        return _with_weights(nn.Linear(weight.shape[1], len(weight), bias=bias is not None), weight, bias)
    assert isinstance(layer, _ConvNd)
    options = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    return _with_weights(type(layer)(weight.shape[1], len(weight), bias=bias is not None, **options), weight, bias)


def _with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.to(device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)  # type: ignore[union-attr,operator]
        if bias is not None:
            layer.bias.copy_(bias)  # type: ignore[union-attr,operator]
    return layer


def _replace_layer(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    module.train(owner.training)
    setattr(owner, name, module)
