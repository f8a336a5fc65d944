"""Weights that hooks and parametrisations compute: what is left of them after a cut is as it was.

Weight norm divides by the norm of a whole filter and spectral norm by that of the whole matrix. A cut makes these
smaller and would scale up what stays, so it is taken back: in weight norm's lengths, in spectral norm's left vector
(which power iteration brings back to length 1 when the model is trained again).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.surgery.plain_operations import norm_beside
from autoprune.engine.surgery.tensors import named_tensors, zeroed


@dataclass(frozen=True)
class _Normalised:
    """A weight that is computed by dividing `source` by a norm; `factor` is the tensor that makes up for a cut.

    Fields: the names of these tensors; `dim` of the filters; `vector`, spectral norm's right one, empty in weight norm.
    """

    factor: str
    source: str
    dim: int
    vector: str = ""


def compensated(model: nn.Module, graph: ChannelGraph, stays: np.ndarray) -> dict[str, Tensor]:
    """Tensors of the model to cut or mask in place of its own, so that computed weights stay as they were."""
    found = list(_normalised_weights(model))
    tensors = dict(named_tensors(model)) if found else {}
    result: dict[str, Tensor] = {}
    for weight in found:
        names = (weight.factor, weight.source, weight.vector)
        own = [tensors[name].detach() for name in names if name]
        left = [zeroed(tensors[name].detach(), graph.slots_by_tensor.get(name, ()), stays) for name in names if name]
        if weight.vector:
            scale = _spectral_norm(*own, weight.dim) / _spectral_norm(*left, weight.dim)
        else:
            others = [slot for slot in graph.slots_by_tensor.get(weight.source, ()) if slot.dim != weight.dim]
            scale = norm_beside(zeroed(own[1], others, stays), weight.dim) / norm_beside(own[1], weight.dim)
        result[weight.factor] = own[0] * torch.where(scale.isfinite(), scale, 1)
    return result


def _spectral_norm(left: Tensor, weight: Tensor, right: Tensor, dim: int) -> Tensor:
    return left @ weight.movedim(dim, 0).flatten(1) @ right


def _normalised_weights(model: nn.Module) -> Iterator[_Normalised]:
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for hook in module._forward_pre_hooks.values():
            name = f"{prefix}{getattr(hook, 'name', '')}"
            if isinstance(hook, WeightNorm):
                yield _Normalised(f"{name}_g", f"{name}_v", hook.dim)
            elif isinstance(hook, SpectralNorm):
                yield _Normalised(f"{name}_u", f"{name}_orig", hook.dim, f"{name}_v")
        if is_parametrized(module):
            for name, steps in module.parametrizations.items():
                yield from _parametrised_weights(f"{prefix}parametrizations.{name}", steps)


def _parametrised_weights(path: str, steps: nn.Module) -> Iterator[_Normalised]:
    """Of the steps that compute a weight, the first, which alone sees the parameter as it is."""
    first = next(iter(steps))
    if isinstance(first, _WeightNorm):
        yield _Normalised(f"{path}.original0", f"{path}.original1", first.dim)
    elif isinstance(first, _SpectralNorm) and hasattr(first, "_u"):
        yield _Normalised(f"{path}.0._u", f"{path}.original", first.dim, f"{path}.0._v")


def recompute_attributes(module: nn.Module) -> None:
    """Weights that hooks leave as attributes are computed from the parameters again."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            setattr(module, hook.name, hook.compute_weight(module).detach())
        elif isinstance(hook, SpectralNorm):
            setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False).detach())


@contextmanager
def without_power_iteration(module: nn.Module) -> Iterator[None]:
    """Within it the module's parametrised weights can be read without a step of what trains them."""
    steps = [m for m in module.parametrizations.modules() if m.training] if is_parametrized(module) else []
    for step in steps:
        step.training = False
    try:
        yield
    finally:
        for step in steps:
            step.training = True
