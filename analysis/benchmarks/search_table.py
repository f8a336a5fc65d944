"""A table of real recipes, from the dense model and on from each other: what searches can be replayed from.

    python -m autoprune.analysis.benchmarks.search_table --out ROWS.jsonl --models FOLDER [--space cifar10_resnet20]
        [--methods l1 fpgm taylor] [--shapes uniform global:mean] [--targets 0.75 0.5 0.35 0.25 0.17 0.12 0.08]
        [--seeds 0 1] [--mixed 8] [--images 32000] [--lr 0.03] [--most ROWS]

Every method with every shape, target and seed is recorded twice: from the dense model at once, and down a ladder, where
each recipe goes on from the one at the next higher target. `--mixed` ladders change method and shape at random from
rung to rung. Data and weights are found by $AUTOPRUNE_DATA. A row is appended as soon as its recipe has ended; called
again, what is there is not made again. FOLDER holds the models that ladders go on from; a model that is missing there
is made again with its lineage. `--most` ends a call after so many new rows. Two processes must not write one file.

`search_table.jsonl` beside this file has what has been recorded so far, with the options' defaults. The machine did
other work meanwhile: accuracies are right, seconds too long.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoprune import methods
from autoprune.errors import StudyError
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.schema import read
from autoprune.study.lineages import lineage
from autoprune.study.log import append_line, read_lines
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.trial.lineage import run_lineage
from autoprune.trial.pruned_model import save_pruned
from autoprune.trial.shared import SharedState

TARGETS = (0.75, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08)
METHODS = ("l1", "fpgm", "taylor")
SHAPES = ("uniform", "global:mean")


@dataclass(frozen=True)
class Rung:
    """One recipe of a ladder: how it prunes, and to which share of the dense model's FLOPs."""

    method: str
    shape: str
    target: float


@dataclass(frozen=True)
class Ladder:
    """Recipes that go on from each other, the first from the dense model; trial n has the seed `seed` + n."""

    rungs: tuple[Rung, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A recipe of the table, and what it gave.

    Fields:
        number: of the row; `recipe.parent` is the number of another one.
        ladder: its rungs up to this one, and their seed: what it is found again by.
        accuracy: None if the recipe failed, and `error` says why.
        flops: relative to the dense model.
        seconds: of its own training.
    """

    number: int
    ladder: Ladder
    recipe: Recipe
    accuracy: float | None
    flops: float | None
    images: int
    seconds: float
    error: str | None

    def to_json(self) -> str:
        """One line."""
        ladder = {"rungs": [vars(rung) for rung in self.ladder.rungs], "seed": self.ladder.seed}
        return json.dumps({**vars(self), "ladder": ladder, "recipe": self.recipe.to_dict()})

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The row of a line."""
        plain = json.loads(line)
        rungs = tuple(Rung(**rung) for rung in plain["ladder"]["rungs"])
        ladder = Ladder(rungs, plain["ladder"]["seed"])
        return cls(**{**plain, "ladder": ladder, "recipe": Recipe.from_dict(plain["recipe"])})


def read_table(file: Path) -> list[Row]:
    """The rows that a file holds; none if there is no file."""
    return [Row.from_json(line) for _, line in read_lines(file)]


def planned_ladders(
    method_names: Sequence[str], shapes: Sequence[str], targets: Sequence[float], seeds: Sequence[int], mixed: int
) -> list[Ladder]:
    """All ladders of a table, seed by seed.

    First a ladder per method and shape, then each of its targets at once, then those that change from rung to rung,
    drawn with the seed and their number.
    """
    down = sorted(targets, reverse=True)
    found = []
    for seed in seeds:
        kinds = [(method, shape) for method in method_names for shape in shapes]
        found += [Ladder(tuple(Rung(*kind, target) for target in down), seed) for kind in kinds]
        found += [Ladder((Rung(*kind, target),), seed) for kind in kinds for target in down[1:]]
        for number in range(mixed):
            draw = random.Random(f"{seed} {number}")
            found.append(Ladder(tuple(Rung(*draw.choice(kinds), target) for target in down), seed))
    return found


def recipe_of(ladder: Ladder, parent: int | None, training: Training) -> Recipe:
    """The recipe of a ladder's last rung, which goes on from the row `parent`."""
    rung = ladder.rungs[-1]
    name, _, normalise = rung.shape.partition(":")
    return Recipe(
        method=MethodChoice(name=rung.method),
        weights="trained" if parent is None else "front",
        parent=parent,
        target=Target(flops=rung.target),
        allocation=Allocation(name=name, **({"normalise": normalise} if normalise else {})),
        training=training,
        seed=ladder.seed + len(ladder.rungs) - 1,
    )


def record(
    ladders: Sequence[Ladder], training: Training, rows: Sequence[Row], shared: SharedState, models: Path
) -> Iterator[Row]:
    """Run what is missing among the rungs of the ladders, and yield its rows; rungs below one that failed are left out.

    Raises:
        StudyError: a row on file was made with another training.
    """
    known = {row.ladder: row for row in rows}
    for ladder in ladders:
        parent: int | None = None
        for depth in range(1, len(ladder.rungs) + 1):
            part = replace(ladder, rungs=ladder.rungs[:depth])
            recipe = recipe_of(part, parent, training)
            if part in known and known[part].recipe != recipe:
                raise StudyError(f"row {known[part].number} on file is of another table", where=str(part))
            if part not in known:
                known[part] = _run_rung(part, recipe, known, shared, models)
                yield known[part]
            if known[part].accuracy is None:
                break
            parent = known[part].number


def _run_rung(ladder: Ladder, recipe: Recipe, known: dict[Ladder, Row], shared: SharedState, models: Path) -> Row:
    number = len(known)
    recipes = {row.number: row.recipe for row in known.values()}
    there = recipe.parent is None or (models / str(recipe.parent)).is_dir()
    ancestors = [] if there else [ancestor for _, ancestor in lineage(recipe, recipes)]
    parent = models / str(recipe.parent) if there and recipe.parent is not None else None
    trial = run_lineage(ancestors, recipe, shared, parent=parent)
    if trial.model is not None and trial.remains is not None:
        save_pruned(models / str(number), trial.model, trial.remains, {"recipe": recipe.to_dict()})
    outcome = trial.outcome
    return Row(
        number=number,
        ladder=ladder,
        recipe=recipe,
        accuracy=outcome.accuracy if outcome.completed else None,
        flops=outcome.flops_ratio,
        images=outcome.own_images,
        seconds=sum(outcome.seconds.values()),
        error=outcome.error,
    )


def main() -> None:
    """Record what is missing."""
    options = _parse_arguments()
    space = load_space(options.space, find_method=methods.find)
    plain = {**space.to_plain()["space"]["training"], "images": options.images, "lr": options.lr, "rungs": [1]}
    training = read(Training, plain, f"{options.space}: space.training")
    ladders = planned_ladders(options.methods, options.shapes, options.targets, options.seeds, options.mixed)
    rows = read_table(options.out) if options.out.exists() else []
    options.models.mkdir(parents=True, exist_ok=True)
    made = record(ladders, training, rows, SharedState.of(load_task(space.task)), options.models)
    for count, row in enumerate(made, 1):
        append_line(options.out, row.to_json())
        print(row.number, row.ladder.rungs[-1], row.recipe.parent, row.accuracy, row.error or "", flush=True)
        if count == options.most:
            break


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--space", default="cifar10_resnet20")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--mixed", type=int, default=8)
    parser.add_argument("--images", type=int, default=32_000)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--most", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
