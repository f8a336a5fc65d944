"""What a step of training under a method's regulariser costs beside a plain one, both measured in turns in one run.

    python -m autoprune.analysis.benchmarks.method_overhead [--rounds N] [--model NAME] [--device D] [--table FILE]

Every method with a sparsify stage, as it is by default: ResNet-56, CIFAR-10's shapes (random pixels), batch 128, half
of the FLOPs. What is timed are whole steps of the loop that trials run, with batches, forward and backward pass, in
the runtime that `choose_runtime` picks; nothing is compiled.

What makes it fair. A method's stage is that of 50,000 images, 391 steps, and its loop counts them: penalties are
raised, V-steps made and filters shrunk at the same steps, and so as often, as in such a trial. A round is the next
tenth of the stage, 39 steps: with the defaults 8 updates of GReg or IncReg, two V-steps of L0-HQS, one moment of soft
pruning. The next round goes on where the last one ended. Before and after every method a plain loop, stochastic
gradient descent without any regulariser, makes a tenth of its steps; the method is compared with the mean of these two.
The first round is not counted. Ratios are taken within a round; the table has their medians.

On a machine that is not quiet a few per cent drown in that. So the regulariser is timed apart as well: `before_step`
and `after_step` over all steps of a stage, events included, with the gradients of one batch. Weights and gradients are
put back before every step, outside of the time: without a loss penalties would shrink them to denormal numbers, which
are slow. The weights lie in the caches then; among real steps, whose activations drive them out, the same two calls
took up to 1.6 times as long. On a GPU every step is waited for, so that nothing overlaps: what a step really pays is
less. A method that listens to the passes hears one before every step, which is not counted either: what it does in
there shows in whole steps only. A limit is met if both numbers are within it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.analysis.benchmarks.train_speed import BATCH, open_task
from autoprune.methods import METHODS, Method, Stage
from autoprune.recipe import Allocation, Target, Training
from autoprune.tasks import Task, load_task
from autoprune.training.fit import TrainingLoop, steps_of
from autoprune.training.protocols import Batch, Listener, Regulariser, listening
from autoprune.training.runtime import Runtime, choose_runtime, pick_device
from autoprune.trial.shared import SharedState

IMAGES = 50_000
#: Rounds that a stage lasts.
PARTS = 10
PLAIN = Training(batch_size=BATCH)
#: What a method may cost at most, as a share of a plain step; of the others nothing was asked.
LIMITS = {
    **dict.fromkeys(("greg1", "greg2", "increg", "l0_hqs", "sfp", "asfp", "srfp", "asrfp"), 0.05),
    "orthoreg": 0.15,
    "group_fisher": 0.20,
}


# ---- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method: seconds per step.

    Fields:
        plain: per round, mean of the plain steps before and after.
        pressed: per round, with the regulariser.
        alone: the regulariser without the step, mean over a stage.
    """

    method: str
    plain: list[float]
    pressed: list[float]
    alone: float

    @property
    def whole(self) -> float:
        """How much longer a step takes, as a share of a plain one: median over the rounds."""
        return statistics.median(b / a for a, b in zip(self.plain, self.pressed, strict=True)) - 1

    @property
    def apart(self) -> float:
        """The regulariser alone, as a share of the median plain step."""
        return self.alone / statistics.median(self.plain)

    @property
    def met(self) -> bool | None:
        """Whether both are within the method's limit; None without one."""
        return max(self.whole, self.apart) <= LIMITS[self.method] if self.method in LIMITS else None


@dataclass(frozen=True, eq=False)
class Subject:
    """The task with its dense model, and where it computes."""

    task: Task
    shared: SharedState

    @classmethod
    def of(cls, model: str, device: str) -> Subject:
        """A network of the zoo on random images."""
        task = load_task({**open_task(None).spec, "model": {"name": model, "train": {"images": 0}}})
        device = pick_device(device)
        return cls(task, SharedState.of(task, choose_runtime(task.model(), task, BATCH, device)))

    @property
    def runtime(self) -> Runtime:
        """The runtime that trials of a study would have."""
        return self.shared.runtime

    def stage(self, method: Method | None) -> TrainingLoop:
        """A stage of `IMAGES` images that is about to begin; plain training without a method."""
        model, training, regulariser = self.runtime.place(copy.deepcopy(self.shared.model)), PLAIN, None
        if method is not None:
            training = method.stage_training(PLAIN)
            steps = steps_of(training, IMAGES, len(self.task.train))
            begins = Stage(Target(flops=0.5), Allocation(), training, steps, weight_decay=PLAIN.weight_decay)
            regulariser = method.sparsify(self.shared.context(model, 0), begins)
        return TrainingLoop(model, self.task, training, self.runtime, IMAGES, 0, regulariser, None)

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.runtime.device.startswith("cuda"):
            torch.cuda.synchronize(self.runtime.device)

    def seconds(self, act: Callable[[], None]) -> float:
        """Seconds of so many steps."""
        self.wait()
        began = time.perf_counter()
        act()
        self.wait()
        return time.perf_counter() - began


class Side:
    """A training loop that continues from round to round; a new stage begins when one is over."""

    def __init__(self, subject: Subject, method: Method | None) -> None:
        self.subject, self.method = subject, method
        self._start_stage()

    def _start_stage(self) -> None:
        self.loop = self.subject.stage(self.method)
        self.batches = _stage_batches(self.loop)

    def round(self) -> float:
        """Seconds per step over the next tenth of the stage."""
        count = max(1, self.loop.steps // PARTS)
        if self.loop.step + count > self.loop.steps:
            self._start_stage()
        runtime, loop = self.subject.runtime, self.loop
        with runtime.limits(), runtime.training(loop.model), loop.randomness(), listening(loop.regulariser, loop.model):
            return self.subject.seconds(lambda: self._train_steps(count)) / count

    def _train_steps(self, count: int) -> None:
        for _ in range(count):
            self.loop.train_step(next(self.batches))


def _stage_batches(loop: TrainingLoop) -> Iterator[tuple[Batch, ...]]:
    """The batches of a whole stage in their parts, pass after pass over the data, as `TrainingLoop.run` takes them."""
    while loop.step < loop.steps:
        yield from loop.steps_left()


def alone(subject: Subject, method: Method) -> float:
    """Seconds per step of the regulariser, mean over a whole stage."""
    loop = subject.stage(method)
    regulariser, total = loop.regulariser, 0.0
    assert regulariser is not None  # only methods with a stage are measured
    with subject.runtime.limits(), listening(regulariser, loop.model):
        (batch,) = next(_stage_batches(loop))
        loop.compute_loss(batch).backward()
        parameters = [parameter for parameter in loop.model.parameters() if parameter.grad is not None]
        live = [tensor for parameter in parameters for tensor in (parameter.detach(), parameter.grad)]
        kept = [tensor.clone() for tensor in live]
        for step in range(loop.steps):
            if isinstance(regulariser, Listener):
                loop.compute_loss(batch).backward()
            torch._foreach_copy_(live, kept)
            total += subject.seconds(lambda step=step: _regularise(regulariser, loop.model, step, loop.steps))
    return total / loop.steps


def _regularise(regulariser: Regulariser, model: nn.Module, step: int, steps: int) -> None:
    regulariser.before_step(model, step, steps)
    regulariser.after_step(model, step, steps)


def staged() -> dict[str, Method]:
    """All methods that put a regulariser on a stage, with their defaults."""
    return {name: method() for name, method in METHODS.items() if method.sparsify is not Method.sparsify}


def measure(subject: Subject, rounds: int) -> list[Row]:
    """All methods in turns, plain rounds between them."""
    found = staged()
    plain, sides = Side(subject, None), {name: Side(subject, method) for name, method in found.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for turn in range(rounds + 1):
        before = plain.round()
        for name, side in sides.items():
            pressed, after = side.round(), plain.round()
            seconds[name].append((statistics.fmean((before, after)), pressed))
            before = after
        print(f"round {turn} of {rounds}: a plain step takes {before * 1e3:.1f} ms", flush=True)
    return [
        Row(
            method=name,
            plain=[without for without, _ in seconds[name][1:]],
            pressed=[pressed for _, pressed in seconds[name][1:]],
            alone=alone(subject, method),
        )
        for name, method in found.items()
    ]


# ---- the table -------------------------------------------------------------------------------------------------------


def line(row: Row) -> str:
    """One method on one line of the table."""
    times = [f"{1e3 * statistics.median(side):.1f}" for side in (row.plain, row.pressed)]
    limit = f"{LIMITS[row.method]:.0%}" if row.method in LIMITS else ""
    verdict = {True: "met", False: "**not met**", None: ""}[row.met]
    cells = [*times, f"{row.whole:+.1%}", f"{row.alone * 1e3:.2f}", f"{row.apart:.1%}", limit, verdict]
    return table_row([row.method, *cells])


def table(rows: Sequence[Row], about: str) -> str:
    """The measured part of the Markdown file; `about` says where and how it was measured."""
    columns = (
        "method",
        "plain, ms",
        "with the method",
        "more",
        "regulariser alone, ms",
        "of a plain step",
        "limit",
        "",
    )
    return "\n".join(
        [
            "# What a regulariser costs per step: `python -m autoprune.analysis.benchmarks.method_overhead`",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}; its docstring says what is counted.",
            about,
            "",
            *table_head(columns),
            *map(line, rows),
        ]
    )


def where(subject: Subject, model: str, rounds: int, load: float) -> str:
    """Machine, versions, network, runtime, rounds."""
    runtime = subject.runtime
    name = torch.cuda.get_device_name(runtime.device) if runtime.device.startswith("cuda") else describe_machine()
    layout = "channels-last" if runtime.channels_last else "NCHW"
    return (
        f"{name}; torch {torch.__version__}, Python {platform.python_version()}; load average {load:.1f} before.\n"
        f"{model}, batch {BATCH}, {runtime.precision}, {layout}; medians of {rounds} rounds."
    )


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="resnet56", metavar="NAME", help="a network for small images; see the zoo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every round's numbers here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown, in which prose by hand stays")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    subject = Subject.of(options.model, options.device)
    rows = measure(subject, options.rounds)
    text = table(rows, where(subject, options.model, options.rounds, load))
    print(text)
    if options.table is not None:
        write_measured(options.table, text)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
