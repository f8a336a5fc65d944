"""A model of a study as files: which one, where it lies, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoprune import files
from autoprune.engine.surgery import artifact
from autoprune.errors import InputError
from autoprune.export import formats
from autoprune.schema import to_plain
from autoprune.study import choosing, finalists
from autoprune.study.folder import Study, load_study
from autoprune.study.outcome import DENSE, Outcome
from autoprune.tasks import Task, load_task


def export(
    folder: str | Path,
    to: str | Path,
    *,
    trial: int | None = None,
    task: Task | None = None,
    also: Collection[str] = (),
    hub_layout: bool = False,
    scored: bool = True,
) -> list[Path]:
    """Write one model of a study in every format.

    Args:
        folder: of the study.
        to: a folder that does not exist, or is empty.
        trial: its number; None = the knee of the front, trained again if the study has finalists.
        task: of a study that was begun with one.
        also: of `int8` and `openvino`: formats that are written on demand.
        hub_layout: whether the files lie as the Hugging Face Hub wants them.
        scored: whether each file is scored on the validation split.

    Returns:
        The files; see `formats.export`.

    Raises:
        InputError: the folder holds no study, the trial's model was not kept, or as for `formats.export`.
        ExportError: as for `formats.export`.
    """
    study = load_study(folder)
    outcome = choosing.choose(study, {}) if trial is None else _outcome_of(study, trial)
    demands = Demands(also=tuple(also), for_hub=hub_layout, scored=scored)
    opened = lambda: load_task(study.config["task"]) if task is None else task  # noqa: E731 - opened when it is needed
    return export_outcome(study, outcome, Path(to), opened, demands)


def verify(folder: str | Path, *, task: Task | None = None) -> dict[str, float]:
    """The metric of every file of an exported folder on the validation split; see `formats.verify`.

    Args:
        task: of a study that was begun with one.
    """
    if task is not None:
        return formats.verify(folder, task)
    out = Path(folder).absolute()
    with formats.task_of(out) as opened:
        return formats.verify(out, opened)


@dataclass(frozen=True, kw_only=True)
class Demands:
    """How a model is handed over, see `formats.export`."""

    also: tuple[str, ...] = ()
    for_hub: bool = False
    scored: bool = True


def export_outcome(
    study: Study, outcome: Outcome, to: Path, open_task: Callable[[], Task], demands: Demands
) -> list[Path]:
    """Write the model of an outcome; the task is opened once it is known that the model and the folder are there."""
    source = stored_model(study, outcome)
    trained_again = [row for row in finalists.rows(study) if row["trial"] == outcome.member or row["method"] == DENSE]
    formats.require_packages(demands.also)
    files.check_new_folder(to)
    task = open_task()
    info = {
        "study": str(study.folder.path),
        "task": study.config["task"],
        "pixels": task.input_facts(),
        "metric": to_plain(study.metric),
        "dense": study.config.get("dense"),
        "groups": study.config.get("groups"),
        "timed": _latency_setup(study, outcome),
        "outcome": json.loads(outcome.to_json(study.metric)),
        "finalists": trained_again if outcome.member is not None else [],
    }
    return formats.export(source, task.build, task.example(), to, info=info, task=task, **vars(demands))


def load_model(study: Study, trial: int | Outcome, task: Task) -> nn.Module:
    """The pruned model of a trial, in eval mode on the CPU; of one that was trained again, as it is since then.

    Raises:
        InputError: its model was not kept, or there is no such trial.
        ArtifactError: the task's network is not the one that was pruned.
    """
    outcome = trial if isinstance(trial, Outcome) else _outcome_of(study, trial)
    return artifact.load(stored_model(study, outcome), model=task.build)


def stored_model(study: Study, outcome: Outcome) -> Path:
    """The artefact of an outcome; raises `InputError` if it was not kept."""
    if outcome.member is not None:
        found = finalists.by_member(study.finalists, study.metric)
        return study.folder.final_models / str(next(one.best.id for one in found if one.member == outcome.member))
    folder = study.folder.models / str(outcome.id)
    if not folder.is_dir():
        kept = sorted(int(path.name) for path in study.folder.models.glob("*") if path.name.isdecimal())
        allowed = f"trials that were on the front when they ended: {', '.join(map(str, kept))}"
        raise InputError(
            f"the model of trial {outcome.id} was not kept", where=str(study.folder.models), allowed=allowed
        )
    return folder


def _outcome_of(study: Study, trial: int) -> Outcome:
    found = choosing.best_finalists(study).get(trial) or next((one for one in study.outcomes if one.id == trial), None)
    if found is None:
        raise InputError(f"there is no ended trial {trial}", where=str(study.folder.path))
    return found


def _latency_setup(study: Study, outcome: Outcome) -> dict[str, Any] | None:
    """Where and how the latency was measured, if it was."""
    if outcome.latency_ms is None:
        return None
    timing = study.timings.get(outcome.id if outcome.member is None else outcome.member)
    if timing is not None and timing.how:
        return {"how": timing.how}
    latency, device = study.config.get("latency") or {}, (study.config.get("runtime") or {}).get("device")
    return {"how": f"{latency.get('runtime', 'eager')}, batch {latency.get('batch')}, {device}"}
