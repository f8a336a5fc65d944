"""Searches along lineages on a model of what trainings give, fitted to real ones: hundreds of searches in minutes.

    python -m autoprune.analysis.benchmarks.search_simulation ROWS.jsonl [--space cifar10_resnet20] [--runs 200]
        [--minutes 10] [--workers 2] [--sides ours "one way" ...] [--out PAGE.md]

ROWS.jsonl is the table of real recipes that `search_table` records. What is simulated is the training alone: recipes,
parents and targets come from the `Proposer` of real searches, on a clock that jumps from one end of a trial to the
next. A child's accuracy follows from its parent's and from the costs as `lineage_expectation.py` says, fitted to the
table; what every way to prune (method and shape) adds to it is the mean of its residuals; ways that the table does not
have get an addition from the normal distribution that those of the table have, another one in each run; and every
training has the table's noise. The table's trainings are of one length, the shortest of the space; what a longer one
gives is the guess that a search begins with. Data and weights are found by $AUTOPRUNE_DATA.

Sides: ours; `one length`: every training is the shortest; `no inheritance`: every recipe from the trained weights;
`curve policy`: parents and targets are chosen by `curve_policy.py`; `one way`: `l1`, all groups ranked together by
scores over their mean. `Outside`: seconds that the proposer takes, over the seconds that all workers have.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoprune import methods
from autoprune.analysis.benchmarks.curve_policy import chosen_by_curve
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.analysis.benchmarks.search_table import Row, read_table
from autoprune.recipe import Recipe, stable_hash
from autoprune.search.proposing.lineage_expectation import Expectation, Training
from autoprune.search.proposing.lineage_planner import Room
from autoprune.search.proposing.proposer import Proposer
from autoprune.study.config import StudyConfig
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.pareto import hypervolume, mean_height
from autoprune.study.space import Space
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.trial.shared import SharedState

PAGE = Path(__file__).with_suffix(".md")

#: Seconds until a search's first trial starts: two CPU cores, ResNet-20.
START = 20.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What trainings give.

    Fields:
        dense: the dense model's accuracy.
        additions: way to prune -> what it adds to the expected accuracy.
        noise: standard deviation of a training's accuracy.
        seconds: of a training at cost 0, and what a cost of 1 adds.
        images: of a training that `expectation` and `seconds` tell of; the fewest that the space has.
    """

    dense: float
    expectation: Expectation
    additions: Mapping[str, float]
    noise: float
    seconds: tuple[float, float]
    images: int

    @classmethod
    def fitted(cls, rows: Sequence[Row], dense: float) -> Truth:
        """The truth that rows of a table tell."""
        ended = [row for row in rows if row.accuracy is not None]
        trainings = trainings_of(ended, dense)
        expectation = Expectation.fitted(dense, trainings.values())
        residuals = defaultdict(list)
        for row in ended:
            training = trainings[row.number]
            residuals[way_of(row.recipe)].append(training.height - _expected(expectation, training))
        additions = {way: statistics.fmean(found) for way, found in residuals.items()}
        within = [value - additions[way] for way, found in residuals.items() for value in found]
        costs = [row.flops for row in ended]
        slope, start = np.polyfit(np.array(costs, dtype=float), [row.seconds for row in ended], 1)
        return cls(
            dense=dense,
            expectation=expectation,
            additions=additions,
            noise=float(np.std(within)),
            seconds=(float(start), float(slope)),
            images=min(row.recipe.training.images for row in ended),
        )

    def length(self, recipe: Recipe) -> float:
        """Of its training, as a multiple of that of the table's."""
        return recipe.training.images / self.images

    def duration(self, recipe: Recipe) -> float:
        """Seconds of a trial."""
        fixed, per_cost = self.seconds
        return self.length(recipe) * (fixed + per_cost * (recipe.target.flops or 1.0))

    def addition(self, recipe: Recipe, seed: int) -> float:
        """What a recipe's way to prune adds; one that is not in the table is drawn with the seed."""
        known = self.additions.get(way_of(recipe))
        if known is not None:
            return known
        drawn = np.random.default_rng([seed, int(stable_hash([recipe.to_dict()["method"], way_of(recipe)])[:8], 16)])
        values = list(self.additions.values())
        return float(drawn.normal(statistics.fmean(values), statistics.pstdev(values)))


@dataclass(frozen=True)
class Side:
    """One way to search.

    Fields:
        change: of the plain space.
        one_length: trainings are as long as those of the table.
        replaced: a part that is replaced meanwhile.
    """

    change: Mapping[str, Any] = field(default_factory=dict)
    one_length: bool = False
    replaced: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True, kw_only=True)
class Result:
    """One simulated search. `outside`: seconds of the proposer over seconds of all workers."""

    hypervolume: float
    height: float
    trainings: int
    outside: float


SIDES = {
    "ours": Side(),
    "one length": Side(one_length=True),
    "no inheritance": Side({"weights": "trained"}, one_length=True),
    "curve policy": Side(replaced=chosen_by_curve),
    "one way": Side({"method": "l1", "allocation": {"name": "global", "normalise": "mean"}}),
}


def way_of(recipe: Recipe) -> str:
    """Method and shape, as the table names them."""
    shape = recipe.allocation.name
    return f"{recipe.method.name} {shape}" + (f":{recipe.allocation.normalise}" if shape == "global" else "")


def trainings_of(rows: Sequence[Row], dense: float) -> dict[int, Training]:
    """Number -> the training of every row that has an accuracy."""
    by_number = {row.number: row for row in rows}
    found = {}
    for row in rows:
        if row.accuracy is None or row.flops is None:
            continue
        parent = None if row.recipe.parent is None else by_number[row.recipe.parent]
        start = (1.0, dense) if parent is None else (parent.flops, parent.accuracy)
        assert start[0] is not None
        assert start[1] is not None
        found[row.number] = Training(parent_cost=start[0], parent_height=start[1], cost=row.flops, height=row.accuracy)
    return found


def held_out_error(rows: Sequence[Row], dense: float) -> float:
    """The root mean square error of accuracy on every second ladder, fitted to the others."""
    origins = {row.number: row.recipe.parent for row in rows}
    trainings = trainings_of(rows, dense)
    roots = list(dict.fromkeys(_root(number, origins) for number in trainings))
    parts: tuple[list[Training], list[Training]] = ([], [])
    for number, training in trainings.items():
        parts[roots.index(_root(number, origins)) % 2].append(training)
    fitted = Expectation.fitted(dense, parts[0])
    errors = [training.height - _expected(fitted, training) for training in parts[1]]
    return float(np.sqrt(np.mean(np.square(errors))))


def _root(number: int, origins: Mapping[int, int | None]) -> int:
    parent = origins[number]
    return number if parent is None else _root(parent, origins)


def simulate(space: Space, config: StudyConfig, truth: Truth, *, seed: int, seconds: float, workers: int) -> Result:
    """One search of so many seconds."""
    search = Proposer(space, sampler=config.sampler, seed=seed, controls=config.controls, dense_metric=truth.dense)
    random, outside = np.random.default_rng([seed, 1]), 0.0
    waiting: list[tuple[float, int, Proposal]] = []
    ended: dict[int | None, Outcome] = {}
    now = START
    for _ in range(workers):
        outside += _hand_out(search, now, seconds, waiting, truth)
    while waiting[0][0] <= seconds:
        now, _, proposal = heapq.heappop(waiting)
        outcome = _outcome(proposal, ended, truth, random.normal(), seed)
        ended[outcome.id] = outcome
        began = time.perf_counter()
        search.tell(outcome)
        outside += time.perf_counter() - began + _hand_out(search, now, seconds, waiting, truth)
    points = [(outcome.flops_ratio, -outcome.accuracy) for outcome in ended.values() if not outcome.control]
    return Result(
        hypervolume=hypervolume(points),
        height=mean_height(points),
        trainings=len(points),
        outside=outside / (seconds * workers),
    )


def _hand_out(
    search: Proposer, now: float, deadline: float, waiting: list[tuple[float, int, Proposal]], truth: Truth
) -> float:
    """Start the next trial; the seconds that the proposer took."""
    began = time.perf_counter()
    proposal = search.next(now, Room(seconds=deadline - now))
    took = time.perf_counter() - began
    heapq.heappush(waiting, (now + truth.duration(proposal.recipe), proposal.id, proposal))
    return took


def _outcome(proposal: Proposal, ended: Mapping[int | None, Outcome], truth: Truth, luck: float, seed: int) -> Outcome:
    recipe = proposal.recipe
    cost = recipe.target.flops or 1.0
    start = (truth.dense, 1.0)
    if recipe.parent is not None:
        parent = ended[recipe.parent]
        assert parent.accuracy is not None
        assert parent.flops_ratio is not None
        start = (parent.accuracy, parent.flops_ratio)
    gained = truth.addition(recipe, seed) if cost < start[1] else 0.0
    expected = truth.expectation.child(*start, cost, truth.length(recipe))
    return Outcome(
        id=proposal.id,
        recipe=recipe,
        control=proposal.control,
        status="completed",
        metric=expected + gained + truth.noise * luck,
        flops_ratio=cost,
        seconds={"finetune": truth.duration(recipe)},
    )


def _expected(expectation: Expectation, training: Training) -> float:
    return expectation.child(training.parent_height, training.parent_cost, training.cost)


def describe(rows: Sequence[Row], truth: Truth, options: argparse.Namespace) -> list[str]:
    """What the table tells, in Markdown."""
    fixed, per_cost = truth.seconds
    error = held_out_error(rows, truth.dense)
    table = f"{len(rows)} real recipes; fitted to half of the ladders, the others lie {100 * error:.2f} points off it"
    noise = f"noise {100 * truth.noise:.2f} points; a training takes {fixed:.0f} s + {per_cost:.0f} s * cost"
    lines = [
        "# Simulated searches along lineages",
        "",
        f"`python -m autoprune.analysis.benchmarks.search_simulation`; {describe_machine()}.",
        f"{table} (root mean square); {noise}.",
        "",
        "| way to prune | adds, points | recipes |",
        "|---|---:|---:|",
    ]
    for way, addition in sorted(truth.additions.items(), key=lambda item: -item[1]):
        count = sum(way_of(row.recipe) == way for row in rows)
        lines.append(table_row([way, f"{100 * addition:+.2f}", count]))
    title = f"{options.minutes:g} minutes, {options.workers} workers, {options.runs} runs a side"
    return [*lines, "", f"## {title}", ""]


def space_of(side: Side, plain: Mapping[str, Any], truth: Truth) -> Space:
    """The space of a side, of the plain one that all others have."""
    training = {**plain["training"], **({"images": truth.images} if side.one_length else {})}
    return Space.read({**plain, "training": training, **side.change})


def _spread(values: Sequence[float], digits: int = 4) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Simulate all sides and write the page."""
    options = _parse_arguments()
    config = load_space(options.space, find_method=methods.find)
    shared = SharedState.of(load_task(config.task))
    groups = [(group.id, group.stage) for group in shared.graph.prunable]
    rows = read_table(options.rows)
    truth = Truth.fitted(rows, shared.dense_metric())
    plain = config.to_plain()["space"]
    lines = describe(rows, truth, options)
    lines += table_head(["side", "hypervolume", "mean height", "trainings", "outside"])
    for name in options.sides:
        space = space_of(SIDES[name], plain, truth).bind(groups)
        with SIDES[name].replaced():
            found = [
                simulate(space, config, truth, seed=seed, seconds=60 * options.minutes, workers=options.workers)
                for seed in range(options.runs)
            ]
        cells = [_spread([result.hypervolume for result in found]), _spread([result.height for result in found])]
        trainings = statistics.fmean(result.trainings for result in found)
        outside = statistics.fmean(result.outside for result in found)
        lines.append(table_row([name, *cells, f"{trainings:.1f}", f"{outside:.2%}"]))
        print(lines[-1], flush=True)
    write_measured(options.out, "\n".join(lines) + "\n")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--space", default="cifar10_resnet20")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--out", type=Path, default=PAGE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
