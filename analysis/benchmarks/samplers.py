"""Which sampler finds the better front, and what a proposal costs, on a ResNet-20 whose accuracy is made up.

    python -m autoprune.analysis.benchmarks.samplers ROWS [--only NAME...] [--seeds N] [--proposals N] [--table FILE]

Every search and every timing is a line of ROWS, a JSON-lines file, as soon as it is done; what is there already is not
measured again, and the table is made of all lines.

The space: five methods, one of them with hyper-parameters, the target, three allocations of which two have parameters,
and the learning rate. Graph, allocation and FLOPs are the real ones. Only the
accuracy is made up: every unit has an importance, drawn once; a method sees it through noise of its own; what is lost
with the units that go, weighted by how much a group matters, lowers the accuracy, and so does a learning rate off the
best. Its scale is that of real recipes: uniform L1 at half of the FLOPs has some 86 %.

Searches run as with one worker: ask, answer, ask. The sampler is told accuracies with the noise of a validation split;
what is compared is the hypervolume of all tried recipes by their accuracy without noise, controls included. Every
sampler has the same seeds, and with a seed the same first recipes. Searches of 64 workers, and recipes that are ended
early, are not measured here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.errors import TargetError
from autoprune.recipe import MethodChoice, Recipe
from autoprune.search.proposing.proposer import Proposer
from autoprune.study.config import Sampler
from autoprune.study.outcome import DENSE, RANDOM, Outcome, Proposal
from autoprune.study.pareto import candidates, hypervolume, points
from autoprune.study.space import Space
from autoprune.tasks.zoo import build

DENSE_ACCURACY, CHANCE = 0.915, 0.1
#: Standard deviation of the logarithm of what a method takes a unit's importance for.
BLUR = {"l1": 0.6, "l2": 0.55, "fpgm": 0.75, "taylor": 0.35}
SPLIT_NOISE = 0.004
HARM = 2.6
#: The parameters of the ready `cifar10_resnet20`, as far as the made-up accuracy knows what they do.
SPACE = {
    "method": {
        "choice": {
            **{name: {} for name in BLUR},
            "bn_scale": {"penalty": {"float": [1e-5, 1e-3], "log": True}, "share": {"float": [0.1, 0.4]}},
        }
    },
    "target": {"flops": {"float": [0.1, 0.8]}},
    "allocation": {
        "choice": {
            "uniform": {},
            "global": {"normalise": {"choice": ["mean", "max", "std"]}},
            "ratios": {
                "ratios": {
                    **{f"layer{stage}.?.conv1": {"float": [0.2, 1]} for stage in (1, 2, 3)},
                    "*": {"float": [0, 1]},
                }
            },
        }
    },
    "training": {"lr": {"float": [0.01, 0.1], "log": True}},
}
SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "random")
COUNTS = (40, 80, 150)
SIZES = (100, 500, 1000)
#: Proposals that are timed at each size of a study; their median counts.
ASKED = 3


# ---- the made-up network -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Network:
    """ResNet-20's graph, and what was drawn for it.

    Fields:
        importance: group id -> (units,), how much of the group's work each unit does.
        sensitivity: group id -> how much the network suffers when the group's work is left undone.
    """

    graph: ChannelGraph
    importance: dict[str, Floats]
    sensitivity: dict[str, float]

    @classmethod
    def drawn(cls, seed: int = 0) -> Network:
        """Most units lie within a factor of seven of each other, groups of five; wide groups are more redundant."""
        graph = trace(build("resnet20", (3, 32, 32), 10, {}, "model"), torch.zeros(1, 3, 32, 32))
        random = np.random.default_rng(seed)
        importance = {group.id: random.lognormal(0, 1.0, group.size) for group in graph.prunable}
        sensitivity = {group.id: float(random.lognormal(0, 0.8) / group.size**0.5) for group in graph.prunable}
        return cls(graph, importance, sensitivity)

    def judged(self, recipe: Recipe) -> tuple[float, float]:
        """Accuracy without noise, and the FLOPs ratio; `TargetError` if the recipe cannot meet its target."""
        if recipe.method.name == DENSE:
            return DENSE_ACCURACY, 1.0
        keep = allocate(self.graph, self._method_scores(recipe.method), recipe.target, recipe.allocation)
        lost = sum(self.sensitivity[name] * self._lost_importance(name, keep) ** 1.5 for name in self.importance)
        off = 0.065 * np.log10(recipe.training.lr / 0.025) ** 2
        accuracy = CHANCE + (DENSE_ACCURACY - CHANCE) * np.exp(-HARM * lost / sum(self.sensitivity.values()))
        return max(float(accuracy - off), 0.0), cost(self.graph, keep).ratios(cost(self.graph, Keep.all()))["flops"]

    def _lost_importance(self, name: str, keep: Keep) -> float:
        values = self.importance[name]
        kept = dict(keep.kept).get(name, range(len(values)))
        return 1 - float(values[list(kept)].sum() / values.sum())

    def _method_scores(self, method: MethodChoice) -> dict[str, Floats]:
        """The importance as a method sees it, through noise; the same for every recipe of the method."""
        random = np.random.default_rng(zlib.crc32(method.name.encode()))
        if method.name == RANDOM:
            return {name: random.random(len(values)) for name, values in self.importance.items()}
        blur = BLUR.get(method.name, 0.0)
        if method.name == "bn_scale":  # best at a penalty of 1e-4 and a share of 0.25
            off = abs(np.log10(method.params["penalty"] / 1e-4)) + 4 * abs(method.params["share"] - 0.25)
            blur = 0.25 + 0.6 * off
        return {name: values * random.lognormal(0, 1, len(values)) ** blur for name, values in self.importance.items()}


@lru_cache(maxsize=1)
def network() -> Network:
    """The network that all samplers prune."""
    return Network.drawn()


@lru_cache(maxsize=1)
def space() -> Space:
    """The search space, bound to the network."""
    return Space.read(SPACE).bind([(group.id, group.stage) for group in network().graph.prunable])


def answer(proposal: Proposal) -> tuple[Outcome, Outcome]:
    """The outcome that the sampler is told, and its accuracy without noise."""
    recipe, fields = proposal.recipe, {"id": proposal.id, "control": proposal.control, "finished": float(proposal.id)}
    try:
        accuracy, flops = network().judged(recipe)
    except TargetError as error:
        gone = Outcome(recipe=recipe, status="failed", error=str(error), **fields)
        return gone, gone
    exact = Outcome(recipe=recipe, status="completed", metric=accuracy, flops_ratio=flops, **fields)
    random = np.random.default_rng(int(recipe.key()[:12], 16))
    return replace(exact, metric=min(max(accuracy + random.normal(0, SPLIT_NOISE), 0.0), 1.0)), exact


# ---- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """One search: the hypervolume after each of `COUNTS` recipes, and processor seconds of its proposals."""

    sampler: str
    seed: int
    volumes: tuple[float, ...]
    seconds: float


def search(sampler: Sampler, seed: int, proposals: int) -> Search:
    """Ask for `count` recipes and answer each."""
    proposer, exact, seconds = Proposer(space(), sampler=sampler, seed=seed), [], 0.0
    for number in range(proposals):
        began = time.process_time()
        proposal = proposer.next(float(number))
        seconds += time.process_time() - began
        told, true = answer(proposal)
        proposer.tell(told)
        exact.append(true)
    volumes = tuple(hypervolume(points(candidates(exact[:count]))) for count in COUNTS if count <= proposals)
    return Search(name_of(sampler), seed, volumes, seconds)


def name_of(sampler: Sampler) -> str:
    """The sampler's name in the table."""
    return sampler.name if sampler.warm_start else f"{sampler.name}, no warm starts"


@lru_cache(maxsize=1)
def history() -> tuple[list[Proposal], list[Outcome]]:
    """A study of random recipes, as long as the longest of `SIZES`."""
    random = Proposer(space(), sampler=Sampler(name="random", startup=15))
    proposals = [random.next(float(number)) for number in range(max(SIZES))]
    return proposals, [answer(proposal)[0] for proposal in proposals]


def milliseconds(name: str, size: int) -> float:
    """Median processor time of a proposal in a study with so many results."""
    proposals, outcomes = (log[:size] for log in history())
    proposer = Proposer(space(), sampler=Sampler(name=name, startup=15), proposals=proposals, outcomes=outcomes)
    times = []
    for _ in range(ASKED):
        began = time.process_time()
        proposal = proposer.next(float(size))
        times.append(time.process_time() - began)
        proposer.tell(answer(proposal)[0])
    return 1000 * statistics.median(times)


# ---- the table -------------------------------------------------------------------------------------------------------


def table(searches: Sequence[Search], times: Mapping[tuple[str, int], float]) -> str:
    """The result as Markdown; a search that ended before a count has no cell there."""
    heads = [f"after {count}" for count in COUNTS] + ["seeds"] + [f"ms at {size}" for size in SIZES]
    lines = table_head(["sampler", *heads])
    for name in dict.fromkeys(one.sampler for one in searches):
        mine = [one.volumes for one in searches if one.sampler == name]
        cells = [_mean_and_error([row[index] for row in mine if len(row) > index]) for index in range(len(COUNTS))]
        spent = [f"{times[name, size]:.0f}" if (name, size) in times else "" for size in SIZES]
        lines.append(table_row([name, *cells, len(mine), *spent]))
    return "\n".join(lines)


def _mean_and_error(values: Sequence[float]) -> str:
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{error}"


def sides() -> Iterator[Sampler]:
    """Every sampler as a study has it, and the default one without warm starts."""
    yield from (Sampler(name=name, startup=15) for name in SAMPLERS)
    yield Sampler(startup=15, warm_start=False)


def read_rows(file: Path) -> tuple[list[Search], dict[tuple[str, int], float]]:
    """The searches and timings that a file holds."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    searches = [Search(**{**row, "volumes": tuple(row["volumes"])}) for row in rows if "volumes" in row]
    return searches, {(row["sampler"], row["size"]): row["ms"] for row in rows if "ms" in row}


def measure(file: Path, only: Sequence[str], seeds: int, proposals: int) -> None:
    """Measure what the rows lack: searches, then timings from small studies to large ones."""
    searches, times = read_rows(file)
    known = {(one.sampler, one.seed) for one in searches}
    with file.open("a") as log:
        for seed in range(seeds):
            for sampler in sides():
                if sampler.name in only and (name_of(sampler), seed) not in known:
                    print(json.dumps(asdict(search(sampler, seed, proposals))), file=log, flush=True)
        for name in only:
            for size in SIZES:
                if (name, size) not in times:
                    row = {"sampler": name, "size": size, "ms": milliseconds(name, size)}
                    print(json.dumps(row), file=log, flush=True)


def main() -> None:
    """Search, time, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, metavar="ROWS", help="JSON lines, read and added to")
    parser.add_argument("--only", nargs="*", default=SAMPLERS, metavar="NAME", help="measure these (default: all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--proposals", type=int, default=max(COUNTS))
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown, in which prose by hand stays")
    options = parser.parse_args()
    measure(options.rows, options.only, options.seeds, options.proposals)
    text = table(*read_rows(options.rows))
    print(text)
    if options.table:
        title = "# Which sampler: `python -m autoprune.analysis.benchmarks.samplers`"
        how = "Hypervolume (higher is better) after so many recipes, mean ± standard error over the seeds; and the"
        write_measured(
            options.table, f"{title}\n\n{how} processor time of a proposal. {describe_machine()}.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
