"""Outcome: what a recipe gave. Study: the folder that holds all outcomes. JSON lines, appended, never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoprune.errors import InputError
from autoprune.pareto import OBJECTIVES
from autoprune.reading import choices, read, to_plain
from autoprune.recipe import Recipe

#: How the error of an outcome begins that a constraint of the study has ended.
BROKEN = "constraint: "

STATUSES = ("completed", "stopped", "failed", "paused")


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Validation accuracy on the way.

    Fields:
        share: which of the recipe's `rungs` it is; 0 = right after the cut, 1 = the end.
        images: training images seen by then, sparsify stage included.
        seconds: spent by then; what a paused trial waited does not count.
    """

    share: float
    images: int
    accuracy: float
    seconds: float

    @property
    def comparable(self) -> bool:
        """Whether all that were measured at this share have seen as many images.

        Right after the cut some have seen none and some their whole sparsify stage.
        """
        return self.share > 0 or self.images == 0


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """When one worker ran a trial, or a part of it between two pauses; in seconds since the study began."""

    worker: str
    started: float
    finished: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a recipe gave; one JSON line of `outcomes.jsonl`.

    Fields:
        id: the proposal's number in the study; trials run without a study have 0.
        status: `completed`, `stopped` (ended early by the search, or right after the cut by a constraint, which
            `error` names) or `failed` (with `error`); in `paused.jsonl`
            also `paused`: it waits at its last rung, and may go on.
        accuracy: on the validation split, in [0, 1]; None unless completed.
        flops_ratio, params_ratio, activations_ratio: relative to the dense model; None if the cut was never reached.
        latency_ratio: the same of the measured latency, and latency_ms the milliseconds of a forward pass (see
            `latency`); None unless the study asks for latency.
        widths: kept units per group id of the graph.
        started, finished: seconds since the study began.
        seconds: wall time per stage of the trial.
        worker: who ran it last.
        legs: who ran it when; several if it paused.
        notes: what the method had to tell about its cuts, such as `gap_violated`.
        control: this recipe was not proposed by the sampler but is there to compare with (`dense`, `random`).
        member: of a finalist, the number of the trial whose recipe it trains again (-1: a dense control that the search
            had none of); None for trials of a search.
        test_accuracy: of a finalist, on the test split, in [0, 1]; no trial of a search looks at that.
    """

    id: int
    recipe: Recipe
    status: str = field(metadata=choices(*STATUSES))
    accuracy: float | None = None
    flops_ratio: float | None = None
    params_ratio: float | None = None
    activations_ratio: float | None = None
    latency_ratio: float | None = None
    latency_ms: float | None = None
    rungs: tuple[Rung, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    control: bool = False
    worker: str = ""
    legs: tuple[Stretch, ...] = ()
    error: str | None = None
    member: int | None = None
    test_accuracy: float | None = None

    @property
    def completed(self) -> bool:
        """Whether the outcome may enter a front: it ran to the end of its recipe."""
        return self.status == "completed"

    @property
    def infeasible(self) -> bool:
        """Whether a constraint of the study has ended it."""
        return self.status == "stopped" and (self.error or "").startswith(BROKEN)

    @property
    def costs(self) -> dict[str, float | None]:
        """The known costs: relative to the dense model by the name of the objective, and `latency_ms`."""
        ratios = {name: getattr(self, f"{name}_ratio") for name in ("flops", "params", "activations", "latency")}
        return {**ratios, "latency_ms": self.latency_ms}

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Its legs; one from start to end where none were noted."""
        return self.legs or (Stretch(worker=self.worker, started=self.started, finished=self.finished),)

    @property
    def duration(self) -> float:
        """Seconds that workers spent on it; what it waited does not count."""
        return sum(stretch.finished - stretch.started for stretch in self.stretches)

    def to_json(self) -> str:
        """One line of JSON, without the newline; NaN and infinity are refused."""
        return json.dumps({**to_plain(self), "recipe": self.recipe.to_dict()}, allow_nan=False)

    @classmethod
    def from_json(cls, line: str, where: str = "outcome") -> Outcome:
        """The inverse of `to_json`; raises `InputError` on anything else."""
        data = parse_line(line, where)
        return read(cls, {**data, "recipe": Recipe.from_dict(data.get("recipe"), f"{where}.recipe")}, where)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A recipe that was handed out; one JSON line of `proposals.jsonl`.

    `params` and `distributions` are the sampler's own words for the recipe, so that a resumed search can replay it.
    """

    id: int
    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, Any] = field(default_factory=dict)
    proposed: float = 0.0
    control: bool = False

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        return json.dumps({**to_plain(self), "recipe": self.recipe.to_dict()}, allow_nan=False)

    @classmethod
    def from_json(cls, line: str, where: str = "proposal") -> Proposal:
        """The inverse of `to_json`; raises `InputError` on anything else."""
        data = parse_line(line, where)
        return read(cls, {**data, "recipe": Recipe.from_dict(data.get("recipe"), f"{where}.recipe")}, where)


@dataclass(frozen=True)
class StudyFolder:
    """The only place that knows the file names of a study."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved space file, with everything a resumed search needs."""
        return self.path / "study.yaml"

    @property
    def proposals(self) -> Path:
        """Recipes handed out, one JSON object a line."""
        return self.path / "proposals.jsonl"

    @property
    def outcomes(self) -> Path:
        """Recipes ended, one JSON object a line."""
        return self.path / "outcomes.jsonl"

    @property
    def paused(self) -> Path:
        """Recipes that wait at a rung, or waited, one JSON object a line and rung."""
        return self.path / "paused.jsonl"

    @property
    def states(self) -> Path:
        """What paused recipes go on from, one folder each."""
        return self.path / "states"

    @property
    def shared(self) -> Path:
        """What several trials need, see `store`; may be removed at any time."""
        return self.path / "shared"

    @property
    def models(self) -> Path:
        """One artefact folder per completed trial that was on the front when it ended."""
        return self.path / "models"

    @property
    def finalists(self) -> Path:
        """Members of the front that were trained again, one JSON object a line: see `finalists.py`."""
        return self.path / "finalists.jsonl"

    @property
    def final_models(self) -> Path:
        """One artefact folder per member, by the number of its finalist with the best validation accuracy."""
        return self.path / "finalists"

    @property
    def pareto(self) -> Path:
        """The front as a table."""
        return self.path / "pareto.csv"

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / "report.html"


@dataclass(frozen=True)
class Study:
    """A study folder as it was when it was read: its configuration and its logs, in the order they were written."""

    folder: StudyFolder
    config: Mapping[str, Any]
    proposals: tuple[Proposal, ...]
    outcomes: tuple[Outcome, ...]
    paused: tuple[Outcome, ...] = ()
    finalists: tuple[Outcome, ...] = ()

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the study trades off: accuracy and the names of costs."""
        return tuple(self.config.get("objectives", OBJECTIVES))

    def unfinished(self) -> tuple[Proposal, ...]:
        """Proposals without an outcome: what a resumed search runs again."""
        ended = {outcome.id for outcome in self.outcomes}
        return tuple(proposal for proposal in self.proposals if proposal.id not in ended)


def append_line(path: Path, line: str) -> None:
    """Append one line and force it to the disk before returning; only the driver of a search calls this."""
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The complete lines of a log with their numbers from 1; a last line torn by a crash is left out."""
    if not path.exists():
        return
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        yield number, line.decode()


def repair_tail(path: Path) -> None:
    """Cut a torn last line off a log, so that the next `append_line` starts on a line of its own."""
    if path.exists():
        whole = path.read_bytes()
        keep = whole.rfind(b"\n") + 1
        if keep != len(whole):
            with path.open("r+b") as file:
                file.truncate(keep)


def parse_line(line: str, where: str) -> dict[str, Any]:
    """One JSON object; raises `InputError` when the line holds something else."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise InputError(f"expected an object, found {line[:40]!r}", where=where)
    return data


def load_study(folder: str | Path) -> Study:
    """Read a study folder.

    Raises:
        InputError: there is no study in the folder, or a line of a log is not what it should be.
    """
    import yaml  # the only reader of YAML here; `import autoprune.results` stays cheap for workers

    paths = StudyFolder(Path(folder))
    if not paths.config.is_file():
        raise InputError(
            f"no study in {str(folder)!r}", allowed="a folder written by `autoprune search`, with study.yaml inside"
        )
    config = yaml.safe_load(paths.config.read_text())
    proposals = tuple(Proposal.from_json(line, f"{paths.proposals}:{n}") for n, line in read_lines(paths.proposals))
    outcomes, paused, finalists = (
        tuple(Outcome.from_json(line, f"{log}:{n}") for n, line in read_lines(log))
        for log in (paths.outcomes, paths.paused, paths.finalists)
    )
    return Study(paths, config, proposals, outcomes, paused, finalists)
