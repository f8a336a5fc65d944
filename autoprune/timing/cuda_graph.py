"""A forward pass as a GPU runs a deployed model: captured once, replayed, timed by the device's own events.

Module by module, a small batch mostly waits for kernels to be launched, and those launches hide what narrower layers
save or cost: at half its FLOPs ResNet-50 takes an H100 1.26 times as long as the dense one (bf16, batch 64), where
eager passes say 1.02.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autoprune.errors import ExportError
from autoprune.training.captured import CaptureError, capture


def captured_pass(model: nn.Module, inputs: tuple[Any, ...], device: str) -> Callable[[], float]:
    """Seconds of one replay of the model's forward pass, by events on the device.

    Args:
        model, inputs: on the device, in the type and memory format that are timed.

    Raises:
        ExportError: the model waits for the device or draws shapes, which no graph holds.
    """

    def forward() -> Any:
        with torch.inference_mode():
            return model(*inputs)

    try:
        replay, outputs = capture(forward, device, lambda: None)
    except CaptureError as error:
        what = f"its forward pass {error}"
        raise ExportError(what, where="latency.runtime", allowed="eager, for such a model") from error
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def run() -> float:
        _ = outputs  # what the graph writes to must live as long as the graph
        began.record()
        replay()
        ended.record()
        torch.cuda.synchronize(device)
        return float(began.elapsed_time(ended)) / 1000

    return run
