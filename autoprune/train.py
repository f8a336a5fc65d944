"""The training loop: device, precision, memory format, schedule, moving average, distillation, resumable to the bit.

It knows a task by `Labelled` and `Problem` only, so that tasks may train their own dense model with it.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.errors import AutopruneError, InputError, check_name
from autoprune.norm import wide_norms
from autoprune.reading import to_plain
from autoprune.recipe import Training, stable_hash

OnRung = Callable[[int, float], bool]


class Labelled(Protocol):
    """A split as training sees it; `tasks.Split` is one."""

    def __len__(self) -> int:
        """Number of images."""

    def to(self, device: str) -> Labelled:
        """The same split, its images on `device` where they fit there."""

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (B, C, H, W) and labels (B,); see `tasks.Split.batches`."""


class Problem(Protocol):
    """A task as training sees it; `tasks.Task` is one."""

    @property
    def train(self) -> Labelled:
        """The images to train on."""

    @property
    def validation(self) -> Labelled:
        """The images on which rungs are measured."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch."""

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number of right answers in a batch."""


class Pressure(Protocol):
    """What a sparsify stage does during training; methods with such a stage provide one."""

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called after the backward pass, before the optimiser's step."""

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called after the optimiser's step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold: tensors, numbers, text, lists and mappings of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@runtime_checkable
class Listener(Protocol):
    """What a pressure is besides if it needs the passes themselves: it hangs hooks on the model, and takes them off."""

    def listening(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Within it the passes of the model are heard; afterwards all hooks are gone, even if training has failed."""


def listening(pressure: Pressure | None, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """The context in which a model trains under this pressure."""
    return pressure.listening(model) if isinstance(pressure, Listener) else contextlib.nullcontext()


class DivergedError(AutopruneError):
    """The training loss is not finite any more."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how a network computes.

    Fields:
        precision: `fp32`, or `bf16` = passes in bfloat16 where autocast holds it safe, weights in fp32.
        compile: `fit` may use torch.compile, once the steps left pay for it.
        threads: CPU threads; None = as torch is set.
    """

    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        check_name(self.precision, ("fp32", "bf16"), kind="precision", where="runtime")

    def place(self, model: nn.Module) -> nn.Module:
        """The model itself, moved to the device and memory format."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=layout)

    def arrange(self, inputs: Tensor) -> Tensor:
        """The inputs in the memory format of this runtime."""
        return inputs.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the model's forward pass runs."""
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bf16")

    def training(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Within it the model's layers train with the kernels that are fast here."""
        return wide_norms(model) if self.device == "cpu" and self.channels_last else contextlib.nullcontext()

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


@dataclass(frozen=True, kw_only=True)
class FitLog:
    """What a training was. `loss`: mean over the last 50 steps, None without steps; `stopped`: ended by a rung."""

    steps: int
    images: int
    seconds: float
    loss: float | None
    stopped: bool


# --- choosing where and how to compute --------------------------------------------------------------------------------


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
    model: nn.Module, example_shape: tuple[int, ...], batch_size: int, device: str = "auto", threads: int | None = None
) -> Runtime:
    """The fastest way to train this model at this batch, by measurement: fp32 or bf16, channels-last or not.

    bf16 is taken only where it wins by 10 %; so is the layout that is not channels-last. The model is left as it is.

    Args:
        example_shape: (C, H, W) or (1, C, H, W) of an input.
    """
    device = pick_device(device)
    shape = (batch_size, *example_shape[-3:])
    formats = [(precision, layout) for precision in ("fp32", "bf16") for layout in (True, False)]
    common: dict[str, Any] = {"device": device, "compile": device != "cpu", "threads": threads}
    options = [Runtime(precision=precision, channels_last=layout, **common) for precision, layout in formats]
    seconds = _measure(model, shape, options)
    return min(options, key=lambda option: seconds[option] * _handicap(option))


def _handicap(runtime: Runtime) -> float:
    """What has to be won to be chosen: a tenth for fewer digits, a tenth for the layout that is not channels-last."""
    return (1.1 if runtime.precision == "bf16" else 1.0) * (1.0 if runtime.channels_last else 1.1)


def _measure(model: nn.Module, shape: tuple[int, ...], options: list[Runtime]) -> dict[Runtime, float]:
    """Seconds of one forward and backward pass: the best of up to four, after one that is not counted.

    The options take turns, so that a busy moment of the machine hits all of them; those that are half as slow again as
    the best after a round are out.
    """
    twins = {option: option.place(copy.deepcopy(model)).train() for option in options}
    seconds = dict.fromkeys(options, math.inf)
    for turn in range(5):
        limit = 1.5 * min(seconds.values())
        for option, twin in twins.items():
            if seconds[option] <= limit:
                elapsed = _timed_pass(twin, shape, option)
                seconds[option] = min(seconds[option], elapsed) if turn else math.inf
    return seconds


def _timed_pass(model: nn.Module, shape: tuple[int, ...], runtime: Runtime) -> float:
    with runtime.limits(), runtime.training(model), _seeded(0, runtime.device):
        inputs = runtime.arrange(torch.rand(shape, device=runtime.device))
        began = time.perf_counter()
        with runtime.autocast():
            outputs = model(inputs)
        outputs.float().square().mean().backward()
        if runtime.device != "cpu":
            torch.cuda.synchronize(runtime.device)
        return time.perf_counter() - began


# --- measuring and recalibrating --------------------------------------------------------------------------------------


def evaluate(model: nn.Module, split: Labelled, task: Problem, runtime: Runtime) -> float:
    """Share of the split's images that are right, in [0, 1]; the model's mode is as before afterwards."""
    was_training, model = model.training, runtime.place(model).eval()
    right = torch.zeros((), dtype=torch.int64, device=runtime.device)
    # ResNet-20, CIFAR-10, bf16, images/s on one core: 1,789 at 64, 1,906 at 125, 1,603 at 250, 1,341 at 1,000
    size = 125 if runtime.device == "cpu" else 1000
    with torch.inference_mode(), runtime.limits():
        for inputs, targets in split.batches(torch.arange(len(split)), size, device=runtime.device):
            with runtime.autocast():
                outputs = model(runtime.arrange(inputs))
            right += task.correct(outputs.float(), targets)
    model.train(was_training)
    return right.item() / len(split)


def recalibrate(model: nn.Module, task: Problem, runtime: Runtime, *, images: int = 2048, seed: int) -> None:
    """Re-estimate the batch-norm statistics: the plain average over batches of 256 training images, augmented.

    Augmented as in training, because that is what the weights know: on the pretrained CIFAR-10 ResNet-20 (2,048 images,
    2,500 test images) it gives 91.8 % where images as they are give 88.8 %; before, it is 91.6 %.

    `images` is rounded down to whole batches. The model is left in eval mode; its weights do not change.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    runtime.place(model).eval()
    if not norms:
        return
    size = min(256, len(task.train), max(1, images))
    count = max(size, min(images, len(task.train)) // size * size)
    order = torch.randperm(len(task.train), generator=random_stream(seed, 0))[:count]
    with _cumulative(norms), torch.no_grad(), runtime.limits():
        for inputs, _ in task.train.batches(order, size, device=runtime.device, seed=seed):
            with runtime.autocast():
                model(runtime.arrange(inputs))


@contextlib.contextmanager
def _cumulative(norms: list[Any]) -> Iterator[None]:
    """Within it the layers forget their statistics and average those of the batches they see."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


# --- arithmetic of a step ---------------------------------------------------------------------------------------------


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`: linear over the warm-up, then the schedule, down to 0 at `steps`."""
    warmup = round(training.warmup * steps)
    if step < warmup:
        return training.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return training.lr * factor[training.schedule]


def steps_of(training: Training, images: int, available: int) -> int:
    """Steps that `fit` makes of `images` images of a split of `available`: whole batches, at least one."""
    return max(1, round(images / min(training.batch_size, available))) if images else 0


def distillation(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(outputs / T)), mean over the batch (Hinton et al. 2015, section 2)."""
    student, teacher = (F.log_softmax(logits.float() / temperature, 1) for logits in (outputs, taught))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def pays_to_compile(step_seconds: float, steps_left: int) -> bool:
    """Whether compiling is worth it, taking it to cost a minute and to save a fifth of the time that is left."""
    return step_seconds * steps_left > 300


class Teacher:
    """A model to distil from. It answers every batch once: order and augmentation are functions of seed and step alone,
    so trials that share seed and batch size see the same batches, however many.

    Without this the dense ResNet-20's forward pass is 40 % of a step at half the FLOPs and more below.

    Args:
        model: in eval mode from here on; its outputs are never differentiated.
        memory: bytes of answers that are kept; beyond, the model is asked again.
    """

    def __init__(self, model: nn.Module, memory: int = 2**28) -> None:
        self.model, self.left = model.eval(), memory
        self._answers: dict[tuple[int, ...], Tensor] = {}

    def answer(self, inputs: Tensor, batch: tuple[int, ...], runtime: Runtime) -> Tensor:
        """Outputs for `inputs`, which `batch` identifies among all batches of the task."""
        if batch in self._answers:
            return self._answers[batch]
        with torch.no_grad(), runtime.autocast():
            taught: Tensor = runtime.place(self.model)(inputs)
        if taught.nbytes <= self.left:
            self.left -= taught.nbytes
            self._answers[batch] = taught
        return taught


class MovingAverage:
    """Exponential moving average of all floating-point tensors of a model, batch-norm statistics included."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in _floats(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average <- decay * average + (1 - decay) * model."""
        now = _floats(model)
        torch._foreach_lerp_(list(self.tensors.values()), [now[name] for name in self.tensors], 1 - self.decay)

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Within it the model has the averaged weights."""
        kept = {name: tensor.detach().clone() for name, tensor in _floats(model).items()}
        self.write(model)
        try:
            yield
        finally:
            _write(model, kept)

    def write(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        _write(model, self.tensors)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def _write(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    now = _floats(model)
    for name, tensor in tensors.items():
        now[name].copy_(tensor)


# --- the loop ---------------------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    task: Problem,
    training: Training,
    runtime: Runtime,
    *,
    images: int,
    seed: int,
    pressure: Pressure | None = None,
    teacher: Teacher | None = None,
    on_rung: OnRung | None = None,
    checkpoint: Path | None = None,
    keep_last: bool = False,
) -> FitLog:
    """Train `model` in place on `images` training images; it ends in eval mode with the averaged weights, if any.

    Order and augmentation are functions of (seed, epoch) alone: a run that is resumed from `checkpoint` gives, on the
    CPU, the same bits as one that was never interrupted.

    Args:
        images: rounded to whole batches, at least one; 0 trains nothing.
        teacher: needed where `training.distill` > 0, not used otherwise.
        on_rung: gets (images seen, validation accuracy) for every rung in (0, 1); False stops. A resumed run hears of
            the rungs before its checkpoint again.
        checkpoint: written (atomically) at every rung and once a minute, and resumed from if it exists.
        keep_last: it is written after the last step too, so that a run resumed from it has nothing left to do.

    Raises:
        DivergedError: the loss is not finite, with the step. InputError: distillation without a teacher, or a
            checkpoint of another training.
    """
    if training.distill > 0 and teacher is None:
        raise InputError("distillation needs a teacher", where="training.distill", allowed="0 without a teacher")
    began = time.perf_counter()
    loop = _Loop(model, task, training, runtime, images, seed, pressure, teacher)
    with runtime.limits(), runtime.training(model), loop.randomness(), listening(pressure, model):
        stopped = loop.resume(checkpoint, on_rung) or loop.run(checkpoint, on_rung)
        if keep_last and checkpoint is not None:
            loop.save(checkpoint)
    loop.finish()
    seconds = time.perf_counter() - began
    return FitLog(
        steps=loop.step, images=loop.step * loop.batch, seconds=seconds, loss=loop.mean_loss(), stopped=stopped
    )


class _Loop:
    """The mutable state of one training."""

    def __init__(
        self,
        model: nn.Module,
        task: Problem,
        training: Training,
        runtime: Runtime,
        images: int,
        seed: int,
        pressure: Pressure | None,
        teacher: Teacher | None,
    ) -> None:
        self.task, self.training, self.runtime, self.seed, self.pressure = task, training, runtime, seed, pressure
        self.model = runtime.place(model).train()
        self.forward: Callable[[Tensor], Tensor] = self.model
        self.teacher = teacher if training.distill > 0 else None
        self.data = task.train.to(runtime.device)
        self.batch = min(training.batch_size, len(self.data))
        self.per_epoch = len(self.data) // self.batch
        self.steps = steps_of(training, images, len(self.data))
        self.rungs = _rung_steps(training.rungs, self.steps)
        self.optimizer = _optimizer(self.model, training)
        self.average = MovingAverage(self.model, training.ema) if training.ema else None
        self.step = 0
        self.losses: list[float] = []
        self.heard: list[tuple[int, float]] = []
        self.pending: list[Tensor] = []
        self.key = stable_hash([to_plain(training), images, seed, len(self.data)])

    def randomness(self) -> contextlib.AbstractContextManager[Any]:
        """Dropout and the like draw from a stream of this training's own; the caller's is untouched."""
        return _seeded(self.seed, self.runtime.device)

    def run(self, checkpoint: Path | None, on_rung: OnRung | None) -> bool:
        """Train to the end; True if a rung stopped it."""
        began = saved = time.monotonic()
        first = self.step
        while self.step < self.steps:
            for inputs, targets in self._epoch():
                self._one_step(self.runtime.arrange(inputs), targets)
                if self.runtime.compile and self.step - first == 40:
                    self._consider_compiling((time.monotonic() - began) / 40)
                if self.step in self.rungs and on_rung is not None and not self._rung(checkpoint, on_rung):
                    return True
                if checkpoint is not None and time.monotonic() - saved > 60:
                    self.save(checkpoint)
                    saved = time.monotonic()
        return False

    def _consider_compiling(self, step_seconds: float) -> None:
        if isinstance(self.pressure, Listener):
            return  # hooks that keep what they hear break the graph at every layer
        if pays_to_compile(step_seconds, self.steps - self.step):
            self.forward = torch.compile(self.model)

    def _epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches left of the current pass over the data."""
        epoch, done = divmod(self.step, self.per_epoch)
        count = min(self.per_epoch, done + self.steps - self.step)
        order = torch.randperm(len(self.data), generator=random_stream(self.seed, epoch, 0))[: count * self.batch]
        seed = int(torch.randint(2**62, (), generator=random_stream(self.seed, epoch, 1)))
        return self.data.batches(order, self.batch, device=self.runtime.device, seed=seed, start=done)

    def _one_step(self, inputs: Tensor, targets: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, self.step, self.steps)
        loss = self._loss(inputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._note(loss.detach())
        if self.pressure is not None:
            self.pressure.before_step(self.model, self.step, self.steps)
        self.optimizer.step()
        if self.pressure is not None:
            self.pressure.after_step(self.model, self.step, self.steps)
        if self.average is not None:
            self.average.update(self.model)
        self.step += 1

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with self.runtime.autocast():
            outputs = self.forward(inputs)
        loss = self.task.loss(outputs.float(), targets, self.training.label_smoothing)
        if self.teacher is None:
            return loss
        taught = self.teacher.answer(inputs, (self.seed, self.batch, self.step), self.runtime)
        share = self.training.distill
        return (1 - share) * loss + share * distillation(outputs, taught, self.training.temperature)

    def _note(self, loss: Tensor) -> None:
        """Keep the loss; look at it at once on the CPU, every 20 steps elsewhere (looking waits for the device)."""
        self.pending.append(loss)
        if self.runtime.device == "cpu" or len(self.pending) == 20:
            self._look(self.step)

    def _look(self, last: int) -> None:
        values = torch.stack(self.pending).tolist() if self.pending else []
        for step, value in enumerate(values, last - len(values) + 1):
            if not math.isfinite(value):
                raise DivergedError(f"the loss is {value} at step {step} of {self.steps}", where="training")
        self.losses, self.pending = [*self.losses, *values][-50:], []

    def mean_loss(self) -> float | None:
        """Mean over the last 50 steps."""
        return float(np.mean(self.losses)) if self.losses else None

    def _rung(self, checkpoint: Path | None, on_rung: OnRung) -> bool:
        with self.average.shown(self.model) if self.average else contextlib.nullcontext():
            accuracy = evaluate(self.model, self.task.validation, self.task, self.runtime)
        self.heard.append((self.step * self.batch, accuracy))
        if checkpoint is not None:
            self.save(checkpoint)
        return on_rung(*self.heard[-1])

    def finish(self) -> None:
        """Averaged weights in, eval mode, gradients dropped."""
        self._look(self.step - 1)
        if self.average is not None:
            self.average.write(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()

    def save(self, file: Path) -> None:
        """Write the whole state beside `file`, then rename."""
        self._look(self.step - 1)
        state = {
            "key": self.key,
            "step": self.step,
            "losses": self.losses,
            "heard": self.heard,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.tensors if self.average else None,
            "pressure": self.pressure.state_dict() if self.pressure else None,
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.runtime.device) if self._on_gpu() else None,
        }
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        torch.save(state, partial)
        partial.replace(file)

    def resume(self, file: Path | None, on_rung: OnRung | None) -> bool:
        """Take over the state of `file` if it is there; True if a rung measured before it now stops the run."""
        if file is None or not file.exists():
            return False
        state = _read_state(file, self.runtime.device)
        if state["key"] != self.key:
            allowed = "the same recipe, seed and data"
            raise InputError("the checkpoint belongs to another training", where=str(file), allowed=allowed)
        self.step, self.losses, self.heard = state["step"], state["losses"], [tuple(pair) for pair in state["heard"]]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.tensors = state["average"]
        if self.pressure is not None:
            self.pressure.load_state_dict(state["pressure"])
        torch.set_rng_state(state["random"].cpu())
        if self._on_gpu():
            torch.cuda.set_rng_state(state["device_random"].cpu(), self.runtime.device)
        return on_rung is not None and not all(on_rung(*pair) for pair in self.heard)

    def _on_gpu(self) -> bool:
        return self.runtime.device.startswith("cuda")


def _optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD; Nesterov needs momentum."""
    return torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
        fused=True,
    )


def _rung_steps(rungs: tuple[float, ...], steps: int) -> set[int]:
    """After which step each rung in (0, 1) is measured; those that would fall on the end are the end's."""
    return {step for rung in rungs if 0 < rung < 1 and 0 < (step := math.ceil(rung * steps)) < steps}


def _read_state(file: Path, device: str) -> dict[str, Any]:
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle and unsafe-global errors have no common base
        raise InputError(f"not a readable checkpoint: {error}", where=str(file)) from error


def random_stream(*words: int) -> torch.Generator:
    """A CPU generator whose stream depends on all the numbers; near numbers give unrelated streams."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))


@contextlib.contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
