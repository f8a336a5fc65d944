"""Models of unchanged shape in which the pruned units are zero: what a cut model is held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.engine.graph import ChannelGraph, ComputedWeight, CrossChannelCall
from autoprune.engine.keep import Keep
from autoprune.engine.operations import counted_as, operation_name
from autoprune.engine.surgery.computed_weights import compensated
from autoprune.engine.surgery.folding import with_added_biases
from autoprune.engine.surgery.module_paths import paths_followed
from autoprune.engine.surgery.plain_operations import plain_operations
from autoprune.engine.surgery.tensors import copy_with, kept_mask, zeroed


def mask(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """A new model of the same shape in which every entry that the pruned units own is zero.

    In eval mode it computes what `prune(model, graph, keep, fold=False)` computes: the law the engine is tested on.
    Norms and means over channels see only those that stay, and weights that are computed from parameters are zeroed
    where they are used; this holds for forward passes, not for gradients.
    """
    stays = keep.units(graph)
    slots = with_added_biases(graph, model).slots_by_tensor
    scaled = compensated(model, graph, stays)
    kept = (
        ("scale",) if graph.computed_weights else ()
    )  # weights are divided by it; with statistics and shift 0 comes 0
    masked = copy_with(
        model,
        lambda name, tensor: zeroed(
            scaled.get(name, tensor), [s for s in slots.get(name, ()) if s.role not in kept], stays
        ),
    )
    across = {(call.name, call.index): call for call in graph.cross_channel if _loses_entries(call, stays)}
    weights = {(w.module, w.name, w.index): w for w in graph.computed_weights if _loses_entries(w, stays)}
    if across or weights:
        _run_within(masked, lambda: KeptOnly(across, weights, stays))
    return masked


def silence(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """A new model of the same shape in which only filters and biases of the pruned units are zero; norms still shift.

    In eval mode and away from zero-padded borders it computes what `prune(model, graph, keep)` computes.
    """
    stays = keep.units(graph)
    slots = with_added_biases(graph, model).slots_by_tensor
    return copy_with(
        model, lambda name, t: zeroed(t, [s for s in slots.get(name, ()) if s.role in ("out", "bias")], stays)
    )


def _loses_entries(call: CrossChannelCall | ComputedWeight, stays: np.ndarray) -> bool:
    return any(not kept_mask(units, stays).all() for _, units in call.blocks)


def _run_within(model: nn.Module, context: Callable[[], KeptOnly]) -> None:
    """Every forward pass of the model runs in a context of its own, with attention as the trace has seen it."""
    entered: list[ExitStack] = []
    inner = {path: module for path, module in model.named_modules() if path}

    def enter(_module: nn.Module, _args: object) -> None:
        entered.append(ExitStack())
        entered[-1].enter_context(plain_operations())
        mode = entered[-1].enter_context(context())
        entered[-1].enter_context(paths_followed(inner, partial(setattr, mode, "path")))

    def leave(_module: nn.Module, _args: object, _out: object) -> None:
        entered.pop().close()

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)


_NORMS = ("native_layer_norm", "_fused_rms_norm", "rms_norm")

_SHAPE_KEEPING = (*_NORMS, "native_group_norm", "_softmax", "_log_softmax", "_safe_softmax", "native_batch_norm")


_POOLS = ("avg_pool2d", "avg_pool3d")


class KeptOnly(TorchDispatchMode):
    """Lets cross-channel operations see only the entries that stay, the others come out as zeros; and zeroes weights.

    Args:
        across: by operation and number of its call. A forward pass counts the calls anew.
        weights: by module, operation and number of its call in there; see `ComputedWeight`.

    `path` is the module whose forward runs.
    """

    def __init__(
        self,
        across: Mapping[tuple[str, int], CrossChannelCall],
        weights: Mapping[tuple[str, str, int], ComputedWeight],
        stays: np.ndarray,
    ) -> None:
        super().__init__()
        self.across, self.weights, self.stays = across, weights, stays
        self.path = ""
        self.counts: Counter[str] = Counter()
        self.counts_within: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = operation_name(func)
        key = (name, self.counts[name])
        within = (self.path, counted_as(name))
        weight = self.weights.get((*within, self.counts_within[within]))
        self.counts[name] += 1
        self.counts_within[within] += 1
        if weight is not None:
            args = _with_zeroed_weight(args, weight, self.stays)
        call = self.across.get(key)
        if call is None:
            return func(*args, **(kwargs or {}))
        x = args[0]
        kept = {d: torch.from_numpy(entries).to(x.device) for d, entries in _kept_along(call, self.stays).items()}
        small = _select_entries(x, kept)
        out = func(*_with_source(name, args, small, kept), **(kwargs or {}))
        first = out[0] if isinstance(out, tuple) else out
        if name in _SHAPE_KEEPING:
            first = _scatter_entries(first, x, kept)
        elif name in _POOLS:
            first = _scatter_middles(first, args, kept)
        return (first, *out[1:]) if isinstance(out, tuple) else first


def _with_zeroed_weight(args, weight: ComputedWeight, stays: np.ndarray):  # type: ignore[no-untyped-def]
    """The arguments of a layer's call with its weight zero where pruned units own an entry."""
    tensor = args[weight.argument]
    for dims, units in weight.blocks:
        shape = [tensor.shape[d] if d in dims else 1 for d in range(-tensor.dim(), 0)]
        gone = torch.from_numpy(~kept_mask(units, stays).transpose(np.argsort(dims))).reshape(shape)
        tensor = tensor.masked_fill(gone.to(tensor.device), 0)
    return (*args[: weight.argument], tensor, *args[weight.argument + 1 :])


def _kept_along(call: CrossChannelCall, stays: np.ndarray) -> dict[int, np.ndarray]:
    """The entries that stay along every labelled dimension that the call works over: those that stay in some row."""
    kept: dict[int, np.ndarray] = {}
    for dim in call.over:
        masks = [
            kept_mask(units, stays).any(axis=tuple(i for i, d in enumerate(dims) if d != dim))
            for dims, units in call.blocks
            if dim in dims
        ]
        if masks:
            kept[dim] = np.flatnonzero(np.logical_and.reduce(masks))
    return kept


def _with_source(name: str, args, small: Tensor, kept: Mapping[int, Tensor]):  # type: ignore[no-untyped-def]
    """The arguments of a cross-channel call with a smaller source, and norm parameters to fit it."""
    if name == "native_group_norm":
        vectors = [None if v is None else v.index_select(0, kept[1]) for v in args[1:3]]
        return (small, *vectors, args[3], small.shape[1], small.shape[2:].numel(), *args[6:])
    if name not in _NORMS:
        return (small, *args[1:])
    start = small.dim() - len(args[1])
    inner = {dim - start: index for dim, index in kept.items()}
    rest = [_select_entries(value, inner) if isinstance(value, Tensor) else value for value in args[2:]]
    return (small, list(small.shape[start:]), *rest)


def _select_entries(tensor: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    for dim, index in kept.items():
        tensor = tensor.index_select(dim, index)
    return tensor


def _scatter_entries(part: Tensor, like: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    """`part` in a tensor of zeros of the shape of `like`."""
    for dim, index in kept.items():
        shape = list(part.shape)
        shape[dim] = like.shape[dim]
        part = part.new_zeros(shape).index_copy(dim, index, part)
    return part


def _scatter_middles(part: Tensor, args: Sequence[Any], kept: Mapping[int, Tensor]) -> Tensor:
    """Windows over the channels that stay, each in the place of the channel in its middle; see `average_pool`."""
    ((dim, index),) = kept.items()
    size = args[1][dim - part.dim()]
    shape = list(part.shape)
    shape[dim] = args[0].shape[dim] - size + 1
    middles = index[size // 2 : size // 2 + part.shape[dim]] - size // 2
    return part.new_zeros(shape).index_copy(dim, middles, part)
