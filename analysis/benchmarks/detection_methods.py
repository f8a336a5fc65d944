"""Pruning methods on a detector of photographs: Group Fisher and others against l1 at one target, with several seeds.

    python -m autoprune.analysis.benchmarks.detection_methods FOLDER --rows FILE [--table FILE] [--methods NAME ...]
        [--seeds N ...] [--flops RATIO] [--dense IMAGES] [--images IMAGES] [--splits JSON] [--device D]

FOLDER is a data set in Pascal VOC's layout, such as BCCD (364 photographs of blood smears, MIT): boxes without a width
or a height are left out. A RetinaNet-FPN is trained on it from scratch at half size, once; then every method prunes it
to the same share of its FLOPs and trains what is left on as many images, with the same batches for the same seed. The
uniform allocation is given to all, except to methods that choose widths themselves.

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

from autoprune.analysis.benchmarks.markdown import (
    describe_machine,
    mean_and_std,
    table_head,
    table_row,
    write_measured,
)
from autoprune.errors import StudyError
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training, stable_hash
from autoprune.study.log import append_line, parse_line, read_lines, repair_tail
from autoprune.study.outcome import DENSE
from autoprune.tasks import load_task
from autoprune.training.runtime import choose_runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

METHODS = (DENSE, "l1", "group_fisher")
BATCH = 8
LEARNING_RATE = 0.01

#: A RetinaNet-FPN for 640 x 480 photographs at half size: cells of 20 to 110 pixels there, as high as wide.
NETWORK: dict[str, Any] = {
    "scale": 0.5,
    "widths": [32, 64, 128, 256],
    "pyramid": 64,
    "anchors": [20, 36, 60, 100],
    "ratios": [0.75, 1.0, 1.33],
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all trials have in common.

    Fields:
        folder: of the data.
        flops: the target.
        dense: images that the dense model is trained on, from scratch.
        images: images that every trial trains on.
        splits: as in a space file; empty for VOC's own train, val and test.
        network: arguments of `small_retinanet`.
    """

    folder: str
    flops: float
    dense: int
    images: int
    splits: Mapping[str, str]
    network: Mapping[str, Any]

    def key(self) -> str:
        """Which rows belong together: all that decides a number, but for where the data lie."""
        return stable_hash({**asdict(self), "folder": ""})

    def task(self) -> dict[str, Any]:
        """The `task:` mapping."""
        data = {"name": "voc", "path": self.folder, "drop_degenerate": True, "augment": ["flip", "scale"]}
        train = {"images": self.dense, "batch_size": BATCH, "lr": LEARNING_RATE, "warmup": 0.1, "weight_decay": 1e-4}
        model = {"name": "small_retinanet", "arguments": self.network, "train": train | {"clip": 10}}
        return {"kind": "detection", "data": {**data, "splits": self.splits, "workers": 2}, "model": model}

    def recipe(self, method: str, seed: int) -> Recipe:
        """What a trial does."""
        training = Training(
            images=self.images, batch_size=BATCH, lr=LEARNING_RATE / 2, warmup=0.1, weight_decay=1e-4, clip=10
        )
        target = Target(flops=1.0 if method == DENSE else self.flops)
        choice, allocation = MethodChoice(name=method), Allocation(name="uniform")
        return Recipe(method=choice, target=target, allocation=allocation, training=training, seed=seed)


def missing(rows: Iterable[Mapping[str, Any]], settings: Settings, methods: Sequence[str], seeds: Sequence[int]) -> Any:
    """(method, seed) of every trial that no row has, seed by seed, so that methods can be compared early."""
    done = {(row["method"], row["seed"]) for row in rows if row["settings"] == settings.key()}
    return [(method, seed) for seed in seeds for method in methods if (method, seed) not in done]


def measure(shared: SharedState, settings: Settings, method: str, seed: int) -> dict[str, Any]:
    """One trial as a row.

    Raises:
        StudyError: it failed.
    """
    outcome = run(settings.recipe(method, seed), shared, final=True).outcome
    if not outcome.completed:
        raise StudyError(f"{method}, seed {seed}: {outcome.error}", where="detection_methods")
    return {
        "settings": settings.key(),
        "method": method,
        "seed": seed,
        "flops_ratio": outcome.flops_ratio,
        "after_cut": outcome.rungs[0].metric,
        "validation": outcome.metric,
        "test": outcome.test_metric,
        "seconds": outcome.finished - outcome.started,
        "machine": describe_machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def page(rows: Sequence[Mapping[str, Any]], settings: Settings) -> str:
    """The measured part of the page."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["settings"] == settings.key():
            found[row["method"]].append(row)
    columns = ["method", "seeds", "FLOPs", "mAP after the cut", "mAP, validation", "mAP, test", "seconds"]
    return "\n".join([*_heading(rows, settings), *table_head(columns), *map(_line, found, found.values())])


def _heading(rows: Sequence[Mapping[str, Any]], settings: Settings) -> list[str]:
    machines = sorted({row["machine"] for row in rows if row["settings"] == settings.key()})
    told = f"Dense RetinaNet-FPN trained on {settings.dense:,} images, every trial on {settings.images:,}"
    return ["# Methods on a detector", "", f"{told}; {'; '.join(machines)}. mAP in per cent.", ""]


def _line(method: str, rows: Sequence[Mapping[str, Any]]) -> str:
    shares = [mean_and_std([100 * row[name] for row in rows]) for name in ("after_cut", "validation", "test")]
    flops = f"{sum(row['flops_ratio'] for row in rows) / len(rows):.1%}"
    return table_row([method, len(rows), flops, *shares, mean_and_std([row["seconds"] for row in rows], 0)])


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The trials of a file."""
    return [parse_line(line, f"{file}:{number}") for number, line in read_lines(file)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing and write the table."""
    args = _parser().parse_args(argv)
    settings = Settings(
        folder=args.folder,
        flops=args.flops,
        dense=args.dense,
        images=args.images,
        splits=args.splits,
        network=args.network,
    )
    repair_tail(args.rows)
    todo = missing(read_rows(args.rows), settings, args.methods, args.seeds)
    if todo:
        task = load_task(settings.task())
        shared = SharedState.of(task, choose_runtime(task.model(), task, BATCH, args.device))
    for method, seed in todo:
        row = measure(shared, settings, method, seed)
        append_line(args.rows, json.dumps(row))
        print(f"{method}, seed {seed}: mAP {row['test']:.2%} on the test split", flush=True)
    if args.table is not None:
        write_measured(args.table, page(read_rows(args.rows), settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Pruning methods on a detector in Pascal VOC's layout.")
    parser.add_argument("folder")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--dense", type=int, default=8200)  # 40 passes over BCCD's 205 images
    parser.add_argument("--images", type=int, default=2050)
    parser.add_argument("--splits", type=json.loads, default={})
    parser.add_argument("--network", type=json.loads, default=NETWORK)
    parser.add_argument("--device", default="auto")
    return parser


if __name__ == "__main__":
    main()
