"""Strided 1x1 convolutions of few channels on the CPU, whose gradients oneDNN writes past the end of its workspace.

With fewer input channels than a vector holds and images that are channels-last, `jit_1x1` of oneDNN (3.13, torch 2.15;
its issue 6035) overwrites whatever lies behind its workspace: wrong gradients, processes that crash or hang. Seen on an
AMD EPYC (AVX2) at up to 6 channels with one thread, 10 of 10 times in training the digits' network at 1/16 of its
FLOPs. Shortcuts of pruned ResNets are such layers. A stride of 1 does not need the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: Channels in the widest vector of oneDNN's kernels: float32 with AVX-512.
_VECTOR = 16
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class SafeStrides(TorchFunctionMode):
    """Within it such convolutions read every stride-th pixel first, and then go on with a stride of 1: the same values.

    It is for what computes gradients; where none is asked for, nothing changes.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d:
            given = {**dict(zip(_NAMES, args, strict=False)), **(kwargs or {})}
            if _writes_past_workspace(**given):
                given["input"] = F.avg_pool2d(given["input"], 1, given["stride"])  # slices lose channels-last
                return F.conv2d(**{**given, "stride": 1})
        return func(*args, **(kwargs or {}))


def _writes_past_workspace(
    input: Tensor,  # noqa: A002 - as torch calls it
    weight: Tensor,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    **_others: Any,
) -> bool:
    return (
        _both(stride) != (1, 1)
        and tuple(weight.shape[2:]) == (1, 1)
        and weight.shape[1] < _VECTOR
        and (padding == "valid" or _both(padding) == (0, 0))
        and input.device.type == "cpu"
        and torch.is_grad_enabled()
        and weight.requires_grad
    )


def _both(value: Any) -> tuple[Any, ...]:
    """Of height and width, as convolutions take them."""
    values = (value,) if isinstance(value, int | str) else tuple(value)
    return values * 2 if len(values) == 1 else values
