"""The target contract, counted on rebuilt models: within 1 % of the dense FLOPs of what was asked for, or a refusal.

    python -m autoprune.analysis.benchmarks.contract [--models NAME ...] [--seed 0] [--table FILE.md]

Twenty models, FLOPs ratios 0.2 to 0.9 and one that is out of reach, two strategies with random scores, channels as they
come and in multiples. Every model that is promised is cut for real (on meta tensors) and counted by `FlopCounterMode`;
every ratio that a refusal names is asked for and must be met. Anything else is broken: exit code 1.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row
from autoprune.engine.allocation.allocate import TOLERANCE, Scores, allocate, smallest
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.surgery.tensors import example_inputs
from autoprune.engine.tracing.trace import trace
from autoprune.errors import TargetError
from autoprune.recipe import Allocation, Target
from autoprune.tasks import zoo

MODELS = (
    *("torchvision/resnet18", "torchvision/resnet50", "torchvision/resnet152", "torchvision/resnext50_32x4d"),
    *("torchvision/vgg16", "torchvision/alexnet", "torchvision/densenet121", "torchvision/densenet201"),
    *("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_large", "torchvision/mnasnet1_0"),
    *("torchvision/efficientnet_b0", "torchvision/regnet_y_400mf", "torchvision/shufflenet_v2_x1_0"),
    *("torchvision/squeezenet1_1", "torchvision/googlenet", "torchvision/inception_v3"),
    *("torchvision/convnext_tiny", "torchvision/swin_t", "resnet20"),
)
SIDES = {"torchvision/inception_v3": 299, "resnet20": 32}
RATIOS = tuple(round(0.1 * tenths, 1) for tenths in range(2, 10))
STRATEGIES = ("uniform", "global")
ROUND_TO = (1, 8, 32)
OUT_OF_REACH = "cannot be reached"
OUTCOMES = ("met", "refused", "broken")


@dataclass(frozen=True)
class Case:
    """One question to the allocation: ratio, strategy and multiple of channels."""

    model: str
    strategy: str
    round_to: int
    ratio: float

    @property
    def how(self) -> Allocation:
        """The allocation."""
        return Allocation(name=self.strategy, round_to=self.round_to)


@dataclass(frozen=True)
class Result:
    """The answer: `met`, `refused` or `broken`; the FLOPs ratio of the rebuilt model; the words of a refusal."""

    case: Case
    outcome: str
    seconds: float = 0.0
    found: float | None = None
    said: str = ""


class Subject:
    """A model on the meta device, its graph and random scores."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        side = SIDES.get(name, 224)
        self.model = zoo.build(name, (3, side, side), 1000, {}, "model").eval().to("meta")
        self.graph: ChannelGraph = trace(self.model, torch.empty(1, 3, side, side))
        self.dense = self.flops(self.model)
        random = np.random.default_rng(seed)
        self.scores: Scores = {group.id: random.random(group.size) for group in self.graph.prunable}

    def flops(self, model: nn.Module) -> int:
        """FLOPs of one forward pass, as torch counts them."""
        args, kwargs = example_inputs(self.graph.inputs, "meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*args, **kwargs)
        return counter.get_total_flops()

    def least(self, round_to: int) -> float:
        """The smallest FLOPs ratio that can be reached."""
        return smallest(self.graph, Allocation(round_to=round_to)).flops / self.dense

    def ask(self, case: Case) -> Result:
        """Allocate, cut and count; `seconds` are processor time of the allocation, on a busy machine too."""
        began = process_time()
        try:
            keep = allocate(self.graph, self.scores, Target(flops=case.ratio), case.how)
        except TargetError as refusal:
            return Result(case, "refused", process_time() - began, said=str(refusal))
        seconds = process_time() - began
        cut = prune(self.model, self.graph, keep, fold=False)
        flops = self.flops(cut)
        wrong = self._broken_promise(case, keep, cut, flops)
        return Result(case, "broken" if wrong else "met", seconds, flops / self.dense, wrong)

    def check(self, case: Case) -> Result:
        """The same; a refusal is broken unless it names ratios that are met and had to be."""
        result = self.ask(case)
        if result.outcome != "refused":
            return result
        named = [float(number) for number in re.findall(r"flops(?: >=|:) ([\d.]+)", result.said.split("allowed")[1])]
        false = [ratio for ratio in named if self.ask(replace(case, ratio=ratio)).outcome != "met"]
        if false or not named or needless(result, named):
            return replace(result, outcome="broken", said=f"names {false or named or 'nothing'}: {result.said}")
        return result

    def _broken_promise(self, case: Case, keep: Keep, cut: nn.Module, flops: int) -> str:
        """The way in which a promised model breaks its promise; empty if it does not."""
        if abs(flops / self.dense - case.ratio) > TOLERANCE + 1e-9:
            return f"{flops / self.dense:.4f} instead of {case.ratio}"
        if flops != cost(self.graph, keep).flops:
            return f"{flops:,} FLOPs, {cost(self.graph, keep).flops:,} were promised"
        return next(self._odd_widths(cut, case.round_to), "")

    def _odd_widths(self, cut: nn.Module, round_to: int) -> Iterator[str]:
        """Layers all of whose filters are units of one group, that lost some and are left with no multiple."""
        groups = {int(unit): group.id for group in self.graph.groups for unit in group.units}
        tensors = dict(cut.named_parameters())
        for slot in self.graph.slots:
            left = tensors[slot.tensor].shape[slot.dim] if slot.tensor in tensors else 0
            whole = len({groups.get(unit) for unit in slot.units.tolist()}) == 1 and (slot.units >= 0).all()
            if slot.role == "out" and whole and left % round_to and left != len(slot.units):
                yield f"{slot.tensor} has {left} filters, no multiple of {round_to}"


def needless(refusal: Result, named: Sequence[float]) -> bool:
    """Whether one of the ratios that a refusal names would have done."""
    if OUT_OF_REACH in refusal.said:
        return min(named) <= refusal.case.ratio
    return any(abs(ratio - refusal.case.ratio) <= TOLERANCE for ratio in named)


@dataclass(frozen=True)
class Report:
    """All cases of one model, and the smallest ratio that each of `ROUND_TO` leaves within reach."""

    model: str
    lowest: Sequence[float]
    results: Sequence[Result]

    def count(self, outcome: str) -> int:
        """How many cases had this outcome."""
        return sum(result.outcome == outcome for result in self.results)

    def row(self) -> str:
        """A line of the table."""
        misses = [abs(result.found - result.case.ratio) for result in self.results if result.found is not None]
        times = [1000 * result.seconds for result in self.results]
        cells = [f"{100 * ratio:.1f}" for ratio in self.lowest]
        cells += [str(self.count(outcome)) for outcome in OUTCOMES]
        cells += [f"{100 * max(misses, default=0):.2f}", f"{statistics.median(times):.1f}", f"{max(times):.1f}"]
        return table_row([self.model, *cells])

    def notes(self) -> list[str]:
        """A line for every case that is broken, and for those refused between two widths."""
        return [
            f"- {self.model}, {r.case.strategy}, `round_to` {r.case.round_to}, {r.outcome}: {r.said}"
            for r in self.results
            if r.outcome == "broken" or (r.outcome == "refused" and OUT_OF_REACH not in r.said)
        ]


def run(name: str, seed: int) -> Report:
    """All cases of one model; a failure is a result too."""
    subject, results = Subject(name, seed), []
    lowest = {round_to: subject.least(round_to) for round_to in ROUND_TO}
    for strategy, round_to in product(STRATEGIES, ROUND_TO):
        for ratio in (*RATIOS, lowest[round_to] / 2):
            case = Case(name, strategy, round_to, ratio)
            try:
                results.append(subject.check(case))
            except Exception as error:  # noqa: BLE001 - a promise that ends in a crash is broken, and the others go on
                results.append(Result(case, "broken", said=f"{type(error).__name__}: {error}"))
    return Report(name, list(lowest.values()), results)


def share_met(reports: Sequence[Report], round_to: int) -> str:
    """How many of the ratios that are the same for all models were met."""
    cases = [r for report in reports for r in report.results if r.case.round_to == round_to and r.case.ratio in RATIOS]
    return f"{sum(result.outcome == 'met' for result in cases)} of {len(cases)} at `round_to` {round_to}"


def table(reports: Sequence[Report], seed: int, seconds: float) -> str:
    """The result as Markdown."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    totals = " | ".join(str(sum(report.count(outcome) for report in reports)) for outcome in OUTCOMES)
    head = [*(f"lowest at {n}, %" for n in ROUND_TO), *OUTCOMES, "largest miss, %", "median, ms", "longest, ms"]
    lines = [
        "# The target contract",
        "",
        f"`python -m autoprune.analysis.benchmarks.contract`: FLOPs ratios {', '.join(f'{r:g}' for r in RATIOS)},",
        f"and half of the lowest within reach; strategies {' and '.join(STRATEGIES)}, random scores of seed {seed};",
        f"`round_to` {', '.join(map(str, ROUND_TO))}. *Met*: `FlopCounterMode` counts what was promised on the rebuilt",
        "model, within 1 % of the dense FLOPs of what was asked for, and layers that lost channels have multiples.",
        "*Refused*: out of reach, or between two widths; what the error names instead was asked for and met. Times are",
        "processor time of `allocate`, refusals included.",
        "",
        f"{describe_machine()}; {versions}; {seconds:.0f} s.",
        "",
        f"Met of the ratios {RATIOS[0]} to {RATIOS[-1]}: {', '.join(share_met(reports, n) for n in ROUND_TO)}.",
        "",
        *table_head(["model", *head]),
        *(report.row() for report in reports),
        f"| all |{' |' * len(ROUND_TO)} {totals} | | | |",
    ]
    notes = [note for report in reports for note in report.notes()]
    return "\n".join([*lines, "", *notes] if notes else lines)


def main() -> int:
    """Run, print as it goes, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="default: all twenty")
    parser.add_argument("--seed", type=int, default=0, help="of the scores")
    parser.add_argument("--table", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began, reports = perf_counter(), []
    for name in options.models:
        reports.append(run(name, options.seed))
        print("\n".join([reports[-1].row(), *reports[-1].notes()]), flush=True)
    text = table(reports, options.seed, perf_counter() - began)
    if options.table is not None:
        options.table.write_text(text + "\n")
    return int(any(report.count("broken") for report in reports))


if __name__ == "__main__":
    sys.exit(main())
