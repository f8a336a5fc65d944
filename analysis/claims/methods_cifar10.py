"""Every method on ResNet-20 and CIFAR-10: same widths, same number of training images, accuracy before and after.

    python -m autoprune.analysis.claims.methods_cifar10 DATA --out RUNS.jsonl [--methods NAME ...] [--part I/N]
        [--flops 0.5 --seeds 0 1 2] [--images 100000] [--weights scratch] [--validation] [--set key=value ...]
        [--table FILE.md]

DATA is a folder with cifar10.npz and weights/resnet20_cifar10.safetensors. Every run starts from the pretrained weights
and trains on the same number of images, sparsify stage included; allocation is uniform, so that at one target all
methods end with the same widths and differ in which filters stay and what happened to the weights. Hyper-parameters are
the methods' defaults, looked at on the first 5,000 test images (`--validation`); what is reported is measured on the
other 5,000, which the weights have not seen either. Rows are appended to `--out` as they come and not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import describe_machine, mean_and_std, table_head, table_row, write_measured
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.log import append_line, read_lines
from autoprune.study.space_file import load_space
from autoprune.tasks import Task, load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

Row = dict[str, Any]

#: Two epochs; the rate of the ready space's better recipes, warmed up since the cut has just changed everything.
TRAINING = Training(images=100_000, lr=0.03, warmup=0.05, rungs=(0.0, 1.0))
SPACE = "cifar10_resnet20"


@dataclass(frozen=True)
class Plan:
    """One run: a method with its hyper-parameters, a target and a seed."""

    method: str
    params: Mapping[str, Any]
    flops: float
    seed: int
    weights: str = "trained"

    def recipe(self, training: Training) -> Recipe:
        """The plan as a recipe; the dense control has no target."""
        return Recipe(
            method=MethodChoice(name=self.method, params=self.params),
            weights=self.weights,
            target=Target() if methods.METHODS[self.method].is_dense else Target(flops=self.flops),
            allocation=Allocation(name="uniform"),
            training=training,
            seed=self.seed,
        )


def plans(
    names: Iterable[str], params: Mapping[str, Any], flops: float, seeds: Iterable[int], weights: str
) -> Iterator[Plan]:
    """Seed by seed, so that an unfinished table has something of every method."""
    for seed in seeds:
        for name in names:
            yield Plan(name, params, flops, seed, weights)


def measure(plan: Plan, shared: SharedState, training: Training, split: str) -> Row:
    """Run the plan; accuracies are of `shared.task.validation`."""
    done = run(plan.recipe(training), shared)
    outcome = done.outcome
    return {
        "method": plan.method,
        "params": dict(plan.params),
        "flops": plan.flops,
        "seed": plan.seed,
        "weights": plan.weights,
        "split": split,
        "images": training.images,
        "lr": training.lr,
        "status": outcome.status,
        "error": outcome.error,
        "flops_ratio": outcome.flops_ratio,
        "before": next((rung.accuracy for rung in outcome.rungs if rung.share == 0), None),
        "after": outcome.accuracy,
        "seconds": dict(outcome.seconds),
        "notes": dict(outcome.notes),
        "pruned": _pruned_units(done.keep, done.graph) if done.keep is not None and done.graph is not None else {},
    }


def _pruned_units(keep: Keep, graph: ChannelGraph) -> dict[str, list[int]]:
    return {group: sorted(set(range(graph.by_id[group].size)) - set(kept)) for group, kept in keep.kept}


def shared_state_of(data: Path, split: str) -> SharedState:
    """ResNet-20 on CIFAR-10, measured on one half of the test images; one runtime for all runs."""
    os.environ["AUTOPRUNE_DATA"] = str(data)
    task: Task = load_task(load_space(SPACE, find_method=methods.find).task)
    if split == "test":
        task = replace(task, validation=task.test)
    return SharedState.of(task, Runtime(precision="bf16", channels_last=True, threads=torch.get_num_threads()))


# ---- the table -------------------------------------------------------------------------------------------------------


def label(row: Row) -> str:
    """The method, with weights, hyper-parameters and training images that are not the usual ones."""
    unusual = [
        *(["from scratch"] if row.get("weights") == "scratch" else []),
        *(f"{key} {value}" for key, value in row["params"].items()),
        *([f"{row['images']:,} images"] if row["images"] != TRAINING.images else []),
    ]
    return ", ".join([row["method"], *unusual])


def table(rows: Sequence[Row]) -> str:
    """The runs of the reported half as Markdown: a table per target, methods by accuracy after fine-tuning."""
    shown = [row for row in rows if row["split"] == "test"]
    dense = [row for row in shown if row["method"] == "dense"]
    controls = {name: [row for row in dense if label(row) == name] for name in sorted(map(label, dense))}
    pruned = [row for row in shown if row["method"] != "dense"]
    targets = sorted({row["flops"] for row in pruned}, reverse=True)
    tables = (_target_table(flops, [row for row in pruned if row["flops"] == flops], controls) for flops in targets)
    return "\n".join([_page_head(), *tables]) + "\n"


def _page_head() -> str:
    return (
        "# Methods on ResNet-20 and CIFAR-10\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, `python -m autoprune.analysis.claims.methods_cifar10`: what is compared.\n"
        f"{describe_machine()}. {TRAINING.images:,} training images a run, sparsify stage included,\n"
        "unless it says otherwise; uniform allocation; default hyper-parameters; accuracy on the last 5,000 test\n"
        "images. Pruned by `l1` too: the share of a method's pruned filters, same seed.\n"
        "Before: cut, batch-norm statistics re-estimated. Mean and standard deviation over seeds.\n"
    )


def _target_table(flops: float, rows: Sequence[Row], dense: Mapping[str, Sequence[Row]]) -> str:
    by_method = {name: [row for row in rows if label(row) == name] for name in {label(row) for row in rows}}
    order = sorted(by_method, key=lambda name: -_mean_of(by_method[name], "after"))
    columns = ("method", "seeds", "before", "after", "minutes", "pruned by `l1` too", "notes")
    lines = [
        f"\n## {flops:.0%} of the FLOPs\n",
        *table_head(columns, text=(0, len(columns) - 1)),
        *(_method_row(f"{name} (100 %)", of, []) for name, of in dense.items()),
        *(_method_row(name, by_method[name], by_method.get("l1", [])) for name in order),
    ]
    failed = [f"\n{row['method']}, seed {row['seed']}: {row['error']}" for row in rows if row["status"] != "completed"]
    return "\n".join(lines + failed)


def _method_row(name: str, rows: Sequence[Row], l1: Sequence[Row]) -> str:
    minutes = statistics.mean(sum(row["seconds"].values()) / 60 for row in rows)
    shared = [_shared_share(row, other) for row in rows for other in l1 if row["seed"] == other["seed"]]
    alike = f"{statistics.mean(shared):.0%}" if shared else ""
    accuracies = (_accuracy_text(rows, name) for name in ("before", "after"))
    return table_row([name, len(rows), *accuracies, f"{minutes:.1f}", alike, _notes_text(rows)])


def _mean_of(rows: Sequence[Row], name: str) -> float:
    return statistics.mean([row[name] for row in rows if row[name] is not None] or [0.0])


def _accuracy_text(rows: Sequence[Row], name: str) -> str:
    """Per cent, over the runs that completed."""
    values = [100 * row[name] for row in rows if row[name] is not None]
    return mean_and_std(values) if values else "failed"


def _shared_share(row: Row, other: Row) -> float:
    """The share of the units pruned in `row` that `other` prunes too."""
    both = sum(len(set(gone) & set(other["pruned"].get(group, []))) for group, gone in row["pruned"].items())
    return both / max(1, sum(map(len, row["pruned"].values())))


def _notes_text(rows: Sequence[Row]) -> str:
    names = sorted({name for row in rows for name in row["notes"]})
    return ", ".join(f"{name} {', '.join(_note_value(row['notes'].get(name)) for row in rows)}" for name in names)


def _note_value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# ---- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the missing plans, and write the table."""
    args = _parse_arguments()
    names = args.methods or methods.names()
    split = "validation" if args.validation else "test"
    training = replace(TRAINING, images=args.images)
    index, parts = (int(number) for number in args.part.split("/"))
    todo = list(plans(names, dict(args.set), args.flops, args.seeds, args.weights))[index::parts]
    shared: SharedState | None = None
    for plan in todo:
        if not any(is_run_of(row, plan, training, split) for row in read_rows(args.out)):
            shared = shared or shared_state_of(args.data, split)
            row = measure(plan, shared, training, split)
            append_line(args.out, json.dumps(row))
            print(plan.method, plan.flops, plan.seed, row["before"], row["after"], row["notes"], row["error"] or "")
    if args.table:
        write_measured(args.table, table(read_rows(args.out)))


def read_rows(file: Path) -> list[Row]:
    """The runs that a file holds."""
    return [json.loads(line) for _, line in read_lines(file)]


def is_run_of(row: Row, plan: Plan, training: Training, split: str) -> bool:
    """Whether a row is the result of this plan with this training on this split."""
    wanted = {**vars(plan), "params": dict(plan.params), "split": split, "images": training.images, "lr": training.lr}
    return {"weights": "trained", **row}.items() >= wanted.items()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=methods.names())
    parser.add_argument("--part", default="0/1", help="I/N: every N-th run, from the I-th on")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--weights", choices=("trained", "scratch"), default="trained")
    parser.add_argument("--images", type=int, default=TRAINING.images)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--set", nargs="+", type=_parse_assignment, default=[], metavar="KEY=VALUE")
    parser.add_argument("--table", type=Path)
    return parser.parse_args()


def _parse_assignment(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


if __name__ == "__main__":
    main()
