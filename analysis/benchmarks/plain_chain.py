"""One chain of small cuts per worker, and no search, by our own engine or by Torch-Pruning; every model is a point.

    python -m autoprune.analysis.benchmarks.plain_chain DATA --out ROWS.csv [--network resnet20] [--minutes 10]
        [--seed 0] [--workers 2] [--factor 0.87 | --cuts 7] [--images 32000] [--lr 0.03]

DATA is a folder with cifar10.npz and weights/. A cut takes the model to FACTOR of the FLOPs that it has: `l1`, all
groups ranked together by scores over their mean. Then batch norms are re-estimated, the model is fine-tuned with IMAGES
images as the ready space says, its accuracy is measured, and the next cut goes on from there. Below 5 % of the dense
model's FLOPs the chain begins again from the dense model, with another seed. All cuts of a chain see the same batches:
so the dense model's outputs for them are computed once. The clock starts before the workers do; a model finished too
late does not count. After the end the models of each worker's own front are measured on the task's test split:
column `unseen`, empty for the others.

With CUTS Torch-Pruning cuts, which has to be installed: its pruner takes 95 % of all channels in so many steps, ranked
over all layers, by l1 in the first worker, by FPGM in the second, by l2 in the third. All else is as above. It is for
networks whose linear layers are outputs and that add nothing (vgg16).
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autoprune import methods
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import TargetError
from autoprune.methods.magnitude import L1
from autoprune.recipe import Allocation, Target, Training
from autoprune.schema import read
from autoprune.study.pareto import nondominated
from autoprune.study.space_file import load_space
from autoprune.tasks import Task, load_task
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime, choose_runtime
from autoprune.trial.shared import SCORE_BATCH, SharedState

#: Of the dense model's FLOPs; the next cut of a chain would be below it.
FLOOR = 0.05
FACTOR, IMAGES, LR = 0.87, 32_000, 0.03
#: Share of all channels that Torch-Pruning has pruned after its last cut.
DEEPEST = 0.95
#: Ready spaces `cifar10_...` say what each is trained with.
NETWORKS = ("resnet20", "resnet56", "vgg16")
COLUMNS = ("seconds", "accuracy", "macs_ratio", "unseen")


@dataclass(frozen=True, eq=False)
class Link:
    """A model of a chain, its FLOPs relative to the dense model's, and its accuracy on the validation split."""

    model: nn.Module
    flops: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every worker is told.

    Fields:
        factor: FLOPs after a cut over those before it.
        cuts: of Torch-Pruning, in place of ours; None = ours.
        training: between two cuts.
        began, seconds: when the clock started, as `time.time` has it, and how long it runs.
    """

    network: str
    seed: int
    factor: float
    cuts: int | None
    training: Training
    runtime: Runtime
    began: float
    seconds: float

    def elapsed(self) -> float:
        """Seconds since the clock started."""
        return time.time() - self.began


def chain(shared: SharedState, training: Training, cuts: Iterable[nn.Module], seed: int) -> Iterator[Link]:
    """Every model that `cuts` makes is trained in place, which is what the next one is cut out of."""
    for model in cuts:
        graph = trace(model, shared.offsets.example)
        flops = cost(graph, Keep.all()).ratios(shared.dense_cost)["flops"]
        recalibrate(model, shared.task, shared.runtime, seed=seed)
        teacher = shared.teacher if training.distill > 0 else None
        fit(model, shared.task, training, shared.runtime, images=training.images, seed=seed, teacher=teacher)
        accuracy = evaluate(model, shared.task.validation, shared.task, shared.exact)
        yield Link(copy.deepcopy(model), flops, accuracy)


def own_cuts(shared: SharedState, factor: float, seed: int) -> Iterator[nn.Module]:
    """From the dense model to the floor, or to where no widths come near enough to the next target.

    Raises:
        TargetError: that is the case for the first cut already.
    """
    model, flops = copy.deepcopy(shared.model), 1.0
    while flops * factor >= FLOOR:
        try:
            model = _cut(model, shared, factor, seed)
        except TargetError:
            if flops == 1.0:
                raise
            return
        yield model
        flops = cost(trace(model, shared.offsets.example), Keep.all()).ratios(shared.dense_cost)["flops"]


def _cut(model: nn.Module, shared: SharedState, factor: float, seed: int) -> nn.Module:
    graph = trace(model, shared.offsets.example)
    scores = L1().score(shared.context(model, seed, graph))
    keep = allocate(graph, scores, Target(flops=factor), Allocation(name="global", normalise="mean"))
    return prune(model, graph, keep)


def cuts_of_torch_pruning(shared: SharedState, cuts: int, rank: int) -> Iterator[nn.Module]:
    """From the dense model to 5 % of its channels, in so many steps; ranked as `rank`, a worker's number, says."""
    from torch_pruning.pruner import MagnitudePruner, importance  # no dependency of ours

    criteria = (
        importance.GroupMagnitudeImportance(p=1),
        importance.FPGMImportance(),
        importance.GroupMagnitudeImportance(p=2),
    )
    model = copy.deepcopy(shared.model)
    pruner = MagnitudePruner(
        model,
        shared.offsets.example,
        criteria[rank % len(criteria)],
        global_pruning=True,
        pruning_ratio=DEEPEST,
        iterative_steps=cuts,
        ignored_layers=[layer for layer in model.modules() if isinstance(layer, nn.Linear)],
    )
    for _ in range(cuts):
        pruner.step()
        yield shared.runtime.place(model)


def chains(shared: SharedState, plan: Plan, rank: int) -> Iterator[Link]:
    """Chain after chain, without end; the worker and the number of the chain are part of its seed."""
    for number in itertools.count():
        seed = int(np.random.SeedSequence([plan.seed, rank, number]).generate_state(1)[0])
        ours = plan.cuts is None
        cuts = own_cuts(shared, plan.factor, seed) if ours else cuts_of_torch_pruning(shared, plan.cuts, rank)
        yield from chain(shared, plan.training, cuts, seed)


def finished_in_time(
    links: Iterable[Link], elapsed: Callable[[], float], seconds: float
) -> Iterator[tuple[float, Link]]:
    """(seconds, link) until the first that is finished too late."""
    for link in links:
        if (now := elapsed()) > seconds:
            return
        yield now, link


def run_worker(plan: Plan, rank: int) -> list[tuple[float, float, float, float | None]]:
    """The rows of one worker, a process of its own: what `COLUMNS` says."""
    torch.set_num_threads(plan.runtime.threads or 1)  # traces and cuts too: workers must not take each other's cores
    shared = SharedState.of(_task_of(plan.network), plan.runtime)
    found = list(finished_in_time(chains(shared, plan, rank), plan.elapsed, plan.seconds))
    points = np.array([(link.flops, -link.accuracy) for _, link in found]).reshape(-1, 2)
    return [
        (seconds, link.accuracy, link.flops, _accuracy_unseen(link.model, shared) if on_front else None)
        for (seconds, link), on_front in zip(found, nondominated(points), strict=True)
    ]


def _accuracy_unseen(model: nn.Module, shared: SharedState) -> float:
    return evaluate(model, shared.task.test, shared.task, shared.exact)


def _task_of(network: str) -> Task:
    return load_task(load_space(f"cifar10_{network}", find_method=methods.find).task)


def training_of(network: str, images: int, lr: float) -> Training:
    """What the ready space of a network trains with, for so many images at this learning rate, without rungs."""
    plain = load_space(f"cifar10_{network}", find_method=methods.find).to_plain()["space"]["training"]
    return read(Training, {**plain, "images": images, "lr": lr, "rungs": [1]}, f"cifar10_{network}: space.training")


def main() -> None:
    """Run the chains and write their rows, those that were finished first at the top."""
    options = _parse_arguments()
    os.environ["AUTOPRUNE_DATA"] = str(options.data)
    task = _task_of(options.network)
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    runtime = choose_runtime(task.model(), task, SCORE_BATCH, threads=threads)
    plan = Plan(
        network=options.network,
        seed=options.seed,
        factor=options.factor,
        cuts=options.cuts,
        training=training_of(options.network, options.images, options.lr),
        runtime=runtime,
        began=time.time(),
        seconds=60 * options.minutes,
    )
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool:
        ended = pool.map(run_worker, itertools.repeat(plan, options.workers), range(options.workers))
        rows = sorted(itertools.chain.from_iterable(ended), key=lambda row: row[0])
    with options.out.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="resnet20", choices=NETWORKS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--factor", type=float, default=FACTOR)
    parser.add_argument("--cuts", type=int)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--lr", type=float, default=LR)
    options = parser.parse_args()
    if not FLOOR <= options.factor < 1:
        parser.error(f"--factor {options.factor:g}: allowed are [{FLOOR:g}, 1)")
    return options


if __name__ == "__main__":
    main()
