"""How long methods that look at nothing but weights take to choose channels, all in turns in one run, on one core.

    OMP_NUM_THREADS=1 python -m autoprune.analysis.benchmarks.selection_speed [DATA] [--rounds N] [--table FILE]

Half of the FLOPs, default hyper-parameters, global ranking, which `l1` and `fpgm` need (`epruner` and `fuzzy` find the
widths themselves). VGG-16 is that of the papers: 13 convolutions with batch norm for images of 32 x 32, then one linear
layer; its weights are random. ResNet-56 has the pretrained weights that the folder DATA holds as
`weights/resnet56_cifar10.safetensors`, random ones without DATA.

What is timed is `score` and `select`; the channel graph is known. There are no images to look at: who asks for some
fails. Every call is given a new context, so that nothing is left from the last one. Times are processor time, so what
other processes do on the machine and what further threads of a library do is told from what the method needs. A round
is every method once. The first is not counted: in it scikit-learn is imported. Ratios to `l1` are taken within a round;
the table has their medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.analysis.benchmarks.engine_speed import HALF, timed
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.methods import METHODS, Context, Method
from autoprune.recipe import Allocation
from autoprune.tasks import zoo
from autoprune.tasks.weight_files import load_weights
from autoprune.training.protocols import Batch

YARDSTICK = "l1"
NAMES = (YARDSTICK, "fpgm", "fuzzy", "epruner")
#: Seconds that a choice may take; of the others nothing was asked.
LIMITS = {("vgg16_bn", "epruner"): 10.0, ("resnet56", "epruner"): 5.0}
WEIGHTS = {"resnet56": "weights/resnet56_cifar10.safetensors"}
SHAPE = (3, 32, 32)
GLOBAL = Allocation(name="global")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one network.

    Fields:
        net: its name in the zoo.
        method: whose choice was timed.
        seconds: processor time per round.
        yardstick: that of `l1` in the same rounds.
    """

    net: str
    method: str
    seconds: tuple[float, ...]
    yardstick: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as long as `l1`: median over the rounds."""
        return statistics.median(own / plain for own, plain in zip(self.seconds, self.yardstick, strict=True))

    @property
    def limit(self) -> float | None:
        """The limit in seconds; None without one."""
        return LIMITS.get((self.net, self.method))

    @property
    def met(self) -> bool | None:
        """Whether every round was within the limit; None without one."""
        return None if self.limit is None else max(self.seconds) <= self.limit


@dataclass(frozen=True, eq=False)
class Subject:
    """A traced network, and the origin of its weights."""

    net: str
    model: nn.Module
    graph: ChannelGraph
    pretrained: bool

    @classmethod
    def of(cls, net: str, data: Path | None) -> Subject:
        """A network of the zoo; pretrained if `data` has weights for it."""
        torch.manual_seed(0)
        model, pretrained = zoo.build(net, SHAPE, 10, {}, "model").eval(), data is not None and net in WEIGHTS
        if data is not None and pretrained:
            load_weights(model, data / WEIGHTS[net])
        return cls(net, model, trace(model, torch.randn(2, *SHAPE)), pretrained)

    def choose(self, method: Method, seed: int) -> Keep:
        """Score and select, with a context of its own."""
        context = Context(self.model, self.graph, _no_images, _no_loss, _no_loss, seed)
        return method.select(context, method.score(context), HALF, GLOBAL).keep

    def __str__(self) -> str:
        sizes = [group.size for group in self.graph.prunable]
        weights = "pretrained" if self.pretrained else "random weights"
        return (
            f"{self.net} ({weights}): {len(sizes)} groups of {min(sizes)} to {max(sizes)} units, {sum(sizes)} in all."
        )


def _no_images(_images: int) -> Iterator[Batch]:
    raise AssertionError("a method that looks at weights alone asked for images")


def _no_loss(_model: nn.Module, _batch: Batch) -> Tensor:
    raise AssertionError("a method that looks at weights alone asked for the loss")


def measure(subject: Subject, names: Sequence[str], rounds: int) -> list[Row]:
    """All methods in turns; the recipe's seed is the number of the round."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names:
            found[name].append(timed(lambda name=name, turn=turn: subject.choose(METHODS[name](), turn))[0])
    counted = {name: tuple(seconds[1:]) for name, seconds in found.items()}
    return [
        Row(net=subject.net, method=name, seconds=seconds, yardstick=counted[YARDSTICK])
        for name, seconds in counted.items()
    ]


# ---- the table -------------------------------------------------------------------------------------------------------


def line(row: Row) -> str:
    """One method on one line of the table."""
    times = [f"{pick(row.seconds):.3f}" for pick in (statistics.median, min, max)]
    limit = "" if row.limit is None else f"{row.limit:g} s"
    verdict = {True: "met", False: "**not met**", None: ""}[row.met]
    return table_row([row.net, row.method, *times, f"{row.ratio:,.1f}", limit, verdict])


def table(rows: Sequence[Row], about: str) -> str:
    """The measured part of the Markdown file; `about` says where and how it was measured."""
    columns = ("network", "method", "seconds, median", "min", "max", f"over `{YARDSTICK}`", "limit", "")
    return "\n".join(
        [
            "# How long choosing channels takes: `python -m autoprune.analysis.benchmarks.selection_speed`",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}; its docstring says what is counted.",
            about,
            "",
            *table_head(columns, text=(0, 1)),
            *map(line, rows),
        ]
    )


def where(subjects: Mapping[str, Subject], rounds: int, load: Sequence[float]) -> str:
    """Machine, versions, networks, rounds."""
    versions = f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return "\n".join(
        [
            f"{describe_machine()}; {versions}; load average {load[0]:.1f} before, {load[1]:.1f} after.",
            f"Seconds of processor time, {rounds} rounds.",
            *map(str, subjects.values()),
        ]
    )


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help="folder with weights/; default: random ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every round's numbers here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown, in which prose by hand stays")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = [os.getloadavg()[0]]
    subjects = {net: Subject.of(net, options.data) for net, _ in LIMITS}
    rows = [row for subject in subjects.values() for row in measure(subject, NAMES, options.rounds)]
    text = table(rows, where(subjects, options.rounds, [*load, os.getloadavg()[0]]))
    print(text)
    if options.table is not None:
        write_measured(options.table, text)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
