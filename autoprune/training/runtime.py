"""Runtime: where and how a network computes, chosen by measurement."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from autoprune.errors import InputError, check_name
from autoprune.training.batch_norm import wide_norms
from autoprune.training.captured import CaptureError, capture
from autoprune.training.protocols import Batch, Forward, TrainingTask
from autoprune.training.seeds import seeded_randomness
from autoprune.training.strided_convolutions import SafeStrides

#: What takes so many times as long as the fastest is out.
TOO_SLOW = 1.5
#: A precision that takes so many times as long in its first pass, in which kernels are made, is not tried again.
HOPELESS = 4.0


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how a network computes.

    Fields:
        precision: `fp32`, or `bf16` = passes in bfloat16 where autocast holds it safe, weights in fp32.
        graphs: steps of a training are captured as CUDA graphs and replayed, where that is possible.
        threads: CPU threads; None = as torch is set.
    """

    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = False
    graphs: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        check_name(self.precision, ("fp32", "bf16"), kind="precision", where="runtime")

    def place(self, model: nn.Module) -> nn.Module:
        """The model itself, moved to the device and memory format."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=layout)

    def arrange(self, batch: Any) -> Any:
        """A batch whose images, (B, C, H, W) float, have the memory format of this runtime; all else is as it was."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format

        def arrange_tensor(tensor: Tensor) -> Tensor:
            is_image = tensor.dim() == 4 and tensor.is_floating_point()
            return tensor.contiguous(memory_format=layout) if is_image else tensor

        return tree_map_only(Tensor, arrange_tensor, batch)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the model's forward pass runs."""
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bf16")

    def forward_of(self, model: Forward) -> Forward:
        """A function that calls the model in the precision of this runtime."""

        def forward(*arguments: Any, **named: Any) -> Any:
            with self.autocast():
                return model(*arguments, **named)

        return forward

    @contextlib.contextmanager
    def training(self, model: nn.Module) -> Iterator[None]:
        """Within it the model's layers train with the kernels that are fast here, and right."""
        with self.gradients(), wide_norms(model) if self._has_wide_norms() else contextlib.nullcontext():
            yield

    def gradients(self) -> contextlib.AbstractContextManager[Any]:
        """Within it gradients are computed with kernels that are right."""
        return SafeStrides() if self.device == "cpu" else contextlib.nullcontext()

    def _has_wide_norms(self) -> bool:
        return self.device == "cpu" and self.channels_last

    @contextlib.contextmanager
    def limits(self) -> Iterator[None]:
        """Within it torch uses `threads` CPU threads, and cuDNN looks for its fastest kernels."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
                yield
        finally:
            torch.set_num_threads(before)


def pick_device(device: str = "auto") -> str:
    """`auto` = the GPU if there is one; anything else is checked and returned.

    Raises:
        InputError: torch does not know the device, or this machine does not have it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"no device {device!r}: {str(error).splitlines()[0]}", allowed="auto, cpu, cuda, cuda:N"
        ) from error
    return device


def choose_runtime(
    model: nn.Module,
    task: TrainingTask,
    batch_size: int,
    device: str = "auto",
    threads: int | None = None,
    *,
    known: Runtime | None = None,
) -> Runtime:
    """The fastest way to train this model at this batch, by measurement: fp32 or bf16, channels-last or not.

    What is measured runs as the training will, on a GPU as a graph: launches of single kernels hide what bf16 saves
    there. bf16 is taken only where it wins by 10 %; so is the layout that is not channels-last. The model is left as it
    is.

    Args:
        task: its loss is measured on its first training images.
        known: how others have computed with whom this is to agree; it is taken unless it cannot be had here, or takes
            `TOO_SLOW` times as long as the fastest. A processor without bf16 takes ten times as long with it as in
            fp32 (8.6 s and 0.83 s a pass; ResNet-20, batch of 128, one thread of an AMD EPYC).
    """
    device = pick_device(device)
    batch = first_batch(task, batch_size, device)
    formats = [(precision, layout) for precision in task.precisions for layout in (True, False)]
    common: dict[str, Any] = {"device": device, "graphs": device != "cpu" and task.same_shapes, "threads": threads}
    options = [Runtime(precision=precision, channels_last=layout, **common) for precision, layout in formats]
    seconds = _measure_seconds(model, task, batch, options)
    if known in options and seconds[known] <= TOO_SLOW * min(seconds.values()):
        return known
    return min(options, key=lambda option: seconds[option] * _margin_to_win(option))


def first_batch(task: TrainingTask, batch_size: int, device: str) -> Batch:
    """The first training images, as many as a batch has or as there are."""
    count = min(batch_size, len(task.train))
    return next(iter(task.train.batches(torch.arange(count), count, device=device)))


def _margin_to_win(runtime: Runtime) -> float:
    """What has to be won to be chosen: a tenth for fewer digits, a tenth for the layout that is not channels-last."""
    return (1.1 if runtime.precision == "bf16" else 1.0) * (1.0 if runtime.channels_last else 1.1)


def _measure_seconds(
    model: nn.Module, task: TrainingTask, batch: Batch, options: list[Runtime]
) -> dict[Runtime, float]:
    """Seconds of one forward and backward pass: the best of up to four, after one that is not counted.

    The options take turns, so that a busy moment of the machine hits all of them; those that are half as slow again as
    the best after a round are out. The pass that is not counted tells which precisions are hopeless.
    """
    twins = {option: option.place(copy.deepcopy(model)).train() for option in options}
    first: dict[Runtime, float] = {}
    for option, twin in twins.items():
        if option.precision not in _hopeless_precisions(first):
            first[option] = _timed_pass(twin, task, batch, option)
    left = [option for option in first if option.precision not in _hopeless_precisions(first)]
    seconds = dict.fromkeys(options, math.inf)
    for _ in range(4):
        limit = TOO_SLOW * min(seconds.values())
        for option in left:
            if seconds[option] <= limit:
                seconds[option] = min(seconds[option], _timed_pass(twins[option], task, batch, option))
    return seconds


def _hopeless_precisions(first: Mapping[Runtime, float]) -> set[str]:
    """Those of options whose first pass took `HOPELESS` times as long as the fastest one's."""
    limit = HOPELESS * min(first.values(), default=math.inf)
    return {option.precision for option, elapsed in first.items() if elapsed > limit}


def _timed_pass(model: nn.Module, task: TrainingTask, batch: Batch, runtime: Runtime) -> float:
    with runtime.limits(), runtime.training(model), seeded_randomness(0, runtime.device):
        run = gradient_pass(model, task, batch, runtime)
        replay = _captured_if_possible(run, runtime)
        if runtime.device != "cpu":
            torch.cuda.synchronize(runtime.device)
        began = time.perf_counter()
        replay()
        if runtime.device != "cpu":
            torch.cuda.synchronize(runtime.device)
        return time.perf_counter() - began


def gradient_pass(model: nn.Module, task: TrainingTask, batch: Batch, runtime: Runtime) -> Callable[[], None]:
    """What computes the gradients of a batch, again at every call."""
    arranged = runtime.arrange(batch)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        task.loss(runtime.forward_of(model), arranged).value.backward()

    return run


def _captured_if_possible(run: Callable[[], None], runtime: Runtime) -> Callable[[], None]:
    if not runtime.graphs:
        return run
    try:
        return capture(run, runtime.device, lambda: None)[0]
    except CaptureError:  # then the training's steps are not captured either, and it says so
        return run
