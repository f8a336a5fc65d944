"""The search as an Optuna study: what optuna-dashboard opens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import fakes
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autoprune.search.published_progress import published
from autoprune.search.running.session import Session
from autoprune.search.tracking.optuna_journal import OptunaJournal
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.outcome import Outcome


def journal_of(study: Study) -> optuna.Study:
    """As any program opens it that knows Optuna."""
    storage = JournalStorage(JournalFileBackend(str(study.folder.optuna_journal)))
    return optuna.load_study(study_name=study.folder.path.name, storage=storage)


def search(path: Path, config: Any, *, trouble: dict[int, str] | None = None, **limits: Any) -> Study:
    """Run a search with fakes as `lifecycle` does."""
    fakes.open_session(path, config)
    with published(load_study(path), None, {"optuna_journal": OptunaJournal()}) as view:
        session = fakes.open_session(path, config, view=view, **limits)
        fakes.run_here(session, trouble=trouble or {}, rungs=(0.0, 0.5, 1.0))
        session.close()
    return load_study(path)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def by_number(study: Study) -> dict[int, optuna.trial.FrozenTrial]:
    return {trial.user_attrs["trial"]: trial for trial in journal_of(study).trials}


def test_every_trial_has_its_state_its_values_and_its_parameters(tmp_path: Path) -> None:
    config = fakes.study_config(trials=17, rungs=(0.0, 0.5, 1.0), keep=0.5)
    study = search(tmp_path / "mine", config, trouble={4: "raise"})
    found, trials = journal_of(study), by_number(study)
    states = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}

    assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert found.metric_names == ["accuracy", "flops"]
    assert [trial.user_attrs["trial"] for trial in found.trials] == [outcome.id for outcome in study.outcomes]
    assert {outcome.status for outcome in study.outcomes} == set(states)
    for outcome, proposal in zip(sorted(study.outcomes, key=lambda one: one.id), study.proposals, strict=True):
        trial = trials[outcome.id]
        assert trial.state == states[outcome.status]
        assert trial.values == ([outcome.metric, outcome.flops_ratio] if outcome.completed else None)
        assert trial.params == dict(proposal.params)
        assert set(trial.distributions) == set(proposal.distributions)
        assert trial.intermediate_values == {rung.images: rung.metric for rung in outcome.rungs}
        assert trial.user_attrs.get("error") == outcome.error
    best = {trial.user_attrs["trial"] for trial in found.best_trials}
    assert {member.id for member in study.front} <= best


def test_it_is_there_while_the_search_runs(tmp_path: Path) -> None:
    config, seen = fakes.study_config(trials=7), []
    fakes.open_session(tmp_path, config)
    with published(load_study(tmp_path), None, {"optuna_journal": OptunaJournal()}) as view:
        session = fakes.open_session(tmp_path, config, view=view)

        def look() -> None:
            session.refresh(force=True)
            if len(session.outcomes) == 3:
                wait_for(session.folder.optuna_journal.exists)
                wait_for(lambda: len(journal_of(load_study(tmp_path)).trials) == 3)
                seen.append([trial.user_attrs["trial"] for trial in journal_of(load_study(tmp_path)).trials])

        fakes.run_here(session, after=look)
        session.close()

    assert seen == [[0, 1, 2]]
    assert len(journal_of(load_study(tmp_path)).trials) == 7


def test_whoever_goes_on_with_the_study_makes_it_anew_from_the_logs(tmp_path: Path) -> None:
    config = fakes.study_config(trials=9)
    before = search(tmp_path, config, limits=fakes.Limits(trials=5))
    before.folder.optuna_journal.write_text("what a crash has left")
    after = search(tmp_path, config)

    assert len(before.outcomes) == 5
    assert sorted(by_number(after)) == list(range(9))
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_metric_to_minimise_stands_in_its_own_unit(tmp_path: Path) -> None:
    metric = {"name": "rmse", "direction": "minimize", "best": 0.0, "worst": None, "scale": 2.5}
    config = replace(fakes.study_config(trials=4), metric=metric, objectives=("rmse", "params"), controls=False)
    folder = StudyFolder(tmp_path)
    session: Session = fakes.open_session(tmp_path, config)
    with published(load_study(tmp_path), None, {"optuna_journal": OptunaJournal()}) as view:
        session.view = view
        while (segment := session.next()) is not None:
            session.end_segment(fakes.completed(segment.proposal, 1.75, params_ratio=0.5))
        session.refresh(force=True)
    found = journal_of(load_study(folder.path))

    assert [direction.name for direction in found.directions] == ["MINIMIZE", "MINIMIZE"]
    assert found.metric_names == ["rmse", "params"]
    assert [trial.values for trial in found.trials] == [[1.75, 0.5]] * 4


def test_a_trial_that_something_else_cut_short_says_nothing_of_its_parameters(tmp_path: Path) -> None:
    session = fakes.open_session(tmp_path, fakes.study_config(trials=2))
    with published(load_study(tmp_path), None, {"optuna_journal": OptunaJournal()}) as view:
        session.view = view
        for error in ("its time was over", "constraint: params 0.7 > 0.5"):
            proposal = session.next().proposal
            ended = Outcome(id=proposal.id, recipe=proposal.recipe, status="stopped", error=error)
            session.end_segment(replace(ended, started=3.0, finished=7.0))
        session.refresh(force=True)
    trials = journal_of(load_study(tmp_path)).trials

    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.PRUNED]
    assert all(trial.duration is not None and trial.duration.total_seconds() == 4.0 for trial in trials)
    assert all(abs((trial.datetime_complete - datetime.now()).total_seconds()) < 3600 for trial in trials)  # noqa: DTZ005


def test_a_journal_that_cannot_be_written_ends_nothing_and_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "optuna_journal.log").mkdir()
    (tmp_path / "optuna_journal.log" / "file").touch()
    config = fakes.study_config(trials=5)
    with pytest.warns(RuntimeWarning, match="tracker optuna_journal: hears no more: .*Error") as said:
        study = search(tmp_path, config)

    assert len(study.outcomes) == 5
    assert len(said) == 1
