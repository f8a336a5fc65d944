"""How fast the engine is beside Torch-Pruning 1.6.1, both measured in turns in one run; and how its work grows.

    python -m autoprune.analysis.benchmarks.engine_speed [--models NAME ...] [--rounds N] [--json OUT] [--table FILE]

Twelve torchvision models, 224 x 224 pixels, one thread, random scores, global ranking, half of the FLOPs.

* whole, ours: `trace`, random scores, `allocate`, `prune`; theirs: a pruner (which builds the graph) and its `step`;
* candidate, ours: random scores, `allocate`, `prune`, the graph is known; theirs: the same as whole. Their graph holds
  the modules that `step` changes in place, and neither it nor the pruner can be copied: each candidate needs a new one.

What makes it fair. Their example input is a tuple, which spares them a forward pass that fails; `pruning_ratio` is the
share of channels that ours removes, and their classifier is left alone as ours is; the table says what FLOPs both
leave. Theirs changes the model that it is given, ours makes a new one; the copy that a search with theirs needs is not
in their time, but beside it. `prune` is timed without folding (what removed channels still emit goes into biases): it
runs the model on data, and theirs has nothing like it; what the default takes has a column of its own. The floor is
what copying the kept weights takes, index by index, and nothing else.

Times are processor time. A round is every side once, each after garbage is collected. The first round of a model is not
counted. Ratios are taken within a round; the table has their medians. Models that take theirs longer than `PATIENCE`
get two rounds, all counted.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.analysis.benchmarks import engine_growth
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.surgery.tensors import all_kept, named_tensors
from autoprune.engine.tracing.trace import trace
from autoprune.recipe import Target

try:
    import torch_pruning
except ImportError:
    torch_pruning = None


MODELS = (
    *("resnet18", "resnet50", "resnet152", "vgg16", "densenet121", "densenet201", "mobilenet_v2"),
    *("mobilenet_v3_large", "efficientnet_b0", "regnet_y_400mf", "resnext50_32x4d", "googlenet"),
)

HALF = Target(flops=0.5)

PATIENCE = 10.0


@dataclass(frozen=True)
class Round:
    """Seconds of one round, every side once; theirs are None without Torch-Pruning."""

    trace: float
    allocate: float
    prune: float
    candidate: float
    folding: float
    floor: float
    theirs: float | None
    their_copy: float | None

    @property
    def whole(self) -> float:
        """Ours, from a model to a smaller one."""
        return self.trace + self.allocate + self.prune


@dataclass(frozen=True)
class Row:
    """One model: its rounds, and the share of FLOPs that both sides leave."""

    model: str
    rounds: tuple[Round, ...]
    left: float
    their_left: float | None

    def seconds(self, name: str) -> float:
        """Median over the rounds."""
        return statistics.median(getattr(found, name) for found in self.rounds)

    def ratio(self, ours: str, *, copied: bool = False) -> float:
        """Their time over ours, median over the rounds; with the copy of the model that they need, or without."""
        return statistics.median(
            ((found.theirs or math.nan) + copied * (found.their_copy or 0)) / getattr(found, ours)
            for found in self.rounds
        )


def build(name: str) -> nn.Module:
    """The torchvision model with random weights, in eval mode."""
    without_heads = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None, **without_heads).eval()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time and result, after garbage is collected."""
    gc.collect()
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def decide(graph: ChannelGraph, seed: int) -> Keep:
    """Random scores, ranked globally, half of the FLOPs."""
    random = np.random.default_rng(seed)
    return allocate(graph, {group.id: random.random(group.size) for group in graph.prunable}, HALF)


def share(graph: ChannelGraph, keep: Keep) -> float:
    """The share of prunable channels that is removed."""
    return 1 - sum(keep.widths(graph).values()) / sum(group.size for group in graph.prunable)


def theirs(model: nn.Module, image: Tensor, removed: float) -> None:
    """Their pruner and its one step; the model is changed."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        (image,),
        importance=torch_pruning.importance.RandomImportance(),
        global_pruning=True,
        pruning_ratio=removed,
        ignored_layers=[last],
    )
    pruner.step()


def copier(model: nn.Module, graph: ChannelGraph, keep: Keep) -> Callable[[], list[Tensor]]:
    """A function that copies the kept weights and does nothing else: all indices are ready."""
    cuts = all_kept(graph, keep.units(graph)).cuts(graph)
    work = [
        (tensor.detach(), [(dim, torch.from_numpy(kept.copy())) for dim, kept in cuts.get(name, ())])
        for name, tensor in named_tensors(model)
    ]
    return lambda: [_copy_selected(tensor, selected) for tensor, selected in work]


def _copy_selected(tensor: Tensor, selected: Sequence[tuple[int, Tensor]]) -> Tensor:
    if not selected:
        return tensor.clone()
    for dim, kept in selected:
        tensor = tensor.index_select(dim, kept)
    return tensor


def one_round(model: nn.Module, image: Tensor, known: ChannelGraph, seed: int) -> tuple[Round, nn.Module, nn.Module]:
    """Every side once; also the two pruned models (theirs is the dense one without Torch-Pruning)."""
    traced, graph = timed(lambda: trace(model, image))
    allocated, keep = timed(lambda: decide(graph, seed))
    pruned, small = timed(lambda: prune(model, graph, keep, fold=False))
    candidate, _ = timed(lambda: prune(model, known, decide(known, seed), fold=False))
    folding, _ = timed(lambda: prune(model, known, decide(known, seed)))
    floor, _ = timed(copier(model, known, keep))
    their_copy, other = timed(lambda: copy.deepcopy(model))
    their_time = None if torch_pruning is None else timed(lambda: theirs(other, image, share(graph, keep)))[0]
    found = Round(
        traced, allocated, pruned, candidate, folding, floor, their_time, None if their_time is None else their_copy
    )
    return found, small, other


def measure(name: str, rounds: int) -> Row:
    """All rounds of one model."""
    model, image = build(name), torch.randn(1, 3, 224, 224)
    known = trace(model, image)
    found, small, other = one_round(model, image, known, seed=0)
    slow = (found.theirs or 0) > PATIENCE
    results = [found] if slow else []
    while len(results) < (2 if slow else rounds):
        found, small, other = one_round(model, image, known, seed=len(results) + 1)
        results.append(found)
    dense = flops(model, image)
    left = None if torch_pruning is None else flops(other, image) / dense
    return Row(name, tuple(results), flops(small, image) / dense, left)


def flops(model: nn.Module, image: Tensor) -> int:
    """FLOPs of a forward pass, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return counter.get_total_flops()


def costs_per_second(name: str = "resnet50", seconds: float = 2.0) -> float:
    """How many Keeps of a model `cost` evaluates in a second, different ones in turn."""
    graph = trace(build(name), torch.randn(1, 3, 224, 224))
    keeps = [decide(graph, seed) for seed in range(50)]
    count, began = 0, time.thread_time()
    while time.thread_time() - began < seconds:
        for keep in keeps:
            cost(graph, keep)
        count += len(keeps)
    return count / (time.thread_time() - began)


def mean(values: Sequence[float]) -> float:
    """Geometric mean."""
    return math.exp(statistics.fmean(map(math.log, values)))


def line(row: Row) -> str:
    """One model on one line of the table."""
    ours = [row.seconds(name) * 1e3 for name in ("trace", "allocate", "prune", "whole", "floor", "folding")]
    cells = [f"{value:,.1f}" for value in ours]
    if row.their_left is None:
        cells += [f"{row.left:.0%}", *("" for _ in range(6))]
    else:
        ratios = (row.ratio("whole"), row.ratio("candidate"), row.ratio("candidate", copied=True))
        cells += [f"{row.seconds(name) * 1e3:,.0f}" for name in ("theirs", "their_copy")]
        cells += [f"{row.left:.0%} / {row.their_left:.0%}", *(f"{ratio:.1f}" for ratio in ratios)]
    return table_row([row.model, *cells])


def summary(rows: Sequence[Row]) -> str:
    """The line of geometric means."""
    if any(row.their_left is None for row in rows):
        return "Torch-Pruning is not installed: ours alone."
    whole, candidate = ([row.ratio(name) for row in rows] for name in ("whole", "candidate"))
    with_copy = [row.ratio("candidate", copied=True) for row in rows]
    above = [row.seconds("prune") / row.seconds("floor") for row in rows]
    return (
        f"Their time over ours, geometric means: whole **{mean(whole):.1f}** (least {min(whole):.2f}), candidate "
        f"**{mean(candidate):.1f}** (least {min(candidate):.2f}), with the copy of the model {mean(with_copy):.1f}.\n"
        f"`prune` over the floor: geometric mean {mean(above):.2f}, from {min(above):.2f} to {max(above):.2f}."
    )


def table(rows: Sequence[Row], rounds: int, costs: float, growth: str, load: Sequence[float]) -> str:
    """The measured part of the Markdown file."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    peer = f"Torch-Pruning {metadata.version('torch-pruning')}" if torch_pruning else "no Torch-Pruning"
    columns = (
        *("model", "trace", "allocate", "prune", "whole", "floor", "prune, folding", "theirs", "their copy"),
        *("FLOPs left, ours / theirs", "whole: theirs / ours", "candidate", "with copy"),
    )
    return "\n".join(
        [
            "# The engine's speed",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, `python -m autoprune.analysis.benchmarks.engine_speed`: what is counted.",
            f"{describe_machine()}; {versions}, {peer}; load average {load[0]:.1f} before, {load[1]:.1f} after.",
            f"Milliseconds of processor time, medians of {rounds} rounds.",
            "",
            *table_head(columns),
            *map(line, rows),
            "",
            summary(rows),
            f"`cost` of ResNet-50: {costs:,.0f} evaluations a second.",
            "",
            growth,
        ]
    )


def main() -> None:
    """Measure, print as it goes, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="default: all twelve")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every round's numbers here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown, in which prose by hand stays")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if torch_pruning is None:
        print("torch-pruning is not installed (pip install torch-pruning==1.6.1): ours alone", file=sys.stderr)
    load = [os.getloadavg()[0]]
    measure("resnet18", 1)  # both sides warm
    gc.freeze()  # what is there by now stays: a collection before every measurement need not look through it
    rows = []
    for name in options.models:
        rows.append(measure(name, options.rounds))
        print(line(rows[-1]), flush=True)
    costs, growth = costs_per_second(), engine_growth.measure_all()
    text = table(rows, options.rounds, costs, engine_growth.table(growth), [*load, os.getloadavg()[0]])
    print(text)
    if options.table is not None:
        write_measured(options.table, text)
    if options.json is not None:
        found: Mapping[str, Any] = {"rows": [asdict(row) for row in rows], "growth": [asdict(g) for g in growth]}
        options.json.write_text(json.dumps({**found, "costs_per_second": costs}, indent=1))


if __name__ == "__main__":
    main()
