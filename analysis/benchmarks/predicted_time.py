"""How near predicted times come to those of models that the prediction has not seen.

    python -m autoprune.analysis.benchmarks.predicted_time [--networks resnet50 mobilenet_v2 efficientnet_b0]
        [--runtimes eager onnxruntime] [--threads 1] [--models 50] [--round-to auto] [--out ROWS.jsonl]

For each network (batch 1, 224x224) and runtime a prediction is fitted to random models, as a study does it, and then
further random models are timed as trials time theirs. A row is written as soon as it is measured, and a row that is
there is not measured again; the page is written anew from all rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import autoprune
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.engine.surgery.prune import prune
from autoprune.recipe import Allocation
from autoprune.study.constraints import Latency
from autoprune.study.log import append_line
from autoprune.timing.pairs import Timer
from autoprune.timing.random_models import MODELS, fit_to_random_models, random_keeps
from autoprune.training.runtime import Runtime

PAGE = Path(__file__).with_suffix(".md")
NETWORKS, RUNTIMES = ("resnet50", "mobilenet_v2", "efficientnet_b0"), ("eager", "onnxruntime")
#: Seeds of the models that are fitted to, and of those that are not.
FITTED, HELD_OUT = 0, 1
COLUMNS = (
    *("network", "runtime", "threads", "round_to", "fitted to", "in", "models", "median error", "95 %", "most"),
    *("named", "interval", "a prediction"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one network in one runtime.

    Fields:
        measured: (ratio, low, high) of every model that the fit has not seen; `predicted`: of each.
        median, most: errors that the prediction names of itself.
        microseconds: of one prediction.
    """

    network: str
    runtime: str
    threads: int
    round_to: int | str
    fitted: int
    measured: list[list[float]]
    predicted: list[float]
    median: float
    most: float
    microseconds: float
    seconds: float
    machine: str
    torch: str

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is of."""
        return self.network, self.runtime, self.threads, self.round_to

    @property
    def errors(self) -> np.ndarray:
        """Relative, of each model."""
        ratios = np.array(self.measured)[:, 0]
        found: np.ndarray = np.abs(np.array(self.predicted) / ratios - 1)
        return found

    @property
    def spread(self) -> float:
        """The median width of a measured interval, as a share of its ratio."""
        ratio, low, high = np.array(self.measured).T
        return float(np.median((high - low) / ratio))


def measure(network: str, latency: Latency, round_to: int | str, models: int) -> Row:
    """Fit to `MODELS` random models, and time others."""
    model = getattr(torchvision.models, network)().eval()
    example = (torch.randn(1, 3, 224, 224),)
    graph = autoprune.trace(model, example)
    timer = Timer(lambda: model, example, Runtime(threads=latency.threads))
    allocation, began = Allocation(name="uniform", round_to=round_to), time.perf_counter()
    prediction = fit_to_random_models(model, graph, allocation, partial(timer.roughly, latency=latency), seed=FITTED)
    seconds = time.perf_counter() - began
    keeps = list(itertools.islice(random_keeps(graph, allocation, HELD_OUT), models))
    timings = [timer.time(prune(model, graph, keep), latency) for keep in keeps]
    counts, began = [keep.counts(graph) for keep in keeps], time.perf_counter()
    predicted = [prediction.ratio(one) for one in counts]
    return Row(
        network=network,
        runtime=latency.runtime,
        threads=latency.threads or torch.get_num_threads(),
        round_to=round_to,
        fitted=MODELS,
        measured=[[timing.ratio, timing.low, timing.high] for timing in timings],
        predicted=predicted,
        median=prediction.median,
        most=prediction.most,
        microseconds=1e6 * (time.perf_counter() - began) / len(counts),
        seconds=seconds,
        machine=describe_machine(),
        torch=torch.__version__,
    )


def page(rows: list[Row]) -> str:
    """The measured part of the page."""
    lines = [
        "# Predicted time beside measured time",
        "",
        f"`python -m autoprune.analysis.benchmarks.predicted_time`; {rows[-1].machine}; torch {rows[-1].torch}.",
        "Batch 1, 224x224, float32. Errors are of models that the prediction was not fitted to, relative to their",
        "measured times; *named*: what the prediction says of itself, from leaving out a fifth of the models that it",
        "is fitted to. Interval: what of a measured time is uncertain, its whole width.",
        "",
        *table_head(
            [
                *(
                    "network",
                    "runtime",
                    "threads",
                    "round_to",
                    "fitted to",
                    "in",
                    "models",
                    "median error",
                    "95 %",
                    "most",
                ),
                *("named", "interval", "a prediction"),
            ],
            text=(0, 1),
        ),
    ]
    for row in rows:
        errors = row.errors
        shares = [np.median(errors), np.quantile(errors, 0.95), errors.max()]
        how = [row.network, row.runtime, row.threads, row.round_to, row.fitted, f"{row.seconds:.0f} s", len(errors)]
        named = [f"{row.median:.1%}, {row.most:.1%}", f"{row.spread:.1%}", f"{row.microseconds:.0f} us"]
        lines.append(table_row([*how, *(f"{share:.1%}" for share in shares), *named]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--round-to", type=lambda text: text if text == "auto" else int(text), default="auto")
    parser.add_argument("--out", type=Path, default=PAGE.with_suffix(".jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [Row(**json.loads(line)) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for network, runtime in itertools.product(options.networks, options.runtimes):
        if (network, runtime, options.threads, options.round_to) in {row.key for row in rows}:
            continue
        rows.append(
            measure(network, Latency(runtime=runtime, threads=options.threads), options.round_to, options.models)
        )
        append_line(options.out, json.dumps(asdict(rows[-1])))
        print(page(rows[-1:]).splitlines()[-1], flush=True)
    write_measured(options.out.with_suffix(".md"), page(rows))


if __name__ == "__main__":
    main()
