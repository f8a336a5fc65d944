"""How many trainings should share one GPU, by measurement.

A small network leaves most of a card idle. Of ResNet-20 an H100 made 49,100 images a second in one training, 62,800 in
two, 82,500 in four, 91,700 in eight and 92,300 in sixteen, each a CUDA graph on a stream of its own; layer by layer
11,000 in one process, some 34,000 in four and 44,000 to 50,000 in eight. A sketch of this code measured that;
`analysis/benchmarks/gpu.py` is to measure it with the code itself.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from autoprune.training.captured import CaptureError, capture
from autoprune.training.memory import GIB
from autoprune.training.protocols import Batch, TrainingTask
from autoprune.training.runtime import Runtime, first_batch, gradient_pass
from autoprune.training.seeds import seeded_randomness

#: More trainings than this gave no more.
MOST = 8
#: Fewer are not tried where two have room: between its steps a trial leaves the card idle.
FEWEST = 2
#: Twice as many pay if together they do so many times as much: each takes memory, and a core.
LEAST_GAIN = 1.1
#: What a trial takes of the memory, relative to what the gradients of a batch of the dense model take: it has an
#: optimiser, an average, a teacher and scores as well.
MARGIN = 2.0
#: What CUDA itself takes in a process, in bytes; eight trials of ResNet-20 took 10.5 GB in all.
CONTEXT = GIB
#: So long, in seconds, is measured each time.
SECONDS = 0.2

Replay = Callable[[], None]


def trainings_that_pay(
    model: nn.Module, task: TrainingTask, batch_size: int, runtime: Runtime, memory: float | None = None
) -> int:
    """How many trainings of this model should share the GPU of the runtime, at least one.

    As many copies of the model compute gradients at the same time, each captured and on a stream of its own; twice as
    many pay while they give a tenth more. What cannot be captured waits for launches most of the time, so that as many
    pay as have room.

    Args:
        memory: GiB that a training may take; None = what it is measured to take.
    """
    device, batch = runtime.device, first_batch(task, batch_size, runtime.device)
    with runtime.limits(), seeded_randomness(0, device):
        torch.cuda.reset_peak_memory_stats(device)
        try:
            first = _captured(model, task, batch, runtime)
        except CaptureError:
            gradient_pass(_copy(model, runtime), task, batch, runtime)()  # so that its memory is counted
            return min(MOST, _with_room(device, memory))
        most = min(MOST, _with_room(device, memory))
        more = (_captured(model, task, batch, runtime) for _ in range(most - 1))
        pays = _doublings_that_pay(most, [first], lambda: next(more), device)
    return min(most, max(FEWEST, pays))


def _captured(model: nn.Module, task: TrainingTask, batch: Batch, runtime: Runtime) -> Replay:
    if not runtime.graphs:
        raise CaptureError("its trainings are not captured either")
    return capture(gradient_pass(_copy(model, runtime), task, batch, runtime), runtime.device, lambda: None)[0]


def _copy(model: nn.Module, runtime: Runtime) -> nn.Module:
    return runtime.place(copy.deepcopy(model)).train()


def _with_room(device: str, memory: float | None) -> int:
    """How many trainings have room in the GPU's memory; what has been asked for so far is one's own."""
    free, _ = torch.cuda.mem_get_info(device)
    available = free + torch.cuda.memory_reserved(device)
    needed = MARGIN * torch.cuda.max_memory_allocated(device) + CONTEXT if memory is None else memory * GIB
    return max(1, int(available / needed))


def _doublings_that_pay(most: int, replays: list[Replay], another: Callable[[], Replay], device: str) -> int:
    count, speed = 1, _passes_a_second(replays, device)
    while 2 * count <= most:
        replays += [another() for _ in range(count)]
        doubled = _passes_a_second(replays, device)
        if doubled < LEAST_GAIN * speed:
            break
        count, speed = 2 * count, doubled
    return count


def _passes_a_second(replays: Sequence[Replay], device: str) -> float:
    """Of all together, each on a stream of its own."""
    streams = [torch.cuda.Stream(device) for _ in replays]

    def seconds(rounds: int) -> float:
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(rounds):
            for replay, stream in zip(replays, streams, strict=True):
                with torch.cuda.stream(stream):
                    replay()
        torch.cuda.synchronize(device)
        return time.perf_counter() - began

    seconds(1)  # the first replay loads its kernels
    rounds = max(1, round(SECONDS / max(seconds(1), 1e-6)))
    return rounds * len(replays) / seconds(rounds)
