"""Searches in which trials pause: which go on, what the sampler is told, and a kill on the way."""

import shutil
from dataclasses import replace

import fakes
import pytest

from autoprune.errors import SearchInterrupted
from autoprune.search.running.early_stopping import SuccessiveHalving
from autoprune.search.running.paused_trials import PausedTrials
from autoprune.study.folder import load_study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Rung
from autoprune.study.pareto import front
from autoprune.study.tradeoff import Tradeoff

RUNGS = (0.0, 0.25, 1.0)


def run(session, **options):
    fakes.run_here(session, rungs=(0.0, 0.25), **options)


def test_a_search_stops_most_recipes_and_completes_the_best(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=38, rungs=RUNGS, keep=0.34))
    run(session)
    session.close()
    study = load_study(tmp_path)
    searched = [outcome for outcome in study.outcomes if not outcome.control]
    by_length = [sum(len(o.rungs) >= n for o in searched) for n in (1, 2)]
    completed = [outcome for outcome in searched if outcome.completed]

    assert len(study.outcomes) == 38
    assert {outcome.status for outcome in searched} == {"completed", "stopped"}
    assert by_length[0] == 36
    assert 36 // 3 <= by_length[1] <= 18
    assert by_length[1] // 3 <= len(completed) <= by_length[1] // 2 + 1
    assert all(outcome.error is None and outcome.accuracy is None for outcome in searched if not outcome.completed)
    assert all(member.completed for member in front(study.outcomes))
    assert list(session.folder.states.iterdir()) == []
    assert session.progress().paused == 0


def test_a_stopped_recipe_is_never_told_as_complete(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=20, rungs=RUNGS, keep=0.34))
    run(session)
    session.close()
    states = [trial.state.name for trial in session.proposer.optuna_study.get_trials()]
    known = [outcome for outcome in session.outcomes if outcome.completed and not outcome.control]

    assert states.count("COMPLETE") == len(known)
    assert states.count("PRUNED") == sum(outcome.status == "stopped" for outcome in session.outcomes)


def test_a_search_that_was_interrupted_goes_on_with_those_that_wait(tmp_path):
    whole = fakes.open_session(tmp_path / "whole", fakes.study_config(trials=30, rungs=RUNGS, keep=0.34))
    run(whole)
    whole.close()

    config = fakes.study_config(trials=30, rungs=RUNGS, keep=0.34)
    for segments in (7, 11, 5, 1000):
        session = fakes.open_session(tmp_path / "parts", config)
        fakes.stop_after(session, segments)
        run(session)
        if session.interrupted:
            with pytest.raises(SearchInterrupted):
                session.close()
        else:
            session.close()
    one, two = (load_study(tmp_path / name) for name in ("whole", "parts"))

    assert [p.recipe for p in one.proposals] == [p.recipe for p in two.proposals]
    assert {o.id: (o.status, o.accuracy, len(o.rungs)) for o in one.outcomes} == {
        o.id: (o.status, o.accuracy, len(o.rungs)) for o in two.outcomes
    }


def test_what_waits_without_its_files_begins_anew(tmp_path):
    config = fakes.study_config(trials=12, rungs=RUNGS, keep=0.34)
    session = fakes.open_session(tmp_path, config)
    fakes.stop_after(session, 8)
    run(session)
    waited = set(session.paused.waiting)
    assert waited
    shutil.rmtree(session.folder.states)
    session = fakes.open_session(tmp_path, config)
    run(session)
    session.close()

    assert session.proposer.waiting == 0
    assert {outcome.id for outcome in session.outcomes} == set(range(12))


def test_of_a_metric_to_minimise_the_smallest_goes_on():
    """Of equal costs 0.5; the heights of 2, 0.5 and 7 are 1/3, 2/3 and 1/8."""
    rmse = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, scale=1.0)
    paused = PausedTrials(SuccessiveHalving([0.25], keep=0.34), Tradeoff(metric=rmse))
    for number, metric in enumerate((2.0, 0.5, 7.0), 3):
        rung = Rung(share=0.25, images=250, metric=metric, seconds=1.0)
        paused.pause(replace(fakes.measured(number), rungs=(rung,), status="paused", metric=None))

    assert paused.halving.rungs[0].points[4] == (0.5, -2 / 3)
    assert paused.halving.find_promotable() == 4
