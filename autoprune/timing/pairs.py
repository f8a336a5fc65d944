"""How long a forward pass takes, measured: a pruned model and the dense one in turns, on the device that trains.

Milliseconds hold for one device and for what else it does meanwhile: trials on one machine share its cores, memory
bandwidth or GPU, so their milliseconds are larger than those of the model alone. The ratio to the dense model is the
better number to search by: both are timed in the same process and in the same moments, so that a slow moment, or a
node of another kind, hits both. It is that of the fastest passes, as other processes only ever add time. A ResNet-20 at
batch 1, timed twelve times on two cores with eight busy processes: the ratio of the fastest of 40 passes deviated by
0.012, the median of the 40 ratios by 0.16, the ratio of the medians by 0.44.

What is timed is the model as it is, module by module in PyTorch: batch norms are not folded, nothing is compiled. On a
GPU a small batch mostly waits for kernels to be launched, which narrower layers do not shorten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn

from autoprune.recipe import stable_hash
from autoprune.training.batch_structure import moved, repeated
from autoprune.training.runtime import Runtime

#: Passes of each model that are not counted: caches fill, and cuDNN looks for its fastest kernels.
WARM_UP = 3

#: So many pairs are timed, and more until the seconds are over.
LEAST, MOST = 7, 200

SECONDS = 0.3


Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a model takes: the median of its milliseconds per forward pass; its fastest relative to the dense one's."""

    ms: float
    ratio: float


#: What a process has that leaves the timing to another one.
NOT_TIMED = Timing(ms=0.0, ratio=0.0)


def measure(
    model: nn.Module,
    dense: nn.Module,
    inputs: tuple[Any, ...],
    runtime: Runtime,
    *,
    clock: Clock = time.perf_counter,
    seconds: float = SECONDS,
) -> Timing:
    """Time forward passes of two models in turns.

    In fp32 whatever the runtime trains with, as that is what is exported, in its memory format, with its threads; on
    GPUs cuDNN may use TF32. The weights do not matter. Both models are placed on the device and left in eval mode.

    Args:
        model, dense: the pruned model and the one it is compared with.
        inputs: of a forward pass, in any structure, on any device.
        runtime: device, memory format and threads.
        clock: seconds; read after the device has finished its work.
        seconds: how long, warm-up not counted; at least `LEAST` pairs are timed however long they take.
    """
    exact = replace(runtime, precision="fp32")
    inputs = exact.arrange(moved(inputs, exact.device))
    pair = [exact.place(each).eval() for each in (dense, model)]
    with torch.inference_mode(), exact.limits():
        for _ in range(WARM_UP):
            _time_each(pair, inputs, exact.device, clock)
        found, end = [], clock() + seconds
        while len(found) < LEAST or (len(found) < MOST and clock() < end):
            pair.reverse()  # who comes second finds other caches than who comes first
            turns = _time_each(pair, inputs, exact.device, clock)
            found.append(turns if len(found) % 2 else turns[::-1])
    other, own = zip(*found, strict=True)
    return Timing(ms=1000 * median(own), ratio=min(own) / min(other))


def _time_each(pair: list[nn.Module], inputs: tuple[Any, ...], device: str, clock: Clock) -> list[float]:
    """What one forward pass of each takes, in their order."""
    times = []
    for model in pair:
        _wait_for_device(device)
        began = clock()
        model(*inputs)
        _wait_for_device(device)
        times.append(clock() - began)
    return times


def _wait_for_device(device: str) -> None:
    """Until the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


class Timer:
    """Times pruned models against one dense model; models of the same widths are timed once.

    Args:
        dense: is copied once something is timed.
        example: the inputs of a forward pass on one image; see `batch_structure.repeated`.
        runtime: see `measure`.
    """

    def __init__(self, dense: Callable[[], nn.Module], example: tuple[Any, ...], runtime: Runtime) -> None:
        self.dense, self.example, self.runtime = dense, example, runtime
        self._placed: nn.Module | None = None
        self._known: dict[str, Timing] = {}

    def time(self, model: nn.Module, batch: int) -> Timing:
        """The timing of a pruned version of the dense model at a batch size."""
        key = stable_hash([batch, {name: list(tensor.shape) for name, tensor in model.state_dict().items()}])
        if key not in self._known:
            if self._placed is None:
                self._placed = self.dense()
            self._known[key] = measure(model, self._placed, repeated(self.example, batch), self.runtime)
        return self._known[key]
