"""Exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of all floating-point tensors of a model, batch-norm statistics included."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in _float_tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average <- decay * average + (1 - decay) * model."""
        now = _float_tensors(model)
        torch._foreach_lerp_(list(self.tensors.values()), [now[name] for name in self.tensors], 1 - self.decay)

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Within it the model has the averaged weights."""
        kept = {name: tensor.detach().clone() for name, tensor in _float_tensors(model).items()}
        self.write(model)
        try:
            yield
        finally:
            _copy_into(model, kept)

    def write(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        _copy_into(model, self.tensors)


def _float_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def _copy_into(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    now = _float_tensors(model)
    for name, tensor in tensors.items():
        now[name].copy_(tensor)
