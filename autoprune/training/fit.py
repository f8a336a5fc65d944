"""The training loop: device, precision, memory format, schedule, moving average, distillation, resumable to the bit.

It knows a task by `TrainingTask` only, so that tasks may train their own dense model with it.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import AutopruneError, InputError
from autoprune.files import written_whole
from autoprune.recipe import Training, stable_hash
from autoprune.schema import to_plain
from autoprune.training.averaging import MovingAverage
from autoprune.training.batch_structure import images_in
from autoprune.training.captured import CaptureError
from autoprune.training.distillation import Teacher
from autoprune.training.evaluate import evaluate
from autoprune.training.notice import NOTICE, PausedByNoticeError
from autoprune.training.optimizer import build_optimizer, learning_rate, plain_state
from autoprune.training.processes import ALONE, Processes
from autoprune.training.protocols import Batch, Forward, Listener, Regulariser, TrainingTask, listening
from autoprune.training.runtime import Runtime
from autoprune.training.seeds import random_stream, seeded_randomness
from autoprune.training.shared_norms import shared_norms
from autoprune.training.step import CapturedStep, Parts, Step, Taught

OnRung = Callable[[int, float], bool]


class DivergedError(AutopruneError):
    """The training loss is not finite any more."""


@dataclass(frozen=True, kw_only=True)
class FitLog:
    """What a training was.

    Fields:
        loss: mean over the last 50 steps, None without steps.
        stopped: ended by a rung.
        remark: why its steps did not run as graphs, where they were to.
    """

    steps: int
    images: int
    seconds: float
    loss: float | None
    stopped: bool
    remark: str = ""


def steps_of(training: Training, images: int, available: int) -> int:
    """Steps that `fit` makes of `images` images of a split of `available`: whole batches, at least one."""
    return max(1, round(images / batch_of(training, available))) if images else 0


def batch_of(training: Training, available: int) -> int:
    """Images of a step: as many for each of its passes.

    Raises:
        InputError: there are more passes than images.
    """
    batch = min(training.batch_size, available)
    if training.accumulate > batch:
        what = f"{training.accumulate} passes for a batch of {batch}"
        raise InputError(what, where="training.accumulate", allowed=f"1 to {batch}")
    return batch // training.accumulate * training.accumulate


def fit(
    model: nn.Module,
    task: TrainingTask,
    training: Training,
    runtime: Runtime,
    *,
    images: int,
    seed: int,
    regulariser: Regulariser | None = None,
    teacher: Teacher | None = None,
    on_rung: OnRung | None = None,
    checkpoint: Path | None = None,
    keep_last: bool = False,
    processes: Processes = ALONE,
) -> FitLog:
    """Train `model` in place on `images` training images; it ends in eval mode with the averaged weights, if any.

    Order and augmentation are functions of (seed, epoch) alone: a run that is resumed from `checkpoint` gives, on the
    CPU, the same bits as one that was never interrupted.

    Args:
        images: rounded to whole batches, at least one; 0 trains nothing.
        teacher: needed where `training.distill` > 0, not used otherwise.
        on_rung: gets (images seen, validation metric) for every rung in (0, 1); False stops. A resumed run hears of
            the rungs before its checkpoint again.
        checkpoint: written (atomically) at every rung and once a minute, and resumed from if it exists. With one the
            training of a single process pauses when that has notice of its end (`notice.py`): `PausedByNoticeError`.
        keep_last: it is written after the last step too, so that a run resumed from it has nothing left to do.
        processes: which train this model together; each calls this function with its copy, the first writes the
            checkpoint. The batch is as large as for one process, and so are its moments in batch norms.

    Raises:
        DivergedError: the loss is not finite, with the step. InputError: distillation without a teacher, a checkpoint
            of another training, a regulariser that has to hear a step's batch in one pass, or more processes than
            images of a pass.
    """
    if training.distill > 0 and teacher is None:
        raise InputError("distillation needs a teacher", where="training.distill", allowed="0 without a teacher")
    if training.accumulate > 1 and isinstance(regulariser, Listener):
        what = f"{type(regulariser).__name__} hears a step's batch in one pass"
        raise InputError(what, where="training.accumulate", allowed="1 with this method")
    began = time.perf_counter()
    loop = TrainingLoop(model, task, training, runtime, images, seed, regulariser, teacher, processes)
    with runtime.limits(), loop.kernels(), loop.randomness(), listening(regulariser, model):
        stopped = loop.resume(checkpoint, on_rung) or loop.run(checkpoint, on_rung)
        if keep_last and checkpoint is not None:
            loop.save(checkpoint)
    loop.finish()
    seconds = time.perf_counter() - began
    return FitLog(
        steps=loop.step,
        images=loop.step * loop.batch,
        seconds=seconds,
        loss=loop.mean_loss(),
        stopped=stopped,
        remark=loop.remark,
    )


class TrainingLoop:
    """The mutable state of one training."""

    def __init__(
        self,
        model: nn.Module,
        task: TrainingTask,
        training: Training,
        runtime: Runtime,
        images: int,
        seed: int,
        regulariser: Regulariser | None,
        teacher: Teacher | None,
        processes: Processes = ALONE,
    ) -> None:
        self.task, self.training, self.runtime, self.seed, self.regulariser = task, training, runtime, seed, regulariser
        self.processes = processes
        self.data = task.train.to(runtime.device)
        if not processes.alone:
            self.data = self.data.of_process(processes)
        self.batch = batch_of(training, len(self.data))
        _check_parts(self.batch // training.accumulate, processes)
        self.model = runtime.place(model).train()
        processes.spread(self.model)
        self.forward: Forward = runtime.forward_of(self.model)
        self.teacher = teacher if training.distill > 0 else None
        self.per_epoch = len(self.data) // self.batch
        self.steps = steps_of(training, images, len(self.data))
        self.rungs = _steps_of_rungs(training.rungs, self.steps)
        self.optimizer = build_optimizer(self.model, training)
        self.average = MovingAverage(self.model, training.ema) if training.ema else None
        self.layer_by_layer = self._describe_step()
        self.captured: CapturedStep | None = None
        self.remark = self._why_never_captured() if runtime.graphs else ""
        self.step = 0
        self.losses: list[float] = []
        self.measured: list[tuple[int, float]] = []
        self.pending: list[Tensor] = []
        self.key = stable_hash([to_plain(training), images, seed, len(self.data)])

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        """Within it the layers train with the kernels that are fast here, or with norms of several processes."""
        alone = self.processes.alone
        with self.runtime.training(self.model) if alone else self.runtime.gradients(), shared_norms(self.processes):
            yield

    def randomness(self) -> contextlib.AbstractContextManager[Any]:
        """Dropout and the like draw from a stream of this training's own; the caller's is untouched."""
        return seeded_randomness(self._seed_of_dropout(), self.runtime.device)

    def _seed_of_dropout(self) -> int:
        """Another one in every process, and in all but the first another one after every checkpoint."""
        if self.processes.leads:
            return self.seed
        return random_stream(self.seed, self.processes.rank, self.step).initial_seed()

    def run(self, checkpoint: Path | None, on_rung: OnRung | None) -> bool:
        """Train to the end; True if a rung stopped it."""
        saved = time.monotonic()
        while self.step < self.steps:
            for parts in self.steps_left():
                self.train_step(parts)
                if self.step in self.rungs and on_rung is not None and not self._measure_rung(checkpoint, on_rung):
                    return True
                pauses = NOTICE.given and self.processes.alone  # the others would wait for this one
                if checkpoint is not None and (pauses or time.monotonic() - saved > 60):
                    self.save(checkpoint)
                    saved = time.monotonic()
                    if pauses:
                        raise PausedByNoticeError
        return False

    def _describe_step(self) -> Step:
        return Step(
            model=self.model,
            loss=self._share_of_loss,
            optimizer=self.optimizer,
            average=self.average,
            clip=self.training.clip,
            processes=self.processes,
        )

    def _why_never_captured(self) -> str:
        if isinstance(self.regulariser, Listener):
            return "layer by layer: the method listens to the passes"
        return "" if self.processes.alone else "layer by layer: several processes train it"

    def steps_left(self) -> Iterator[tuple[Batch, ...]]:
        """The batches of the steps left of the current pass over the data, each in its parts, arranged."""
        parts = map(self.runtime.arrange, self._parts_left())
        return zip(*[parts] * self.training.accumulate, strict=True)

    def _parts_left(self) -> Iterator[Batch]:
        epoch, done = divmod(self.step, self.per_epoch)
        count = min(self.per_epoch, done + self.steps - self.step)
        order = torch.randperm(len(self.data), generator=random_stream(self.seed, epoch, 0))[: count * self.batch]
        seed = int(torch.randint(2**62, (), generator=random_stream(self.seed, epoch, 1)))
        passes = self.training.accumulate
        size, start = self.batch // passes, done * passes
        return self.data.batches(order, size, device=self.runtime.device, seed=seed, start=start)

    def train_step(self, parts: Parts) -> None:
        """One step of the optimiser, on a batch in parts that are in the runtime's memory format."""
        taught = tuple(self.taught(part, place) for place, part in enumerate(parts))
        step = self._step_for(parts, taught)
        step.set_rate(learning_rate(self.training, self.step, self.steps))
        self._keep_loss(step.gradients(parts, taught))
        if self.regulariser is not None:
            self.regulariser.before_step(self.model, self.step, self.steps)
        step.optimise()
        if self.regulariser is not None:
            self.regulariser.after_step(self.model, self.step, self.steps)
        step.follow()
        self.step += 1

    def _step_for(self, parts: Parts, taught: Taught) -> Step | CapturedStep:
        """How this step runs: as graphs, captured at the first one, unless that is not possible."""
        if not self.runtime.graphs or self.remark:
            return self.layer_by_layer
        if self.captured is None:
            try:
                self.captured = CapturedStep(self.layer_by_layer, parts, taught, self.runtime.device)
            except CaptureError as error:
                self.remark = f"layer by layer: a step {error}"
                return self.layer_by_layer
        if not self.captured.takes(parts, taught):
            self.remark = f"layer by layer from step {self.step}: the shape of batches, or where weights lie, changed"
            return self.layer_by_layer
        return self.captured

    def _share_of_loss(self, part: Batch, taught: Any) -> Tensor:
        """A part's share of the step's loss."""
        loss = self.compute_loss(part, taught)
        if not self.processes.alone:
            loss = loss * (images_in(part) * self.training.accumulate / self.batch)
        return loss / self.training.accumulate if self.training.accumulate > 1 else loss

    def compute_loss(self, batch: Batch, taught: Any = None) -> Tensor:
        """The task's loss, mixed with that of distillation if there is a teacher.

        Args:
            taught: what the teacher says to the batch.
        """
        loss, outputs = self.task.loss(self.forward, batch, self.training)
        if self.teacher is None:
            return loss
        share = self.training.distill
        return (1 - share) * loss + share * self.task.distillation(outputs, taught, self.training.temperature)

    def taught(self, batch: Batch, place: int = 0) -> Any:
        """What the teacher says to part number `place` of the step's batch, if there is a teacher."""
        if self.teacher is None:
            return None
        number = (self.seed, self.batch, self.training.accumulate, self.step, place)
        return self.teacher.outputs_for(batch, number, self.task, self.runtime)

    def _keep_loss(self, loss: Tensor) -> None:
        """Keep the loss; look at it at once on the CPU, every 20 steps elsewhere (looking waits for the device)."""
        self.pending.append(loss)
        if self.runtime.device == "cpu" or len(self.pending) == 20:
            self._check_losses(self.step)

    def _check_losses(self, last: int) -> None:
        values = torch.stack(self.pending).tolist() if self.pending else []
        for step, value in enumerate(values, last - len(values) + 1):
            if not math.isfinite(value):
                raise DivergedError(f"the loss is {value} at step {step} of {self.steps}", where="training")
        self.losses, self.pending = [*self.losses, *values][-50:], []

    def mean_loss(self) -> float | None:
        """Mean over the last 50 steps."""
        return float(np.mean(self.losses)) if self.losses else None

    def _measure_rung(self, checkpoint: Path | None, on_rung: OnRung) -> bool:
        with self.average.shown(self.model) if self.average else contextlib.nullcontext():
            metric = evaluate(self.model, self.task.validation, self.task, self.runtime, self.processes)
        self.measured.append((self.step * self.batch, metric))
        if checkpoint is not None:
            self.save(checkpoint)
        return on_rung(*self.measured[-1])

    def finish(self) -> None:
        """Averaged weights in, eval mode, gradients dropped."""
        self._check_losses(self.step - 1)
        if self.average is not None:
            self.average.write(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()

    def save(self, file: Path) -> None:
        """Write the state to `file`, whole or not at all; one process does so for all."""
        if not self.processes.leads:
            return
        self._check_losses(self.step - 1)
        state = {
            "key": self.key,
            "step": self.step,
            "losses": self.losses,
            "heard": self.measured,
            "model": self.model.state_dict(),
            "optimizer": plain_state(self.optimizer),
            "average": self.average.tensors if self.average else None,
            "pressure": self.regulariser.state_dict() if self.regulariser else None,
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.runtime.device) if self._on_gpu() else None,
        }
        with written_whole(file) as beside:
            written = io.BytesIO()  # torch ends the whole process where its own writer meets a full disk
            torch.save(state, written)
            beside.write_bytes(written.getbuffer())

    def resume(self, file: Path | None, on_rung: OnRung | None) -> bool:
        """Take over the state of `file` if it is there; True if a rung measured before it now stops the run."""
        if file is None or not file.exists():
            return False
        state = _read_state(file, self.runtime.device)
        if state["key"] != self.key:
            allowed = "the same recipe, seed and data"
            raise InputError("the checkpoint belongs to another training", where=str(file), allowed=allowed)
        self.step, self.losses, self.measured = state["step"], state["losses"], [tuple(pair) for pair in state["heard"]]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.tensors = state["average"]
        if self.regulariser is not None:
            self.regulariser.load_state_dict(state["pressure"])
        self._resume_randomness(state)
        return on_rung is not None and not all(on_rung(*pair) for pair in self.measured)

    def _resume_randomness(self, state: dict[str, Any]) -> None:
        """The first process goes on where it was; it alone has written where."""
        if not self.processes.leads:
            torch.manual_seed(self._seed_of_dropout())
            return
        torch.set_rng_state(state["random"].cpu())
        if self._on_gpu():
            torch.cuda.set_rng_state(state["device_random"].cpu(), self.runtime.device)

    def _on_gpu(self) -> bool:
        return self.runtime.device.startswith("cuda")


def _check_parts(images: int, processes: Processes) -> None:
    """Raise `InputError` unless every process gets an image of a pass."""
    if images < processes.count:
        what = f"{processes.count} processes for a pass of {images} images"
        raise InputError(what, where="resources.processes_per_trial", allowed=f"1 to {images}")


def _steps_of_rungs(rungs: tuple[float, ...], steps: int) -> set[int]:
    """After which step each rung in (0, 1) is measured; those that would fall on the end are the end's."""
    return {step for rung in rungs if 0 < rung < 1 and 0 < (step := math.ceil(rung * steps)) < steps}


def _read_state(file: Path, device: str) -> dict[str, Any]:
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle and unsafe-global errors have no common base
        raise InputError(f"not a readable checkpoint: {error}", where=str(file)) from error
