"""Search: which recipes to run and where. `search` starts a study, `resume` goes on, `finish` tests its front,
`replay` runs one trial again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.errors import InputError
from autoprune.search.options import BudgetOptions, FinalistsOptions
from autoprune.search.placement import Placement
from autoprune.search.results import Results
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.mirror import study_at
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from autoprune.study.progress import View
    from autoprune.tasks import Task

# Workers import this package too, so what only the driver needs, such as Optuna (0.2 s), is imported by the functions.


def search(
    space: str | Path | Mapping[str, Any],
    *,
    out: str | Path,
    trials: int | None = None,
    minutes: float | None = None,
    gpu_hours: float | None = None,
    images: int | None = None,
    until: str | Mapping[str, float] | None = None,
    address: str | None = None,
    overrides: Sequence[str] = (),
    in_process: bool = False,
    view: View | None = None,
    sampler: str | None = None,
    warm_start: str | Path | None = None,
    trackers: Sequence[str] = (),
    task: Task | None = None,
) -> Results:
    """Search a space until the budget is used up.

    Args:
        space: a ready space, a space file, or what such a file holds.
        out: study folder, new or empty; or a URL of object storage, see `study.mirror`.
        trials, minutes: how many recipes, controls included; how long.
        gpu_hours, images: of all trials together. The search ends with the first of the four that is used up. Any that
            is given replaces all four of the space file.
        until: `hypervolume` = end as well when the front has stopped to grow; `{"within": 1}`: see `study.config.Goal`.
        address: of a running Ray cluster; None starts Ray on this machine.
        overrides: `space.target.flops=0.5`.
        in_process: one trial after the other in this process, without Ray.
        view, sampler: what is shown the progress; the name of a sampler, in place of the space file's.
        warm_start: folder of an earlier study, whose front is tried first, as far as this space can express it.
        trackers: names of trackers that hear of trials, besides those of the space.
        task: in place of the space's; nothing of it is in the folder: whoever goes on with the study gives it again.

    Returns:
        The study as the folder holds it.

    Raises:
        InputError: something handed in is wrong; nothing was written.
        StudyError: the earlier study has no front, or no trial completed.
        SearchInterrupted: Ctrl-C or SIGTERM; what had finished is kept.
    """
    from autoprune.search.lifecycle import start_study

    with study_at(out, new=True) as path:
        budget = BudgetOptions(trials=trials, minutes=minutes, gpu_hours=gpu_hours, images=images, until=until)
        study = start_study(
            space,
            StudyFolder(path),
            budget=budget,
            placement=Placement(address=address, in_process=in_process),
            overrides=overrides,
            sampler=sampler,
            warm_start=warm_start,
            trackers=trackers,
            view=view,
            task=task,
        )
    return Results(study, task)


def resume(
    folder: str | Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    gpu_hours: float | None = None,
    images: int | None = None,
    until: str | Mapping[str, float] | None = None,
    address: str | None = None,
    in_process: bool = False,
    view: View | None = None,
    trackers: Sequence[str] = (),
    task: Task | None = None,
) -> Results:
    """Go on with a study that was cut short, or that has ended: trials without an outcome run again, then new ones.

    Args:
        folder: of the study, or its URL.
        trials: of the whole study, earlier ones included.
        minutes: from now on.
        gpu_hours, images: of the whole study. If none of the four is given, what is left of the study's budget.
        until: as for `search`.
        address, in_process, view, trackers: as for `search`.
        task: of a study that was begun with one.

    Returns:
        The study as the folder holds it then.

    Raises:
        InputError: the folder holds no study, another search runs in it, or its model or data have changed.
        StudyError, SearchInterrupted: as for `search`.
    """
    from autoprune.search.lifecycle import resume_study

    budget = BudgetOptions(trials=trials, minutes=minutes, gpu_hours=gpu_hours, images=images, until=until)
    placement = Placement(address=address, in_process=in_process)
    with study_at(folder) as path:
        study = resume_study(
            StudyFolder(path), budget=budget, placement=placement, trackers=trackers, view=view, task=task
        )
    return Results(study, task)


def finish(
    folder: str | Path,
    *,
    seeds: int | None = None,
    images: int | None = None,
    most: int | None = None,
    trials: Sequence[int] = (),
    address: str | None = None,
    in_process: bool = False,
    view: View | None = None,
    trackers: Sequence[str] = (),
    task: Task | None = None,
) -> Results:
    """Train members of a study's front again, at full length and with several seeds, and read the test split.

    The dense control is trained as long and as often. Each recipe runs as a whole once more, from the dense weights on;
    trainings that finished earlier are not repeated.

    Args:
        folder: of the study.
        seeds: trainings of each member; here and in the next two, None = as the study's `finalists` say.
        images: training images of each.
        most: members, spread along the front.
        trials: numbers of trials to train, in place of members along the front; any that pruned and completed.
        address, in_process, view, trackers: as for `search`.
        task: of a study that was begun with one.

    Returns:
        The study as the folder holds it then, with `finalists`.

    Raises:
        InputError: the folder holds no study, its front is empty, a trial has not completed, it has finalists of
            another length, a search runs in it, or its model or data have changed.
        StudyError: none of the trainings completed.
        SearchInterrupted: as for `search`.
    """
    from autoprune.search.lifecycle import finish_study

    wanted = FinalistsOptions(seeds=seeds, images=images, most=most)
    placement = Placement(address=address, in_process=in_process)
    with study_at(folder) as path:
        study = finish_study(
            StudyFolder(path),
            wanted=wanted,
            placement=placement,
            trials=trials,
            trackers=trackers,
            view=view,
            task=task,
        )
    return Results(study, task)


def replay(folder: str | Path, trial: int, *, task: Task | None = None) -> Outcome:
    """Run one recorded trial of a study again, in this process.

    Args:
        folder: of the study.
        trial: its number.
        task: of a study that was begun with one.

    Returns:
        What it gives now; the study stays as it is.

    Raises:
        InputError: the folder holds no study, or there is no such ended trial.
    """
    from autoprune.search.recorded_trial import run_again
    from autoprune.tasks import load_task

    study = load_study(folder)
    before = next((outcome for outcome in study.outcomes if outcome.id == trial), None)
    if before is None:
        raise InputError(f"there is no ended trial {trial}", where=str(study.folder.path))
    return run_again(study, before, load_task(study.config["task"]) if task is None else task)


__all__ = ["finish", "replay", "resume", "search"]
