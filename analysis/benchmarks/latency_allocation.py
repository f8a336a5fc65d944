"""Accuracy at equal latency: channels ranked by score, by score per FLOPs and by score per time.

    python -m autoprune.analysis.benchmarks.latency_allocation DATA [--network resnet20] [--limit 0.7] [--seeds 0 1 2]
        [--method taylor] [--normalise none] [--images 32000] [--out ROWS.jsonl]

DATA is a folder with cifar10.npz and, for resnet20, weights/. `resnet18` is torchvision's at 32x32, trained here first
on 300,000 images. For every ranking, with widths of any kind and with `round_to: auto`, as much is kept as the
predicted time in onnxruntime (one thread, batch 1) allows; the cut model is timed, and the prediction corrected by what
it was wrong by, until the model takes what was asked for. Then it is fine-tuned as the ready space of ResNet-20 says.
Accuracy is of the first 5,000 test images; `unseen` of the others. Trainings that are in ROWS are not made again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoprune.analysis.benchmarks.markdown import describe_machine, mean_and_std, table_head, table_row, write_measured
from autoprune.analysis.benchmarks.plain_chain import LR, training_of
from autoprune.engine.allocation.allocate import allocate, smallest
from autoprune.engine.allocation.predicted_time import PredictedTime
from autoprune.engine.allocation.prices import saved_per_unit
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.methods import METHODS, Scores, find
from autoprune.recipe import Allocation, Target, Training
from autoprune.study.constraints import Latency
from autoprune.study.log import append_line
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.timing.pairs import Timing
from autoprune.timing.random_models import fit_to_random_models
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.training.fit import fit
from autoprune.training.runtime import choose_runtime
from autoprune.trial.shared import SCORE_BATCH, SharedState

PAGE = Path(__file__).with_suffix(".md")
RANKINGS, ROUNDED = ("channel", "flops", "latency"), (1, "auto")
HOW = Latency(runtime="onnxruntime", threads=1)
#: A model is asked to come this near to the limit, in so many timings.
NEAR, TIMINGS = 0.02, 5
DENSE_IMAGES = 300_000
#: Fields of a row that say what it is of.
KEY = ("network", "method", "normalise", "limit", "per", "round_to", "seed")
COLUMNS = (
    *("network", "method", "normalise", "limit", "scores per", "round_to", "latency", "FLOPs"),
    *("seeds", "accuracy", "unseen", "dense"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training. `latency`: (ratio, low, high), measured; `dense`: accuracy of the dense model."""

    network: str
    method: str
    normalise: str
    limit: float
    per: str
    round_to: int | str
    seed: int
    latency: tuple[float, float, float]
    flops: float
    accuracy: float
    unseen: float
    dense: float
    images: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is of."""
        return tuple(getattr(self, name) for name in KEY)


def cut(
    shared: SharedState, scores: Scores, allocation: Allocation, prediction: PredictedTime, limit: float
) -> tuple[Keep, Timing]:
    """What a ranking keeps at the limit, and what the cut model takes."""
    graph = shared.graph
    if allocation.per == "latency":
        allocation = replace(allocation, per="given", prices=saved_per_unit(graph, prediction.ratios))
    correction, best = 1.0, None
    for _ in range(TIMINGS):
        keep = _most(graph, scores, allocation, prediction, limit / correction)
        timing = shared.timer.time(prune(shared.model, graph, keep), HOW)
        if best is None or abs(timing.ratio - limit) < abs(best[1].ratio - limit):
            best = keep, timing
        if abs(timing.ratio - limit) <= NEAR * limit:
            break
        correction = timing.ratio / prediction.ratio(keep.counts(graph))
    assert best is not None
    return best


def _most(graph: Any, scores: Any, allocation: Allocation, prediction: PredictedTime, limit: float) -> Keep:
    """What is kept of the most FLOPs at which the prediction is within the limit."""
    low, high = smallest(graph, allocation).ratios(cost(graph, Keep.all()))["flops"] + 0.01, 1.0
    while high - low > 0.002:
        middle = (low + high) / 2
        keep = allocate(graph, scores, Target(flops=middle), allocation)
        low, high = (middle, high) if prediction.ratio(keep.counts(graph)) <= limit else (low, middle)
    return allocate(graph, scores, Target(flops=low), allocation)


def open_shared(network: str, threads: int) -> SharedState:
    """The dense network and its data; one without weights is trained first."""
    plain = load_space("cifar10_resnet20", find_method=find).task
    if network != "resnet20":
        training = {"images": DENSE_IMAGES, "lr": 0.1, "batch_size": 128, "ema": 0.99, "warmup": 0.1}
        plain = {**plain, "model": {"name": network, "train": training}}
    task = load_task(plain)
    model = task.model()
    runtime = choose_runtime(model, task, SCORE_BATCH, threads=threads)
    return SharedState.of(task, runtime, model=model)


def train(shared: SharedState, keep: Keep, training: Training, seed: int) -> tuple[float, float]:
    """The accuracy of the cut and fine-tuned model on the two halves of the test images."""
    model = shared.runtime.place(prune(copy.deepcopy(shared.model), shared.graph, keep))
    recalibrate(model, shared.task, shared.runtime, seed=seed)
    fit(model, shared.task, training, shared.runtime, images=training.images, seed=seed, teacher=shared.teacher)
    return evaluate(model, shared.task.validation, shared.task, shared.exact), shared.test_value(model)


def page(rows: list[Row]) -> str:
    """The measured part of the page."""
    lines = [
        "# Accuracy at equal latency",
        "",
        f"`python -m autoprune.analysis.benchmarks.latency_allocation`; {describe_machine()},",
        f"torch {torch.__version__}.",
        "CIFAR-10, global ranking, batch 1 in onnxruntime on one thread; mean and deviation over seeds. Seeds draw",
        "what is trained with; what is kept is the same for all.",
        "",
        *table_head(COLUMNS, text=(0, 1, 2, 4, 5)),
    ]
    for key in dict.fromkeys(row.key[:-1] for row in rows):
        group = [row for row in rows if row.key[:-1] == key]
        ratio, low, high = group[0].latency
        percent = [[100 * getattr(row, name) for row in group] for name in ("accuracy", "unseen")]
        cost_words = [f"{ratio:.3f} ({low:.3f} to {high:.3f})", f"{group[0].flops:.1%}", len(group)]
        lines.append(table_row([*key, *cost_words, *map(mean_and_std, percent), f"{100 * group[0].dense:.2f}"]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Cut, time and train what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--limit", type=float, default=0.7)
    parser.add_argument("--method", default="taylor")
    parser.add_argument("--normalise", default="none")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--images", type=int, default=32_000)
    parser.add_argument("--out", type=Path, default=PAGE.with_suffix(".jsonl"))
    options = parser.parse_args()
    os.environ["AUTOPRUNE_DATA"] = str(options.data)
    shared = open_shared(options.network, torch.get_num_threads())
    training, dense = training_of("resnet20", options.images, LR), shared.dense_metric()
    scores = METHODS[options.method]().score(shared.context(shared.model, 0))
    common = (options.network, options.method, options.normalise, options.limit)
    cuts = list(_cuts(shared, scores, options.normalise, options.limit))  # all timings before the first training
    for seed, (per, round_to, keep, timing) in itertools.product(options.seeds, cuts):
        key = (*common, per, round_to, seed)
        if key in {row.key for row in read_rows(options.out)}:
            continue
        accuracy, unseen = train(shared, keep, training, seed)
        row = Row(
            **dict(zip(KEY, key, strict=True)),
            latency=(timing.ratio, timing.low, timing.high),
            flops=cost(shared.graph, keep).ratios(shared.dense_cost)["flops"],
            accuracy=accuracy,
            unseen=unseen,
            dense=dense,
            images=options.images,
        )
        append_line(options.out, json.dumps(asdict(row)))
        print(row, flush=True)
    write_measured(options.out.with_suffix(".md"), page(read_rows(options.out)))


def _cuts(shared: SharedState, scores: Scores, normalise: str, limit: float) -> Iterator[tuple[Any, ...]]:
    """Ranking, widths, what is kept, and what that takes."""
    for round_to in ROUNDED:
        plain, timed = Allocation(name="uniform", round_to=round_to), partial(shared.timer.roughly, latency=HOW)
        prediction = fit_to_random_models(shared.model, shared.graph, plain, timed)
        for per in RANKINGS:
            allocation = Allocation(normalise=normalise, per=per, round_to=round_to)
            yield per, round_to, *cut(shared, scores, allocation, prediction, limit)


def read_rows(file: Path) -> list[Row]:
    """What was measured so far."""
    return [Row(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
