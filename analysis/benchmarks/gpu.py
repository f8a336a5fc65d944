"""What one GPU is used to: one command that measures all of it, for a machine that is there for ten minutes.

    python -m autoprune.analysis.benchmarks.gpu --out FOLDER [--device cuda] [--minutes 9] [--sections speed ...]
        [--data DATA --baselines FOLDER [--python PYTHON]]

* speed: images a second of a training, ResNet-20 and a pruned one, layer by layer and as graphs, without and with
  distillation and moving average.
* sharing: how many trainings `gpus_per_trial: auto` puts on the card, and how long it takes to find that.
* together: images a second of several processes on the one card, in turns, and through the Multi-Process Service.
* agreement: every method with a stage and a plain training, 200 steps of each both ways: losses and what is kept.
* deployed: time of half-FLOPs networks as deployed, any widths beside fast ones.
* search: four minutes of the ready space, and of `iterative.py`, on the card; with DATA and the FOLDER of baselines, as
  of `search_efficiency.py`.

FOLDER gets rows.jsonl, a row as soon as it is measured, with the machine, and gpu.md. A section that has not begun when
the minutes are over is left out, and the page says so. On the CPU everything runs in a tiny setting, which says nothing
about speed: a test runs it, so that it does not rot. Images are random pixels of CIFAR-10's shape.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.analysis.benchmarks import fast_widths
from autoprune.analysis.benchmarks.markdown import table_head, table_row, write_measured
from autoprune.analysis.benchmarks.search_efficiency_runs import ITERATIVE, Plan, measure
from autoprune.analysis.benchmarks.train_speed import networks, open_task
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.methods import METHODS, Method, Stage
from autoprune.recipe import Allocation, Target, Training
from autoprune.search.running.mps import join_mps
from autoprune.study.constraints import Latency
from autoprune.study.log import append_line
from autoprune.tasks import Task
from autoprune.timing.machine import machine_name
from autoprune.training.distillation import Teacher
from autoprune.training.fit import FitLog, fit
from autoprune.training.gpu_sharing import trainings_that_pay
from autoprune.training.runtime import Runtime, pick_device
from autoprune.trial.shared import SharedState

HALF = Target(flops=0.5)
PLAIN = Training(lr=0.03)
#: Of the search, and of the loop beside it.
SEARCH_MINUTES = 4.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much is measured: on a GPU all, on a CPU as little as runs every line.

    `rivals`: how the search and the loop beside it are run; None = they are not.
    """

    device: str
    images: int
    batches: tuple[int, ...]
    processes: tuple[int, ...]
    steps: int
    networks: tuple[str, ...]
    methods: tuple[str, ...]
    rivals: Plan | None = None

    @classmethod
    def of(cls, device: str) -> Setting:
        """The setting of a device."""
        staged = tuple(name for name, kind in METHODS.items() if sum(kind().stage_shares))
        if device == "cpu":
            return cls(
                device=device,
                images=64,
                batches=(32,),
                processes=(2,),
                steps=2,
                networks=("squeezenet1_1",),
                methods=staged[:1],
            )
        return cls(
            device=device,
            images=128_000,
            batches=(128, 512),
            processes=(1, 4, 8),
            steps=200,
            networks=("resnet50", "resnet18", "vgg16_bn", "mobilenet_v3_large"),
            methods=staged,
        )

    def runtime(self, *, graphs: bool) -> Runtime:
        """As trials compute there, as graphs or not; on a CPU there are none, and bf16 may take ten times as long."""
        on_gpu = self.device.startswith("cuda")
        precision = "bf16" if on_gpu else "fp32"
        return Runtime(device=self.device, precision=precision, channels_last=True, graphs=graphs and on_gpu)


Row = dict[str, Any]


def speed(setting: Setting) -> Iterator[Row]:
    """Images a second of one training."""
    task = open_task(None)
    for name, model in networks(task).items():
        for batch in setting.batches:
            for helped in (False, True):
                for graphs in (False, True):
                    found = _trained(model, task, setting, batch, helped=helped, graphs=graphs)
                    how = {"network": name, "batch": batch, "distilled, averaged": helped, "graphs": graphs}
                    yield {**how, "images/s": round(found.images / found.seconds), "remark": found.remark}


def _trained(
    model: nn.Module, task: Task, setting: Setting, batch: int, *, helped: bool, graphs: bool, images: int | None = None
) -> FitLog:
    """A training on the clock, after one that is not: it fills caches, and the teacher's outputs with them."""
    runtime, training = setting.runtime(graphs=graphs), replace(PLAIN, batch_size=batch)
    if helped:
        training = replace(training, distill=0.5, ema=0.97)
    teacher = Teacher(task.build()) if helped else None
    count = images or setting.images
    for _ in range(2):
        log = fit(copy.deepcopy(model), task, training, runtime, images=count, seed=0, teacher=teacher)
    return log


def sharing(setting: Setting) -> Iterator[Row]:
    """How many trainings `resources.gpus_per_trial: auto` would put on the card; a CPU is not shared so."""
    task = open_task(None)
    for name, model in networks(task).items():
        for batch in setting.batches:
            began = time.monotonic()
            on_gpu = setting.device.startswith("cuda")
            count = trainings_that_pay(model, task, batch, setting.runtime(graphs=True)) if on_gpu else 1
            yield {"network": name, "batch": batch, "trainings": count, "seconds": round(time.monotonic() - began, 1)}


def together(setting: Setting) -> Iterator[Row]:
    """Images a second of several processes on one card, in all, between the first start and the last end."""
    for graphs in (False, True):
        for count in setting.processes:
            for mps in (False, True):
                yield _together(setting, count, graphs=graphs, mps=mps)


def _together(setting: Setting, count: int, *, graphs: bool, mps: bool) -> Row:
    context = torch.multiprocessing.get_context("spawn")
    ready, results = context.Barrier(count), context.Queue()
    arguments = (setting, graphs, mps, ready, results)
    processes = [context.Process(target=_train_beside, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    ends = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    seconds = max(end for _, end, _ in ends) - min(start for start, _, _ in ends)
    how = {"processes": count, "graphs": graphs, "mps": mps}
    return {**how, "images/s": round(count * setting.images / seconds), "remark": ends[0][2]}


def _train_beside(setting: Setting, graphs: bool, mps: bool, ready: Any, results: Any) -> None:
    missing = join_mps() if mps else ""
    torch.set_num_threads(1)
    task = open_task(None)
    model, batch = networks(task)["ResNet-20"], setting.batches[0]
    _trained(model, task, setting, batch, helped=False, graphs=graphs, images=batch)
    ready.wait()
    began = time.time()
    training = replace(PLAIN, batch_size=batch)
    fit(model, task, training, setting.runtime(graphs=graphs), images=setting.images, seed=0)
    results.put((began, time.time(), missing))


def agreement(setting: Setting) -> Iterator[Row]:
    """Losses of the same steps layer by layer and as graphs, and how many units are kept by both."""
    task = open_task(None)
    shared = SharedState.of(task, setting.runtime(graphs=False))
    for name in ("plain", *setting.methods):
        method = None if name == "plain" else METHODS[name]()
        sides = [_staged(shared, setting, method, graphs=graphs) for graphs in (False, True)]
        losses = [log.loss or 0.0 for log, _ in sides]
        row = {
            "method": name,
            "loss": round(losses[0], 4),
            "as graphs": round(losses[1], 4),
            "remark": sides[1][0].remark,
        }
        keeps = [keep for _, keep in sides if keep is not None]
        yield {**row, "kept alike": round(_alike(shared, *keeps), 4) if keeps else None}


def _staged(
    shared: SharedState, setting: Setting, method: Method | None, *, graphs: bool
) -> tuple[FitLog, Keep | None]:
    runtime = setting.runtime(graphs=graphs)
    model, training, regulariser = runtime.place(copy.deepcopy(shared.model)), replace(PLAIN, batch_size=128), None
    context = shared.context(model, 0)
    if method is not None:
        training = method.stage_training(training)
        stage = Stage(HALF, Allocation(), training, setting.steps, weight_decay=training.weight_decay)
        regulariser = method.sparsify(context, stage)
    images = setting.steps * training.batch_size
    log = fit(model, shared.task, training, runtime, images=images, seed=0, regulariser=regulariser)
    if method is None:
        return log, None
    scores = method.score(replace(context, regulariser=regulariser))
    return log, allocate(shared.graph, scores, HALF, Allocation())


def _alike(shared: SharedState, one: Keep, other: Keep) -> float:
    """The share of units of which both say the same."""
    return float((one.units(shared.graph) == other.units(shared.graph)).mean())


def deployed(setting: Setting) -> Iterator[Row]:
    """Time of networks at half the FLOPs relative to the dense one's."""
    on_gpu = setting.device.startswith("cuda")
    how = Latency(batch=64, runtime="graph", dtype="bfloat16") if on_gpu else Latency(runtime="eager", threads=1)
    for network in setting.networks:
        for row in fast_widths.measure(network, "h100-bf16" if on_gpu else "cpu", [how], 1):
            times = {"dense, ms": round(row.dense_ms, 3), "any widths": round(row.any_widths, 3)}
            yield {"network": network, "batch": how.batch, **times, "round_to: auto": round(row.fast, 3)}


def search(setting: Setting) -> Iterator[Row]:
    """The ready space and the loop of another tool, in the same minutes on the same card."""
    if setting.rivals is None:
        return
    for side in ("ours", ITERATIVE):
        run = measure(replace(setting.rivals, side=side))
        front = {"hypervolume": round(run.volume, 4), "mean height": round(run.height, 4)}
        yield {"side": side, "minutes": run.minutes, "models": run.counts["completed"], **front}


SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "speed": speed,
    "sharing": sharing,
    "together": together,
    "agreement": agreement,
    "deployed": deployed,
    "search": search,
}


def page(rows: list[Row], left_out: list[str]) -> str:
    """The page of the rows of one run."""
    lines = ["# One GPU", "", "`python -m autoprune.analysis.benchmarks.gpu`"]
    for section in dict.fromkeys(row["section"] for row in rows):
        found = [row for row in rows if row["section"] == section]
        columns = [name for name in found[0] if name not in ("section", "machine", "torch", "time")]
        where = f"{found[-1]['machine']}, torch {found[-1]['torch']}, {found[-1]['time']}"
        lines += ["", f"## {section}", "", where, "", *table_head(columns)]
        lines += [table_row("" if row[name] is None else row[name] for name in columns) for row in found]
    if left_out:
        lines += ["", f"Left out, as the time was over or its files were not given: {', '.join(left_out)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure section after section until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--baselines", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    setting, ends = _setting_of(options), time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    left_out = []
    for section in options.sections:
        if time.monotonic() > ends or (section == "search" and setting.rivals is None):
            left_out.append(section)
            continue
        for found in SECTIONS[section](setting):
            measured_on = {"machine": machine_name(setting.device), "torch": torch.__version__}
            rows.append(
                {"section": section, **found, **measured_on, "time": datetime.now(UTC).isoformat("T", "minutes")}
            )
            append_line(options.out / "rows.jsonl", json.dumps(rows[-1]))
            print(json.dumps(found), flush=True)
            if time.monotonic() > ends:
                break
    write_measured(options.out / "gpu.md", page(rows, left_out))


def _setting_of(options: argparse.Namespace) -> Setting:
    setting = Setting.of(pick_device(options.device))
    if options.data is None or options.baselines is None or setting.device == "cpu":
        return setting
    os.environ["AUTOPRUNE_DATA"] = str(options.data)  # inherited by the searches that it starts
    files = {"data": options.data, "baselines": options.baselines, "python": options.python}
    plan = Plan(side="ours", network="resnet20", minutes=SEARCH_MINUTES, seed=0, device="cuda", **files)
    return replace(setting, rivals=plan)


if __name__ == "__main__":
    main()
