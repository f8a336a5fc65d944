"""Half the FLOPs and the time that is left: networks of torchvision with any widths and with fast ones.

    python -m autoprune.analysis.benchmarks.fast_widths ROWS.jsonl [--networks resnet50 ...]
        [--runtimes onnxruntime eager] [--device cpu] [--threads 2] [--page PAGE.md]

    python -m autoprune.analysis.benchmarks.fast_widths ROWS.jsonl --accuracy 0 1 2

Each network is pruned to half its FLOPs by `uniform` at random scores, once with `round_to` 1 and once with `auto`, and
timed against the dense one in turns (`timing.pairs`), 224 x 224, batch 1, float32. `--accuracy` trains instead, with
these seeds: ResNet-20 on CIFAR-10, `l1` with `global` by mean at half the FLOPs, 250 steps, as `cifar10_resnet20`
trains; data and weights by $AUTOPRUNE_DATA. A row is appended as it is measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torchvision

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.allocation.widths import slow_groups
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import StudyError
from autoprune.recipe import AUTO, Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.constraints import Latency
from autoprune.study.log import append_line, read_lines
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.timing.pairs import Timer, Timing
from autoprune.training.runtime import Runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

PAGE = Path(__file__).with_suffix(".md")
NETWORKS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "vgg16_bn", "efficientnet_b0"),
    *("densenet121", "googlenet", "regnet_y_400mf", "mnasnet1_0", "squeezenet1_1"),
)
HALF = Target(flops=0.5)


@dataclass(frozen=True, kw_only=True)
class WidthsRow:
    """One network in one runtime.

    Fields:
        any_widths, fast: time over the dense model's of the model with any widths and of that with fast ones.
        any_interval, fast_interval: see `pairs.Timing`.
        flops: of the model with fast widths, relative to the dense one.
        slow: groups whose width is not a fast one since the target asked for it.
    """

    network: str
    runtime: str
    device: str
    dense_ms: float
    any_widths: float
    any_interval: tuple[float, float]
    fast: float
    fast_interval: tuple[float, float]
    flops: float
    slow: int
    machine: str


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """One training of ResNet-20.

    Fields:
        flops: of the pruned model, relative to the dense one.
        metric, unseen: accuracy on the images that searches select on, and on those that none sees.
    """

    round_to: int | str
    seed: int
    flops: float
    metric: float
    unseen: float


def train(round_to: int | str, seed: int, shared: SharedState) -> AccuracyRow:
    """Prune and train once."""
    training = Training(images=32_000, lr=0.02, warmup=0.1, distill=0.5, ema=0.97, rungs=(1.0,))
    recipe = Recipe(
        method=MethodChoice(name="l1"),
        target=HALF,
        allocation=Allocation(name="global", round_to=round_to),
        training=training,
        seed=seed,
    )
    found = run(recipe, shared, final=True).outcome
    if found.metric is None or found.test_metric is None or found.flops_ratio is None:
        raise StudyError(found.error or found.status)
    return AccuracyRow(
        round_to=round_to, seed=seed, flops=found.flops_ratio, metric=found.metric, unseen=found.test_metric
    )


def train_all(seeds: Sequence[int]) -> Iterator[AccuracyRow]:
    """A training with any widths and one with fast ones for each seed."""
    config = load_space("cifar10_resnet20", find_method=methods.find)
    shared = SharedState.of(load_task(config.task))
    for seed in seeds:
        for round_to in (1, AUTO):
            yield train(round_to, seed, shared)


def measure(network: str, device: str, latencies: Sequence[Latency], threads: int) -> Iterator[WidthsRow]:
    """A row for each runtime."""
    torch.manual_seed(0)
    model, example = getattr(torchvision.models, network)(weights=None).eval(), (torch.randn(1, 3, 224, 224),)
    graph = trace(model, example[0])
    scores = _random_scores(graph)
    keeps = {
        round_to: allocate(graph, scores, HALF, Allocation(name="uniform", round_to=round_to, device=device))
        for round_to in (1, AUTO)
    }
    models = {round_to: prune(model, graph, keep) for round_to, keep in keeps.items()}
    ratio = cost(graph, keeps[AUTO]).ratios(cost(graph, Keep.all()))["flops"]
    timer = Timer(lambda: model, example, Runtime(threads=threads))
    for latency in latencies:
        plain, fast = (timer.time(models[round_to], latency) for round_to in (1, AUTO))
        yield WidthsRow(
            network=network,
            runtime=latency.runtime,
            device=device,
            dense_ms=fast.ms / fast.ratio,
            any_widths=plain.ratio,
            any_interval=_interval(plain),
            fast=fast.ratio,
            fast_interval=_interval(fast),
            flops=ratio,
            slow=len(slow_groups(graph, keeps[AUTO], Allocation(round_to=AUTO, device=device))),
            machine=describe_machine(),
        )


def _random_scores(graph: ChannelGraph) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {group.id: generator.random(group.size) for group in graph.prunable}


def _interval(timing: Timing) -> tuple[float, float]:
    return timing.low, timing.high


def page(rows: Sequence[WidthsRow], trained: Sequence[AccuracyRow]) -> str:
    """The measured part of the page."""
    head = ["network", "runtime", "dense, ms", "any widths", "`round_to: auto`", "FLOPs", "groups of other widths"]
    lines = [
        "# Time at half the FLOPs: `python -m autoprune.analysis.benchmarks.fast_widths`",
        "",
        "Pruned by `uniform` at random scores, 224 x 224, batch 1, float32; time over the dense model's, in turns with",
        f"it, with the interval of the median. Width table: `{rows[-1].device}`. {rows[-1].machine}.",
        "",
        *table_head(head, text=(1,)),
    ]
    for row in rows:
        cells = [f"{row.dense_ms:.1f}", _cell(row.any_widths, row.any_interval), _cell(row.fast, row.fast_interval)]
        lines.append(table_row([row.network, row.runtime, *cells, f"{100 * row.flops:.1f} %", row.slow]))
    return "\n".join([*lines, "", *_accuracy_table(trained)]) + "\n"


def _accuracy_table(rows: Sequence[AccuracyRow]) -> list[str]:
    seeds = sorted({row.seed for row in rows})
    head = ["ResNet-20, CIFAR-10, 250 steps, `round_to`", "FLOPs", "mean", *(f"seed {seed}" for seed in seeds)]
    lines = ["Accuracy on images that no search has seen, and beside it on those that searches select on:", ""]
    lines += table_head(head)
    for round_to in (1, AUTO):
        own = sorted((row for row in rows if row.round_to == round_to), key=lambda row: row.seed)
        if own:
            cells = [f"{100 * row.unseen:.2f} ({100 * row.metric:.2f})" for row in own]
            mean = f"{100 * fmean(row.unseen for row in own):.2f} ({100 * fmean(row.metric for row in own):.2f})"
            lines.append(table_row([round_to, f"{100 * own[0].flops:.1f} %", mean, *cells]))
    return lines


def _cell(ratio: float, interval: tuple[float, float]) -> str:
    return f"{ratio:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def main() -> None:
    """Measure what the options say, append the rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime", "eager"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--accuracy", type=int, nargs="+", metavar="SEED", help="train, instead of timing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for row in train_all(options.accuracy) if options.accuracy else _timed(options):
        print(row, flush=True)
        append_line(options.rows, json.dumps(asdict(row)))
    rows = [json.loads(line) for _, line in read_lines(options.rows)]
    timed = [WidthsRow(**row) for row in rows if "network" in row]
    write_measured(options.page, page(timed, [AccuracyRow(**row) for row in rows if "network" not in row]))


def _timed(options: argparse.Namespace) -> Iterator[WidthsRow]:
    latencies = [Latency(runtime=runtime, threads=options.threads) for runtime in options.runtimes]
    for network in options.networks:
        yield from measure(network, options.device, latencies, options.threads)


if __name__ == "__main__":
    main()
