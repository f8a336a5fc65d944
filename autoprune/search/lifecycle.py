"""The life of a study: it is started, resumed and finished. The package's three functions come here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoprune import methods
from autoprune.errors import InputError, SearchInterrupted
from autoprune.search.options import BudgetOptions, FinalistsOptions
from autoprune.search.overrides import warm_started, with_budget, with_finalists, with_sampler, with_trackers
from autoprune.search.placement import Placement
from autoprune.search.prepare import Prepared, prepare
from autoprune.search.published_progress import published
from autoprune.search.running.dispatcher import Dispatcher, last_time
from autoprune.search.running.executor import Executor
from autoprune.search.running.final_retraining import FinalRetraining, continued_clock, with_longer_timeout
from autoprune.search.running.front_timing import time_front
from autoprune.search.running.limits import Limits
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.study_lock import lock
from autoprune.search.study_metric import with_scale
from autoprune.search.study_yaml import check_new_folder, check_same_model, create_folder, stored_config, stored_runtime
from autoprune.search.tracking.registry import build_trackers
from autoprune.search.trials_per_gpu import shared_out
from autoprune.study.config import Budget
from autoprune.study.finalists import MissingTraining, shorter_than_searched, to_train
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.progress import View
from autoprune.study.space_file import load_space
from autoprune.study.tracker import Tracker
from autoprune.tasks import Task

#: What takes longer is said: a network without weights of its own is trained first.
SILENT_SECONDS = 5.0
LOADING = "loading data and model, and measuring the dense model"


def start_study(
    space: str | Path | Mapping[str, Any],
    folder: StudyFolder,
    *,
    budget: BudgetOptions,
    placement: Placement,
    overrides: Sequence[str] = (),
    sampler: str | None = None,
    warm_start: str | Path | None = None,
    trackers: Sequence[str] = (),
    view: View | None = None,
    task: Task | None = None,
) -> Study:
    """Search a space in a new folder until the budget is used up; see `autoprune.search.search`."""
    check_new_folder(folder.path)
    spec = None if task is None else task.spec
    config = load_space(space, overrides=overrides, task=spec, check_method=methods.build, find_method=methods.find)
    config = with_trackers(with_sampler(with_budget(config, budget), sampler), trackers)
    told = build_trackers(config.trackers)
    earlier = None if warm_start is None else load_study(warm_start)
    with placement.executor(config.resources) as executor:
        with _said_if_slow(view):
            prepared = warm_started(prepare(config, folder, placement, task), earlier)
            executor.wait_until_ready()
            prepared = shared_out(executor, prepared)
            dense = prepared.shared.dense_metric()
        prepared = replace(prepared, config=with_scale(prepared.config, dense))
        create_folder(folder, prepared, dense)
        with lock(folder), published(load_study(folder.path), view, _with_journal(told), prepared.remarks) as views:
            _search_and_retrain(executor, prepared, folder, view=views)
    return load_study(folder.path)


def resume_study(
    folder: StudyFolder,
    *,
    budget: BudgetOptions,
    placement: Placement,
    trackers: Sequence[str] = (),
    view: View | None = None,
    task: Task | None = None,
) -> Study:
    """Go on with a study; see `autoprune.search.resume`."""
    load_study(folder.path)
    with ExitStack() as stack:
        stack.enter_context(lock(folder))
        study = load_study(folder.path)
        config = with_trackers(with_budget(stored_config(study), budget), trackers)
        views = stack.enter_context(published(study, view, _with_journal(build_trackers(config.trackers))))
        executor = stack.enter_context(placement.executor(config.resources))
        prepared = prepare(config, folder, placement, task, recorded=stored_runtime(study))
        check_same_model(study, prepared.shared)
        start = 0.0 if budget.minutes is None else last_time(study)
        _search_and_retrain(executor, prepared, folder, study=study, start=start, view=views)
    return load_study(folder.path)


def finish_study(
    folder: StudyFolder,
    *,
    wanted: FinalistsOptions,
    placement: Placement,
    trials: Sequence[int] = (),
    trackers: Sequence[str] = (),
    view: View | None = None,
    task: Task | None = None,
) -> Study:
    """Retrain what is missing of a study's finalists; see `autoprune.search.finish`."""
    load_study(folder.path)
    with ExitStack() as stack:
        stack.enter_context(lock(folder))
        study = load_study(folder.path)
        config = with_trackers(with_finalists(stored_config(study), wanted), trackers)
        entries = to_train(study, config.finalists, trials)
        if entries:
            views = stack.enter_context(published(study, view, build_trackers(config.trackers)))
            executor = stack.enter_context(placement.executor(config.resources))
            prepared = prepare(config, folder, placement, task, recorded=stored_runtime(study))
            if prepared.shared.task.test is None:
                raise InputError("the task has no test split", where="finish", allowed="a task with `test`")
            check_same_model(study, prepared.shared)
            clock, prepared = continued_clock(study), _handed_out(executor, prepared)
            _retrain_front(executor, prepared, study, entries, clock=clock, limits=Limits(), view=views)
    return load_study(folder.path)


@contextmanager
def _said_if_slow(view: View | None) -> Iterator[None]:
    """Within it the view is told what is going on, once it has heard nothing for some seconds."""
    timer = threading.Timer(SILENT_SECONDS, lambda: view and view.say(LOADING))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _with_journal(trackers: Mapping[str, Tracker]) -> dict[str, Tracker]:
    """The same and the journal, which every search has."""
    from autoprune.search.tracking.optuna_journal import OptunaJournal  # Optuna, as below

    return {"optuna_journal": OptunaJournal(), **trackers}


def _search_and_retrain(
    executor: Executor,
    prepared: Prepared,
    folder: StudyFolder,
    *,
    study: Study | None = None,
    start: float = 0.0,
    view: View,
) -> None:
    """Use up the budget; then train the finalists that the study keeps a share of its minutes for, if it keeps one.

    Args:
        study: what the folder holds already, None = nothing but its configuration.
        start: when the minutes begin, in seconds since the study began.
    """
    from autoprune.search.running.session import Session  # Optuna, 0.2 s that refusals and `finish` do without

    prepared, config = _handed_out(executor, prepared), prepared.config
    limits = Limits.of(config.budget, start=start, kept=config.finalists.share)
    refuse = prepared.feasibility.refusal
    session = Session(config, prepared.space, folder, limits=limits, study=study, view=view, refuse=refuse)
    _run_to_end(executor, session, prepared)
    view.say("the trials have ended; the models of the front are timed")
    try:
        time_front(executor, folder, config, prepared.open_evaluator)
    except KeyboardInterrupt:
        again = f"autoprune resume {folder.path}"
        what = f"stopped while the front was timed; all trials are kept; time it with `{again}`"
        raise SearchInterrupted(what) from None
    if config.finalists.share is not None:
        searched = load_study(folder.path)
        entries = to_train(searched, config.finalists)
        limits = Limits.of(Budget(minutes=config.budget.minutes), start=start)
        _retrain_front(executor, prepared, searched, entries, clock=session.clock, limits=limits, view=view)


def _handed_out(executor: Executor, prepared: Prepared) -> Prepared:
    """The same; what was loaded comes once to each node on which trials run."""
    return replace(prepared, open_evaluator=prepared.open_evaluator.handed_out(executor.once_per_node))


def _retrain_front(
    executor: Executor,
    prepared: Prepared,
    study: Study,
    entries: Sequence[MissingTraining],
    *,
    clock: StudyClock,
    limits: Limits,
    view: View,
) -> None:
    if warning := shorter_than_searched(study, entries):
        view.say(warning)
    config = with_longer_timeout(prepared.config, study, entries)
    retraining = FinalRetraining(config, study, entries, clock=clock, limits=limits, view=view)
    _run_to_end(executor, retraining, prepared, final=True)


def _run_to_end(executor: Executor, dispatcher: Dispatcher, prepared: Prepared, *, final: bool = False) -> None:
    """Run what the dispatcher has left; `final`: see `TaskEvaluator`."""
    if not dispatcher.finished_handing_out():
        executor.run(dispatcher, replace(prepared.open_evaluator, final=final))
    dispatcher.close()
