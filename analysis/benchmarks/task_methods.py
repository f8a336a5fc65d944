"""Pruning methods on any task, such as Group Fisher against l1 on a detector: one target, several seeds.

    python -m autoprune.analysis.benchmarks.task_methods SPACE [--set PATH=VALUE ...] --rows FILE [--table FILE]
        [--methods NAME ...] [--seeds N ...] [--flops RATIO] [--device D]

SPACE, a ready space or a file, says what the task is and how trials train: in `space.training` everything has to have
one value, so ranges are set with `--set space.training.lr=0.02`. Every method prunes the dense model to the same share
of its FLOPs and trains what is left on as many images, with the same batches for the same seed; `dense` trains the
dense model on. The uniform allocation is given to all, except to methods that choose widths themselves.

Every line of FILE is one trial, written when it ends; what stands in it is not run again, so an interrupted run is
begun again with the same command. The table has means over the seeds and sample standard deviations.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import (
    describe_machine,
    mean_and_std,
    table_head,
    table_row,
    write_measured,
)
from autoprune.errors import InputError, StudyError
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training, stable_hash
from autoprune.schema import to_plain
from autoprune.study.log import append_line, parse_line, read_lines, repair_tail
from autoprune.study.outcome import DENSE
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.training.runtime import choose_runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

METHODS = (DENSE, "l1", "group_fisher")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all trials have in common.

    Fields:
        name: of the space.
        task: its `task:` mapping.
        training: of every trial.
        flops: the target.
    """

    name: str
    task: Mapping[str, Any]
    training: Training
    flops: float

    @classmethod
    def of(cls, space: str, overrides: Sequence[str], flops: float) -> Settings:
        """Those of a space.

        Raises:
            InputError: the space leaves open how trials train, or does not measure right after the cut.
        """
        config = load_space(space, overrides=overrides, check_method=methods.build, find_method=methods.find)
        found = {recipe.training for recipe in config.space.corners()}
        if len(found) > 1:
            plain = [to_plain(training) for training in found]
            open_ones = [name for name in plain[0] if any(other[name] != plain[0][name] for other in plain)]
            what = f"trials may train with several values of {', '.join(open_ones)}"
            raise InputError(what, where="space.training", allowed=f"--set space.training.{open_ones[0]}=VALUE")
        (training,) = found
        if training.rungs[:1] != (0.0,):
            what = "nothing is measured right after the cut"
            raise InputError(what, where="space.training.rungs", allowed="[0, ...]: rungs that begin with 0")
        return cls(name=Path(space).stem, task=to_plain(config.task), training=training, flops=flops)

    def key(self) -> str:
        """Which rows belong together: all that decides a number, but for where the data lie."""
        data = {name: value for name, value in self.task.get("data", {}).items() if name not in {"path", "workers"}}
        return stable_hash({**asdict(self), "task": {**self.task, "data": data}, "name": ""})

    def recipe(self, method: str, seed: int) -> Recipe:
        """What a trial does."""
        target = Target(flops=1.0 if method == DENSE else self.flops)
        choice, allocation = MethodChoice(name=method), Allocation(name="uniform")
        return Recipe(method=choice, target=target, allocation=allocation, training=self.training, seed=seed)


def missing(rows: Iterable[Mapping[str, Any]], settings: Settings, named: Sequence[str], seeds: Sequence[int]) -> Any:
    """(method, seed) of every trial that no row has, seed by seed, so that methods can be compared early."""
    done = {(row["method"], row["seed"]) for row in rows if row["settings"] == settings.key()}
    return [(method, seed) for seed in seeds for method in named if (method, seed) not in done]


def measure(shared: SharedState, settings: Settings, method: str, seed: int) -> dict[str, Any]:
    """One trial as a row.

    Raises:
        StudyError: it failed.
    """
    outcome = run(settings.recipe(method, seed), shared, final=True).outcome
    if not outcome.completed:
        raise StudyError(f"{method}, seed {seed}: {outcome.error}", where="task_methods")
    return {
        "settings": settings.key(),
        "space": settings.name,
        "metric": shared.task.metric_spec.name,
        "unit": shared.task.metric_spec.unit,
        "method": method,
        "seed": seed,
        "images": settings.training.images,
        "flops_ratio": outcome.flops_ratio,
        "after_cut": outcome.rungs[0].metric,
        "validation": outcome.metric,
        "test": outcome.test_metric,
        "seconds": outcome.finished - outcome.started,
        "machine": describe_machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The measured part of the page: a table for each settings that the rows have."""
    tables: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        tables[row["settings"]].append(row)
    return "\n".join(["# Methods on other tasks", "", *(line for table in tables.values() for line in _table(table))])


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["method"]].append(row)
    metric, machines = rows[0]["metric"], sorted({row["machine"] for row in rows})
    images = f"every trial trained on {rows[0]['images']:,} images"
    told = f"{' in '.join(filter(None, (metric, rows[0]['unit'])))}; {images}; {'; '.join(machines)}."
    columns = ["method", "seeds", "FLOPs", "after the cut", "validation", "test", "seconds"]
    lines = map(_line, found, found.values())
    return [f"## {rows[0]['space']}", "", told, "", *table_head(columns), *lines, ""]


def _line(method: str, rows: Sequence[Mapping[str, Any]]) -> str:
    factor, digits = (100, 2) if rows[0]["unit"] == "%" else (1, 4)
    values = [[factor * row[name] for row in rows] for name in ("after_cut", "validation", "test")]
    flops = f"{sum(row['flops_ratio'] for row in rows) / len(rows):.1%}"
    measured = [mean_and_std(own, digits) for own in values]
    return table_row([method, len(rows), flops, *measured, mean_and_std([row["seconds"] for row in rows], 0)])


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The trials of a file."""
    return [parse_line(line, f"{file}:{number}") for number, line in read_lines(file)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing and write the table."""
    args = _parser().parse_args(argv)
    settings = Settings.of(args.space, args.overrides, args.flops)
    repair_tail(args.rows)
    todo = missing(read_rows(args.rows), settings, args.methods, args.seeds)
    if todo:
        task = load_task(settings.task)
        if task.test is None:
            raise InputError("methods are compared on a test split", where="task", allowed="a task with `test`")
        runtime = choose_runtime(task.model(), task, settings.training.batch_size, args.device)
        shared = SharedState.of(task, runtime)
    for method, seed in todo:
        row = measure(shared, settings, method, seed)
        append_line(args.rows, json.dumps(row))
        shown = task.metric_spec.shown(row["test"])
        print(f"{method}, seed {seed}: {row['metric']} {shown} on the test split", flush=True)
    if args.table is not None:
        write_measured(args.table, page(read_rows(args.rows)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Pruning methods on the task of a space.")
    parser.add_argument("space")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--device", default="auto")
    return parser


if __name__ == "__main__":
    main()
