"""Cuts of single tensors: which entries stay along which dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph, InputSpec, Ints, Slot, with_fixed
from autoprune.engine.surgery.copying import copy_module, select

Replace = Callable[[str, Tensor], Tensor]

Cut = tuple[int, Ints]


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
        tensor = _example_tensor(spec, device, generator)
        if spec.name is not None:
            kwargs[spec.name] = tensor
        elif spec.listed:
            args.setdefault(spec.place, []).append(tensor)
        else:
            args[spec.place] = tensor
    return list(args.values()), kwargs


def _example_tensor(spec: InputSpec, device: torch.device | str, generator: torch.Generator) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if torch.device(device).type == "meta" or not dtype.is_floating_point:
        return torch.zeros(spec.shape, dtype=dtype, device=device)
    return torch.randn(spec.shape, generator=generator).to(device, dtype)


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

    Fields: `units`, the owner of each; `indices`, its place in its slot; slot i has those from ends[i] to ends[i+1].
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
    staying = with_fixed(stays, True)[units]
    return AllKept(units[staying], indices[staying], np.append(0, np.cumsum(staying))[begins])


def kept_entries(units: Ints, stays: np.ndarray) -> Ints:
    """Indices along a slot that stay: those without a unit (-1) and those whose unit stays."""
    return np.flatnonzero(kept_mask(units, stays))


def kept_mask(units: Ints, stays: np.ndarray) -> np.ndarray:
    """Whether each entry stays, bool of the shape of `units`: those without a unit (-1) and those whose unit stays."""
    mask: np.ndarray = (units < 0) | stays[units]
    return mask


def zeroed(tensor: Tensor, slots: Iterable[Slot], stays: np.ndarray) -> Tensor:
    """A copy with zeros wherever a unit that does not stay owns an entry."""
    result = tensor.clone()
    for slot in slots:
        gone = np.setdiff1d(np.arange(len(slot.units)), kept_entries(slot.units, stays))
        result.index_fill_(slot.dim, torch.from_numpy(gone).to(tensor.device), 0)
    return result
