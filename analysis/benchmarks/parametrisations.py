"""How to give a search the widths: a share per group, a few shares, or coefficients; ResNet-20, CIFAR-10, one budget.

    python -m autoprune.analysis.benchmarks.parametrisations DATA --out ROWS.jsonl [--flops 0.3 0.5] [--seeds 0]
        [--only NAME ...] [--evaluations 48] [--table FILE.md]

DATA is a folder with cifar10.npz and weights/resnet20_cifar10.safetensors. Every parametrisation is searched by the
same sampler (TPE, its first 12 proposals at random) with the same number of evaluations, at a fixed share of the FLOPs;
one that has fewer points than that is gone through. An evaluation prunes the pretrained network by l1, re-estimates the
batch-norm statistics and measures accuracy on 2,500 test images; nothing is trained. That is only a proxy, so the best
of each search is then fine-tuned, and measured on the last 5,000 test images, which no choice has seen. Rows are
appended to `--out` as they come; a search that was interrupted, or gets more evaluations than before, goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import torch

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import describe_machine, mean_and_std, table_head, table_row, write_measured
from autoprune.errors import StudyError
from autoprune.recipe import Recipe, Training
from autoprune.study.log import append_line, read_lines
from autoprune.study.outcome import Outcome
from autoprune.study.parameters import Choice
from autoprune.study.space import Space
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

Row = dict[str, Any]

SPACE = "cifar10_resnet20"
#: What a search selects by: half of the images that the ready space selects by, so that an evaluation takes seconds.
SELECTION = "test[:2500]"
#: Proposals at random before TPE takes over.
STARTUP = 12
#: After how many evaluations the best so far is told.
SEEN = (12, 24, 48)
TUNING = Training(images=19_200, lr=0.03, warmup=0.1, distill=0.5, rungs=(1.0,))
_FEATURES: Row = {name: {"float": [-1, 1]} for name in ("depth", "flops", "stream")}
ALLOCATIONS: dict[str, Row] = {
    "uniform": {"name": "uniform"},
    "global": {"name": "global", "normalise": {"choice": ["none", "mean", "max", "std"]}},
    "share per stage": {"name": "ratios", "ratios": {"each": "stage", "float": [0, 1]}},
    "share per stage and stream": {
        "name": "ratios",
        "ratios": {**{f"layer{n}.?.conv1": {"float": [0.2, 1]} for n in (1, 2, 3)}, "*": {"float": [0, 1]}},
    },
    "share per group": {"name": "ratios", "ratios": {"each": "group", "float": [0, 1]}},
    "three features": {"name": "features", **_FEATURES},
    "four features": {"name": "features", **_FEATURES, "sensitivity": {"float": [-1, 1]}},
}


@dataclass(frozen=True)
class Plan:
    """One search: a parametrisation, a target and the sampler's seed."""

    name: str
    flops: float
    seed: int

    def space(self, groups: Sequence[tuple[str, int]]) -> Space:
        """For a model with these (group, stage); everything but the allocation is fixed."""
        plain = {
            "method": "l1",
            "target": {"flops": self.flops},
            "allocation": ALLOCATIONS[self.name],
            "training": {"images": 0, "rungs": [1]},
        }
        return Space.read(plain).bind(groups)

    def of(self, rows: Iterable[Row], kind: str) -> list[Row]:
        """The rows of this search, of one kind."""
        mine = {"kind": kind, "name": self.name, "flops": self.flops, "seed": self.seed}
        return [row for row in rows if row.items() >= mine.items()]


def search(
    plan: Plan, space: Space, most: int, past: Sequence[Row], measure: Callable[[Recipe], Outcome]
) -> Iterator[Row]:
    """Yield a row per new evaluation; what `past` holds is proposed and told again, which the seed makes the same.

    Raises:
        StudyError: `past` is of another search.
    """
    study, options = _optuna_study(plan), _options_by_name(space)
    if options is not None:
        points = list(product(*options.values()))
        most = min(most, len(points))
        for point in points:
            study.enqueue_trial(dict(zip(options, point, strict=True)))
    for number in range(most):
        trial = study.ask()
        recipe = Recipe.from_dict(space.walk(trial))
        known = past[number] if number < len(past) else None
        row = known or _evaluation_row(plan, number, recipe, measure)
        if row["recipe"] != recipe.to_dict():
            raise StudyError(f"evaluation {number} on file is of another search", where=str(plan))
        study.tell(trial, row["accuracy"] or 0.0)
        if known is None:
            yield row


def _options_by_name(space: Space) -> dict[str, list[Any]] | None:
    """The options of every parameter; None if a number is among the parameters."""
    parameters = space.parameters()
    found = {name: list(item.options) for name, item in parameters.items() if isinstance(item, Choice)}
    return found if len(found) == len(parameters) else None


def _optuna_study(plan: Plan) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=plan.seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _evaluation_row(plan: Plan, number: int, recipe: Recipe, measure: Callable[[Recipe], Outcome]) -> Row:
    began = time.perf_counter()
    outcome = measure(recipe)
    return {
        "kind": "evaluation",
        **vars(plan),
        "number": number,
        "recipe": recipe.to_dict(),
        "accuracy": outcome.accuracy,
        "error": outcome.error,
        "seconds": time.perf_counter() - began,
    }


def tuned(plan: Plan, rows: Sequence[Row], measure: Callable[[Recipe], Outcome]) -> Row:
    """The best evaluation of a search, fine-tuned."""
    best = max(rows, key=lambda row: row["accuracy"] or 0.0)
    outcome = measure(replace(Recipe.from_dict(best["recipe"]), training=TUNING, seed=plan.seed))
    found = {"number": best["number"], "before": best["accuracy"], "after": outcome.accuracy, "evaluations": len(rows)}
    return {"kind": "tuned", **vars(plan), **found, "error": outcome.error, "widths": dict(outcome.widths)}


# ---- the table -------------------------------------------------------------------------------------------------------


def best_after(rows: Sequence[Row], count: int) -> float:
    """The best accuracy among the first evaluations of one search."""
    return max(row["accuracy"] or 0.0 for row in rows if row["number"] < count)


def table(rows: Sequence[Row]) -> str:
    """Markdown: a table per target, parametrisations as they are listed above."""
    targets = sorted({row["flops"] for row in rows}, reverse=True)
    seconds = statistics.median([row["seconds"] for row in rows if row["kind"] == "evaluation"])
    return "\n".join([_page_head(seconds), *(_target_table(flops, rows) for flops in targets)]) + "\n"


def _page_head(seconds: float) -> str:
    how = f"an evaluation takes {seconds:.1f} s. Accuracy in per cent, mean and standard deviation"
    return (
        "# Parametrisations of the widths\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, `python -m autoprune.analysis.benchmarks.parametrisations`: what is compared.\n"
        f"{describe_machine()}; {how}\n"
        "over seeds of the search: after the cut, the best of the first evaluations; then the best of all, fine-tuned\n"
        f"with {TUNING.images:,} images and measured on other images than it was chosen by.\n"
    )


def _target_table(flops: float, rows: Sequence[Row]) -> str:
    made = max(row["number"] + 1 for row in rows if row["flops"] == flops and row["kind"] == "evaluation")
    seen = [count for count in SEEN if count <= made]
    heads = [*(f"best of {count}" for count in seen), "fine-tuned"]
    lines = [
        f"\n## {flops:.0%} of the FLOPs\n",
        *table_head(["parametrisation", "numbers", "seeds", *heads]),
    ]
    for name in ALLOCATIONS:
        seeds = sorted({row["seed"] for row in rows if row["name"] == name and row["flops"] == flops})
        plans = [Plan(name, flops, seed) for seed in seeds]
        if any(plan.of(rows, "tuned") for plan in plans):
            lines.append(_table_line(name, [plan for plan in plans if plan.of(rows, "tuned")], rows, seen))
    return "\n".join(lines)


def _table_line(name: str, plans: Sequence[Plan], rows: Sequence[Row], seen: Sequence[int]) -> str:
    searches = [plan.of(rows, "evaluation") for plan in plans]
    best = [mean_and_std([100 * best_after(search, count) for search in searches]) for count in seen]
    after = mean_and_std([100 * (plan.of(rows, "tuned")[-1]["after"] or 0.0) for plan in plans])
    return table_row([name, _count_numbers(searches[0]), len(plans), *best, after])


def _count_numbers(rows: Sequence[Row]) -> int:
    """How many values of the allocation differ between evaluations."""
    flat = [{**row["recipe"]["allocation"], **row["recipe"]["allocation"]["ratios"]} for row in rows]
    return sum(key != "ratios" and len({found[key] for found in flat}) > 1 for key in flat[0])


# ---- the command -----------------------------------------------------------------------------------------------------


def shared_state_of(data: Path) -> tuple[SharedState, SharedState]:
    """ResNet-20 on CIFAR-10, measured on the images to select by, and on those that are reported."""
    os.environ["AUTOPRUNE_DATA"] = str(data)
    spec = dict(load_space(SPACE, find_method=methods.find).task)
    splits = {**spec["data"]["splits"], "validation": SELECTION}
    task = load_task({**spec, "data": {**spec["data"], "splits": splits}})
    runtime = Runtime(precision="bf16", channels_last=True, threads=torch.get_num_threads())
    return SharedState.of(task, runtime), SharedState.of(replace(task, validation=task.test), runtime)


def main() -> None:
    """Run what is missing, and write the table."""
    args = _parse_arguments()
    selecting, reported = shared_state_of(args.data)
    groups = [(group.id, group.stage) for group in selecting.graph.prunable]
    plans = [Plan(name, flops, seed) for seed in args.seeds for flops in args.flops for name in args.only]
    for plan in plans:
        past, space = plan.of(read_rows(args.out), "evaluation"), plan.space(groups)
        for row in search(plan, space, args.evaluations, past, lambda recipe: run(recipe, selecting).outcome):
            _append_row(args.out, row)
    for plan in plans:
        found = plan.of(read_rows(args.out), "evaluation")
        if not any(row["evaluations"] == len(found) for row in plan.of(read_rows(args.out), "tuned")):
            _append_row(args.out, tuned(plan, found, lambda recipe: run(recipe, reported).outcome))
    if args.table:
        write_measured(args.table, table(read_rows(args.out)))


def _append_row(file: Path, row: Row) -> None:
    append_line(file, json.dumps(row))
    told = {key: item for key, item in row.items() if key not in ("recipe", "widths")}
    print(json.dumps(told), flush=True)


def read_rows(file: Path) -> list[Row]:
    """The rows that a file holds."""
    return [json.loads(line) for _, line in read_lines(file)]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flops", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=tuple(ALLOCATIONS), default=tuple(ALLOCATIONS))
    parser.add_argument("--evaluations", type=int, default=max(SEEN))
    parser.add_argument("--table", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
