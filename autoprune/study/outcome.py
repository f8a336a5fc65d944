"""Outcome: what a recipe gave. Proposal: a recipe that was handed out. Each is one line of JSON in a study's logs.

In a line a metric stands under its own name: `"accuracy": 0.91`, `"test_accuracy": 0.9`, in a study of another one
`"rmse": 1.2`. Here it is `metric`, whatever it is called.
"""

from __future__ import annotations

import json
import marshal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.errors import InputError, brief_repr
from autoprune.recipe import Recipe
from autoprune.schema import brief, choices, read, to_plain, within
from autoprune.study.log import parse_line
from autoprune.study.metric import ACCURACY, MetricSpec

STATUSES = ("completed", "stopped", "failed", "paused")

#: The methods of the controls: the dense model with the same training, and pruning at random.
DENSE, RANDOM = "dense", "random"

#: Fields that a line leaves out if they have these values, those of a study without lineages.
WITHOUT_LINEAGES: Mapping[str, Any] = {"ancestors": [], "ancestor_images": 0, "expected": None}

#: How many times the dense model's cost a pruned one's may be: a file with more was damaged.
MOST_TIMES = 10**6

#: Reads a recipe from plain data that stands at a place, as `Recipe.from_dict` does.
ReadRecipe = Callable[[object, str], Recipe]

#: The error of an outcome that a constraint of the study has ended begins with this.
BROKEN = "constraint: "


class RecipeReader:
    """`Recipe.from_dict` that reads each recipe once: a study has a trial's recipe in three or four of its lines."""

    def __init__(self) -> None:
        self._known: dict[bytes, Recipe] = {}

    def __call__(self, data: Any, where: str) -> Recipe:
        """The recipe; an error names `where`."""
        key = marshal.dumps(data, 2)  # unlike the data themselves, bytes tell 1, 1.0 and true apart
        if key not in self._known:
            self._known[key] = Recipe.from_dict(data, where)
        return self._known[key]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """The metric on the validation split on the way.

    Fields:
        share: which of the recipe's `rungs` it is; 0 = right after the cut, 1 = the end.
        images: training images seen by then, sparsify stage included.
        metric: in its own unit.
        seconds: spent by then; what a paused trial waited does not count.
    """

    share: float
    images: int
    metric: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """The metric, as it is called in studies of accuracy."""
        return self.metric

    @property
    def comparable(self) -> bool:
        """Whether all trials measured at this share have seen as many images.

        Right after the cut some trials have seen none and others their whole sparsify stage.
        """
        return self.share > 0 or self.images == 0


@dataclass(frozen=True, kw_only=True)
class RunInterval:
    """When one worker ran a trial, or a segment of it between two pauses; seconds since the study began."""

    worker: str
    started: float
    finished: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a recipe gave; one JSON line of `outcomes.jsonl`.

    Fields:
        id: the proposal's number in the study; trials run without a study have 0.
        status: `completed`, `stopped` (ended early by the search, or right after the cut by a constraint, which
            `error` names) or `failed` (with `error`); in `paused.jsonl` also `paused`: it waits at its last rung, and
            may go on.
        metric: on the validation split, in its own unit; None unless completed.
        flops_ratio, params_ratio, activations_ratio: relative to the dense model; None if the cut was never reached.
        latency_ratio: the same of the measured latency, and latency_ms the milliseconds of a forward pass (see
            `latency`); None unless the study asks for latency.
        latency_low, latency_high: the interval of that ratio (see `timing.pairs`); None where it was not measured.
        widths: kept units per group id of the graph.
        started, finished: seconds since the study began.
        seconds: wall time per stage of the trial.
        worker: the one that ran it last, as a `WorkerName` writes it.
        legs: the run intervals of its segments; several if it paused.
        notes: what the method had to tell about its cuts, such as `gap_violated`.
        control: this recipe was not proposed by the sampler but is there to compare with (`dense`, `random`).
        ancestor_images: training images of all trials that it goes on from, see `Recipe.parent`.
        member: of a finalist, the number of the trial whose recipe it trains again (-1: a dense control that the search
            had none of); None for trials of a search.
        ancestors: of a finalist, the recipes of its member's lineage, which it has run before its own.
        test_metric: of a finalist, the metric on the test split; no trial of a search looks at that.
    """

    id: int = field(metadata=within(0, 2**53))
    recipe: Recipe
    status: str = field(metadata=choices(*STATUSES))
    metric: float | None = None
    flops_ratio: float | None = field(default=None, metadata=within(0, MOST_TIMES))
    params_ratio: float | None = field(default=None, metadata=within(0, MOST_TIMES))
    activations_ratio: float | None = field(default=None, metadata=within(0, MOST_TIMES))
    latency_ratio: float | None = field(default=None, metadata=within(0, MOST_TIMES))
    latency_ms: float | None = field(default=None, metadata=within(0, sys.float_info.max))
    latency_low: float | None = field(default=None, metadata=brief(within(0, MOST_TIMES)))
    latency_high: float | None = field(default=None, metadata=brief(within(0, MOST_TIMES)))
    rungs: tuple[Rung, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    control: bool = False
    worker: str = ""
    legs: tuple[RunInterval, ...] = ()
    error: str | None = None
    ancestor_images: int = 0
    member: int | None = None
    ancestors: tuple[Recipe, ...] = ()
    test_metric: float | None = None

    @property
    def accuracy(self) -> float | None:
        """The metric, as it is called in studies of accuracy."""
        return self.metric

    @property
    def test_accuracy(self) -> float | None:
        """The metric on the test split, as it is called in studies of accuracy."""
        return self.test_metric

    @property
    def completed(self) -> bool:
        """Whether the outcome may enter a front: it ran to the end of its recipe."""
        return self.status == "completed"

    @property
    def own_images(self) -> int:
        """Training images that the trial has seen by its last rung, without those of its ancestors."""
        return self.rungs[-1].images if self.rungs else 0

    @property
    def lineage_images(self) -> int:
        """Training images of the trial and of all that it goes on from."""
        return self.ancestor_images + self.own_images

    @property
    def infeasible(self) -> bool:
        """Whether a constraint of the study has ended it."""
        return self.status == "stopped" and (self.error or "").startswith(BROKEN)

    @property
    def costs(self) -> dict[str, float | None]:
        """The known costs: relative to the dense model by the name of the objective, and `latency_ms`."""
        return {
            "flops": self.flops_ratio,
            "params": self.params_ratio,
            "activations": self.activations_ratio,
            "latency": self.latency_ratio,
            "latency_ms": self.latency_ms,
        }

    @property
    def run_intervals(self) -> tuple[RunInterval, ...]:
        """Its legs; one interval from start to end where none were noted."""
        return self.legs or (RunInterval(worker=self.worker, started=self.started, finished=self.finished),)

    @property
    def duration(self) -> float:
        """Seconds that workers spent on it; what it waited does not count."""
        return sum(interval.finished - interval.started for interval in self.run_intervals)

    def to_json(self, metric: MetricSpec = ACCURACY) -> str:
        """One line of JSON, without the newline; NaN and infinity are refused.

        Args:
            metric: of the study; the line has it under its name.
        """
        return json.dumps(name_metric(_line_to_plain(self), metric), allow_nan=False)

    @classmethod
    def from_json(
        cls,
        line: str,
        where: str = "outcome",
        read_recipe: ReadRecipe = Recipe.from_dict,
        metric: MetricSpec = ACCURACY,
        unread: list[str] | None = None,
    ) -> Outcome:
        """The inverse of `to_json`.

        Args:
            unread: fields that are unknown here, as a later version may write them, are added to it and left out, by
                the place where they stand; None = they are an error.

        Raises:
            InputError: the line holds something else.
        """
        data = parse_line(line, where)
        data = unname_metric({**data, **_read_recipes(data, where, read_recipe)}, metric, where)
        return read(cls, _known_fields(cls, data, where, unread), where)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A recipe that was handed out; one JSON line of `proposals.jsonl`.

    Fields:
        params, distributions: the sampler's own words for the recipe, so that a resumed search can replay it.
        proposed: seconds since the study began.
        expected: of a search along lineages, the height (`MetricSpec.height`) that was expected of the recipe when it
            was handed out; of accuracy that is accuracy itself.
        ancestors: recipes that are run before it, each from what the one before has left; empty where the recipe
            starts from the dense model, or its parent's model is there to go on from.
    """

    id: int
    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, Any] = field(default_factory=dict)
    proposed: float = 0.0
    control: bool = False
    expected: float | None = None
    ancestors: tuple[Recipe, ...] = ()

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        return json.dumps(_line_to_plain(self), allow_nan=False)

    @classmethod
    def from_json(
        cls,
        line: str,
        where: str = "proposal",
        read_recipe: ReadRecipe = Recipe.from_dict,
        unread: list[str] | None = None,
    ) -> Proposal:
        """The inverse of `to_json`; `unread` is as of `Outcome.from_json`. Raises `InputError` on anything else."""
        data = parse_line(line, where)
        data = {**data, **_read_recipes(data, where, read_recipe)}
        return read(cls, _known_fields(cls, data, where, unread), where)


def _known_fields(
    cls: type[Outcome | Proposal], data: dict[str, Any], where: str, unread: list[str] | None
) -> dict[str, Any]:
    """The data without the fields that the class lacks, which are noted; all of them if nobody asks for the notes."""
    unknown = [] if unread is None else [name for name in data if name not in cls.__dataclass_fields__]
    if unread is None or not unknown:
        return data
    unread += [f"{where}: {name!r} is not read" for name in unknown]
    return {name: item for name, item in data.items() if name not in unknown}


def check_numbers(outcome: Outcome, metric: MetricSpec, where: str) -> Outcome:
    """The outcome; raises `InputError` if its metric is one that no model has, or it has completed without any."""
    if outcome.completed and outcome.metric is None:
        what = f"a completed trial without {metric.name}"
        raise InputError(what, where=where, allowed=f"{metric.name}, {metric.range_text()}")
    values = {metric.name: outcome.metric, f"test_{metric.name}": outcome.test_metric}
    values |= {f"rungs[{place}].{metric.name}": rung.metric for place, rung in enumerate(outcome.rungs)}
    for name, value in values.items():
        if value is not None and not metric.contains(value):
            raise InputError(f"{value!r} is out of range", where=f"{where}.{name}", allowed=metric.range_text())
    return outcome


def name_metric(plain: Mapping[str, Any], metric: MetricSpec) -> dict[str, Any]:
    """Plain data of an outcome, or of what else has rungs, with the metric under its name; in the same order."""
    names = {"metric": metric.name, "test_metric": f"test_{metric.name}"}
    whole = {names.get(key, key): value for key, value in plain.items()}
    rungs = [{names.get(key, key): value for key, value in rung.items()} for rung in whole["rungs"]]
    return {**whole, "rungs": rungs}


def unname_metric(data: Mapping[str, Any], metric: MetricSpec, where: str) -> dict[str, Any]:
    """The inverse of `name_metric`; raises `InputError` where the metric has another name."""
    fields = {metric.name: "metric", f"test_{metric.name}": "test_metric"}

    def with_fields(part: Any, place: str) -> Any:
        if not isinstance(part, dict):
            return part
        for key in fields.values():
            if key in part and key not in fields:
                raise InputError(f"unknown key {key!r}", where=place, allowed=", ".join(fields))
        return {fields.get(name, name): value for name, value in part.items()}

    whole: dict[str, Any] = with_fields(dict(data), where)
    if isinstance(rungs := whole.get("rungs"), list):
        whole["rungs"] = [with_fields(rung, f"{where}.rungs[{i}]") for i, rung in enumerate(rungs)]
    return whole


def _line_to_plain(line: Outcome | Proposal) -> dict[str, Any]:
    """A line without what only lineages have, unless it has some: other studies are written as they always were."""
    ancestors = [recipe.to_dict() for recipe in line.ancestors]
    plain = {**to_plain(line), "recipe": line.recipe.to_dict(), "ancestors": ancestors}
    return {name: value for name, value in plain.items() if WITHOUT_LINEAGES.get(name, ...) != value}


def _read_recipes(data: Mapping[str, Any], where: str, read_recipe: ReadRecipe) -> dict[str, Any]:
    ancestors = data.get("ancestors", ())
    if not isinstance(ancestors, (list, tuple)):
        raise InputError(f"expected a list, found {brief_repr(ancestors)}", where=f"{where}.ancestors")
    return {
        "recipe": read_recipe(data.get("recipe"), f"{where}.recipe"),
        "ancestors": tuple(read_recipe(recipe, f"{where}.ancestors") for recipe in ancestors),
    }
