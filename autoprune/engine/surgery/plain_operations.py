"""Operations as traces and masks see them: attention and weight norm as what they consist of, not as fused kernels."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

#: Where the old hook of weight norm has its own name for it; the function of the same name hides the module.
_HOOK = importlib.import_module("torch.nn.utils.weight_norm")


@contextmanager
def plain_operations() -> Iterator[None]:
    """Within it attention is computed by matrix products and softmax, and weight norm by a norm and a product.

    Fused kernels and fast paths hide the operations they consist of, and there are others on other devices. torchvision
    compares the boxes of all classes at once or class by class, by their number and the device; here always at once.
    """
    with _boxes_compared_at_once():
        yield from _plain_attention_and_norms()


@contextmanager
def _boxes_compared_at_once() -> Iterator[None]:
    boxes = sys.modules.get("torchvision.ops.boxes")
    if boxes is None:
        yield
        return
    before = boxes.batched_nms
    boxes.batched_nms = boxes._batched_nms_coordinate_trick
    try:
        yield
    finally:
        boxes.batched_nms = before


def _plain_attention_and_norms() -> Iterator[None]:
    fast, fused_norm = torch.backends.mha.get_fastpath_enabled(), torch._weight_norm
    torch.backends.mha.set_fastpath_enabled(False)
    for module in (torch, _HOOK):
        module._weight_norm = _plain_weight_norm
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module in (torch, _HOOK):
            module._weight_norm = fused_norm


def _plain_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / |v| with norms over all dimensions but `dim`, or over all if that is -1; zero where v is."""
    norm = norm_beside(v, dim)
    return g / (norm + (norm == 0)) * v


def norm_beside(v: Tensor, dim: int) -> Tensor:
    """The norms of a tensor's parts along `dim`, with all dimensions kept; of the whole, (), if that is -1."""
    return v.norm() if dim == -1 else v.norm(2, [d for d in range(v.dim()) if d != dim % v.dim()], keepdim=True)
