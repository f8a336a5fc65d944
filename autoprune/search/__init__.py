"""Search: which recipes to run and where. `search` starts a study, `resume` goes on, `finish` tests its front."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.study.config import Budget, StudyConfig
from autoprune.study.finalists import to_train
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.space_file import load_space
from autoprune.trial.cache import FolderStore

# Workers import this package too: what only the driver needs (Optuna, 0.2 s) is imported where it is used.
if TYPE_CHECKING:
    from autoprune.search.on_ray.cluster import Cluster
    from autoprune.search.prepare import Prepared
    from autoprune.search.running.dispatcher import Runs
    from autoprune.search.running.limits import Limits
    from autoprune.search.running.progress import View
    from autoprune.search.running.session import Session


def search(
    space: str | Path,
    *,
    out: str | Path,
    trials: int | None = None,
    minutes: float | None = None,
    gpu_hours: float | None = None,
    images: int | None = None,
    until: str | None = None,
    address: str | None = None,
    overrides: Sequence[str] = (),
    in_process: bool = False,
    view: View | None = None,
    sampler: str | None = None,
    warm_start: str | Path | None = None,
) -> Study:
    """Search a space until the budget is used up.

    Args:
        space: a ready space or a space file.
        out: study folder, new or empty.
        trials: how many recipes, controls included.
        minutes: how long.
        gpu_hours: of all trials together.
        images: training images of all trials together. Whichever of the four comes first; those that are given replace
            all four of the space file.
        until: `hypervolume` = end as well when the front has stopped to grow.
        address: of a running Ray cluster; None starts Ray on this machine.
        overrides: `space.target.flops=0.5`.
        in_process: one recipe after the other in this process, without Ray.
        view: is told of the progress.
        sampler: who proposes recipes (`space.Sampler`); given, it replaces the one of the space file.
        warm_start: folder of an earlier study, whose front is tried first, as far as this space can express it.

    Returns:
        The study as the folder holds it.

    Raises:
        InputError: something handed in is wrong; nothing was written.
        StudyError: nothing can be pruned, the earlier study has no front, or no trial completed.
        SearchInterrupted: Ctrl-C or SIGTERM; what had finished is kept.
    """
    from autoprune import methods
    from autoprune.search import prepare as steps
    from autoprune.search.overrides import warm_started, with_budget, with_sampler

    budget = {"trials": trials, "minutes": minutes, "gpu_hours": gpu_hours, "images": images, "until": until}
    folder = StudyFolder(Path(out))
    steps.check_new_folder(folder.path)
    config = load_space(space, overrides=overrides, check_method=methods.build, find_method=methods.find)
    config = with_sampler(with_budget(config, budget), sampler)
    earlier = None if warm_start is None else load_study(warm_start)
    with ExitStack() as stack:
        cluster = None if in_process else stack.enter_context(_cluster(config, address))
        prepared = warm_started(steps.prepare(config), earlier)
        if cluster is not None:
            cluster.ready()
        _begin(folder, prepared, cluster, view)
    return load_study(folder.path)


def _begin(folder: StudyFolder, prepared: Prepared, cluster: Cluster | None, view: View | None) -> None:
    """Make the study folder, and run the whole budget in it."""
    from autoprune.search import prepare as steps
    from autoprune.search.running.limits import Limits
    from autoprune.search.running.session import Session
    from autoprune.search.study_lock import lock

    config = prepared.config
    steps.create_folder(folder, prepared)
    with lock(folder):
        limits = Limits.of(config.budget, kept=config.finalists.share)
        session = Session(config, prepared.space, folder, limits=limits, view=view)
        _run(session, prepared, cluster)
        _finals(session, prepared, cluster, Limits.of(Budget(minutes=config.budget.minutes)))


def resume(
    folder: str | Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    gpu_hours: float | None = None,
    images: int | None = None,
    until: str | None = None,
    address: str | None = None,
    in_process: bool = False,
    view: View | None = None,
) -> Study:
    """Go on with a study that was cut short, or that has ended: recipes without an outcome run again, then new ones.

    Args:
        folder: of the study.
        trials: of the whole study, those that ended included.
        minutes: from now on.
        gpu_hours, images: of the whole study. With none of the four, what is left of the study's budget.
        until: as for `search`.
        address: as for `search`, and so are the next two.
        in_process: without Ray.
        view: is told of the progress.

    Returns:
        The study as the folder holds it then.

    Raises:
        InputError: the folder holds no study, another search runs in it, or its model or data have changed.
        StudyError, SearchInterrupted: as for `search`.
    """
    from autoprune.search import prepare as steps
    from autoprune.search.overrides import with_budget
    from autoprune.search.running.dispatcher import last_time
    from autoprune.search.running.limits import Limits
    from autoprune.search.running.session import Session
    from autoprune.search.study_lock import lock

    budget = {"trials": trials, "minutes": minutes, "gpu_hours": gpu_hours, "images": images, "until": until}
    paths = StudyFolder(Path(folder))
    load_study(folder)
    with ExitStack() as stack:
        stack.enter_context(lock(paths))
        study = load_study(folder)
        config = with_budget(steps.stored_config(study), budget)
        cluster = None if in_process else stack.enter_context(_cluster(config, address))
        prepared = steps.prepare(config)
        steps.check_same_model(study, prepared)
        start = 0.0 if minutes is None else last_time(study)
        limits = Limits.of(config.budget, start=start, kept=config.finalists.share)
        session = Session(config, prepared.space, paths, limits=limits, study=study, view=view)
        _run(session, prepared, cluster)
        _finals(session, prepared, cluster, Limits.of(Budget(minutes=config.budget.minutes), start=start))
    return load_study(folder)


def finish(
    folder: str | Path,
    *,
    seeds: int | None = None,
    images: int | None = None,
    most: int | None = None,
    address: str | None = None,
    in_process: bool = False,
    view: View | None = None,
) -> Study:
    """Train members of a study's front again, at full length and with several seeds, and read the test split.

    Beside them the dense control is trained as long and as often. Each recipe runs as a whole once more, from the dense
    weights on; what finished earlier is not repeated.

    Args:
        folder: of the study.
        seeds: trainings of each member; with this and the next two, None = as the study's `finalists` say.
        images: training images of each.
        most: members, spread along the front.
        address: as for `search`, and so are the next two.
        in_process: without Ray.
        view: is told of the progress.

    Returns:
        The study as the folder holds it then, with `finalists`.

    Raises:
        InputError: the folder holds no study, its front is empty, it has finalists of another length, a search runs in
            it, or its model or data have changed.
        StudyError: none of the trainings completed.
        SearchInterrupted: as for `search`.
    """
    from autoprune.search import prepare as steps
    from autoprune.search.overrides import with_finalists
    from autoprune.search.running.final_runs import Finals, clock_of, with_time
    from autoprune.search.study_lock import lock

    paths = StudyFolder(Path(folder))
    load_study(folder)
    with ExitStack() as stack:
        stack.enter_context(lock(paths))
        study = load_study(folder)
        config = with_finalists(steps.stored_config(study), {"seeds": seeds, "images": images, "most": most})
        entries = to_train(study, config.finalists)
        if entries:
            cluster = None if in_process else stack.enter_context(_cluster(config, address))
            prepared = steps.prepare(config)
            steps.check_same_model(study, prepared)
            finals = Finals(with_time(config, study, entries), study, entries, clock=clock_of(study), view=view)
            _run(finals, prepared, cluster, final=True)
    return load_study(folder)


def _finals(session: Session, prepared: Prepared, cluster: Cluster | None, limits: Limits) -> None:
    """The finals at the end of a search, if its space file asks for them: as many as there is time for."""
    from autoprune.search.running.final_runs import Finals, with_time

    config = session.config
    if config.finalists.share is None:
        return
    study = load_study(session.folder.path)
    entries = to_train(study, config.finalists)
    config = with_time(config, study, entries)
    finals = Finals(config, study, entries, clock=session.clock, limits=limits, view=session.view)
    _run(finals, prepared, cluster, final=True)


def _cluster(config: StudyConfig, address: str | None) -> Cluster:
    from autoprune.search.on_ray.cluster import Cluster

    return Cluster(config.resources, address)


def _run(session: Runs, prepared: Prepared, cluster: Cluster | None, *, final: bool = False) -> None:
    """Run what is left; without a cluster in this process, one after the other. `final`: see `BenchEvaluator`."""
    if session.finished_handing_out():
        pass
    elif cluster is not None:
        cluster.run(session, replace(prepared.open_evaluator, final=final))
    else:
        import torch

        from autoprune.search.running import in_process
        from autoprune.search.running.bench_evaluator import BenchEvaluator

        resources = session.config.resources
        torch.set_num_threads(resources.cpus_per_trial)
        bench = prepared.bench
        bench.store = FolderStore(session.folder.shared) if bench.share else None
        constraints, latency = session.config.constraints, session.config.timed
        evaluator = BenchEvaluator(bench, session.clock, final=final, constraints=constraints, latency=latency)
        in_process.run(session, evaluator, trial_timeout=60 * resources.trial_timeout_minutes)
    session.close()


__all__ = ["finish", "resume", "search"]
