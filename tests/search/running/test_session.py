"""Session: budget, logs, models, progress, resume."""

import json
import time
from dataclasses import replace

import fakes
import pytest

from autoprune.errors import InputError, StudyError
from autoprune.search.running import dispatcher
from autoprune.search.running.limits import Limits
from autoprune.search.running.session import HOPELESS, Session
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.outcome import Outcome

#: Fakes fail for lack of memory in a second try as well.
TWICE = "MemoryError; with the batch in 2 passes: MemoryError"


def kept(session):
    return {int(path.name) for path in session.folder.models.iterdir()}


def test_a_search_hands_out_its_budget_and_logs_every_step(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=9))
    fakes.run_here(session)
    session.close()
    study = load_study(tmp_path)

    assert [proposal.id for proposal in study.proposals] == list(range(9))
    assert [outcome.id for outcome in study.outcomes] == list(range(9))
    assert [outcome.recipe for outcome in study.outcomes] == [proposal.recipe for proposal in study.proposals]
    assert study.unfinished() == ()


def test_models_of_the_front_and_of_the_controls_stay(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=25))
    fakes.run_here(session)
    front = {point.id for point in session.progress().front}

    assert kept(session) == front | {0, 1}
    assert len(front) < 20
    assert all((session.folder.models / str(n) / "model.json").read_bytes() == b"%d" % n for n in front)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [("raise", "ValueError: a bad"), ("memory", TWICE), ("nan", "the metric is nan")],
)
def test_a_recipe_that_fails_is_an_outcome_and_the_search_goes_on(tmp_path, trouble, error):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=6))
    fakes.run_here(session, trouble={3: trouble})
    outcomes = load_study(tmp_path).outcomes

    assert [outcome.status for outcome in outcomes] == ["completed"] * 3 + ["failed"] + ["completed"] * 2
    assert outcomes[3].error == error
    assert 3 not in kept(session)


def test_a_trial_that_pauses_in_smaller_passes_goes_on_in_them(tmp_path):
    config = fakes.study_config(trials=12, rungs=(0.0, 0.2, 0.5, 1.0), keep=0.9)
    session = fakes.open_session(tmp_path, config)
    fakes.run_here(session, rungs=(0.0, 0.2, 0.5, 1.0), trouble=dict.fromkeys(range(12), "tight"), ran=tmp_path / "ran")
    study = load_study(tmp_path)
    done = [outcome for outcome in study.outcomes if outcome.completed and len(outcome.legs) > 2]

    assert done
    assert all(outcome.recipe.training.accumulate == 2 for outcome in (*study.paused, *study.outcomes))
    assert all(proposal.recipe.training.accumulate == 1 for proposal in study.proposals)
    tries = [int(line.split()[0]) for line in (tmp_path / "ran").read_text().splitlines()]
    assert all(tries.count(outcome.id) == len(outcome.legs) for outcome in study.outcomes)
    assert all(len(outcome.legs) <= 1 + 4 for outcome in study.outcomes)  # only the first segment is tried twice


def test_a_search_in_which_everything_fails_is_given_up_and_says_why(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=50))
    fakes.run_here(session, trouble=dict.fromkeys(range(2, 50), "raise") | {0: "memory", 1: "memory"})

    assert len(session.outcomes) == HOPELESS
    with pytest.raises(
        StudyError, match=f"none of {HOPELESS} trials completed; {HOPELESS - 2} of them ended with: ValueErr"
    ):
        session.close()


def test_a_search_that_had_no_time_to_prune_says_so(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=1))
    fakes.run_here(session)

    with pytest.raises(StudyError, match="the budget was too small"):
        session.close()


def test_resume_runs_unfinished_recipes_again_and_nothing_else(tmp_path):
    ran, config = tmp_path / "ran", fakes.study_config(trials=12)
    first = fakes.open_session(tmp_path / "study", config, limits=Limits(trials=7))
    fakes.run_here(first, ran=ran)
    # A driver killed while recipe 7 ran and the outcome of 6 was being written: no outcome of 7, half a line of 6.
    lost = first.proposer.next(now=1.0)
    with first.folder.proposals.open("a") as file:
        file.write(lost.to_json() + "\n")
    first.folder.outcomes.write_bytes(first.folder.outcomes.read_bytes()[:-40])
    second = fakes.open_session(tmp_path / "study", config)
    fakes.run_here(second, ran=ran)
    study = load_study(tmp_path / "study")

    assert sorted(outcome.id for outcome in study.outcomes) == list(range(12))
    assert [proposal.id for proposal in study.proposals] == list(range(12))
    assert [int(line.split()[0]) for line in ran.read_text().splitlines()] == [*range(7), 6, 7, *range(8, 12)]
    keys = [line.split()[:2] for line in ran.read_text().splitlines()]
    assert keys[6] == keys[7]
    for line in second.folder.outcomes.read_text().splitlines():
        json.loads(line)


def test_time_goes_on_where_it_was(tmp_path):
    config = fakes.study_config(trials=3)
    first = fakes.open_session(tmp_path, config, limits=Limits(trials=2))
    fakes.run_here(first, seconds=0.1)
    second = fakes.open_session(tmp_path, config)

    assert 0 <= second.clock.now() - first.outcomes[-1].finished < 0.1


def test_torn_models_of_a_killed_worker_are_removed(tmp_path):
    torn = tmp_path / "models" / ".3.4711"
    torn.mkdir(parents=True)
    fakes.open_session(tmp_path, fakes.study_config())

    assert not torn.exists()


def test_progress_counts_and_tells_every_outcome_once(tmp_path):
    notes = fakes.Notes()
    session = fakes.open_session(tmp_path, fakes.study_config(trials=8), view=notes)
    fakes.run_here(session, trouble={4: "raise"})
    session.close()
    last = notes.seen[-1]

    assert [outcome.id for progress in notes.seen for outcome in progress.latest] == list(range(8))
    assert (last.done, last.failed, last.stopped, last.running) == (7, 1, 0, 0)
    assert (last.used, last.dense_metric, last.eta) == (1.0, 0.9375, 0.0)
    assert [point.costs["flops"] for point in last.front] == sorted(point.costs["flops"] for point in last.front)


def test_the_time_left_is_the_shorter_of_the_two_budgets(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(), limits=Limits(trials=1000, deadline=40.0))
    first = session.progress()
    session.end_segment(fakes.completed(session.next().proposal))

    assert first.eta == pytest.approx(40, abs=1)
    assert session.progress().eta < 40


def test_an_outcome_nobody_waits_for_is_not_logged(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config())
    proposal = session.next().proposal
    session.end_segment(fakes.completed(proposal))
    session.end_segment(fakes.completed(proposal))
    session.end_lost_trial(proposal, "failed", "gone")

    assert [type(outcome) for outcome in load_study(tmp_path).outcomes] == [Outcome]


def test_progress_and_kept_models_follow_the_objectives(tmp_path):
    config = replace(fakes.study_config(trials=14), objectives=("accuracy", "latency"))
    session = fakes.open_session(tmp_path, config)
    while (segment := session.next()) is not None:
        outcome = fakes.completed(segment.proposal)
        session.models.write(outcome.id, {"model.json": b""})
        # the more FLOPs the faster, and the more accurate: the best of all stands alone
        session.end_segment(replace(outcome, latency_ratio=1 - outcome.flops_ratio / 2, metric=outcome.flops_ratio))
    pruned = [outcome for outcome in session.outcomes if outcome.recipe.method.name != "dense"]
    best = max(pruned, key=lambda outcome: outcome.accuracy)
    (point,) = session.progress().front

    assert (point.id, point.metric, dict(point.costs)) == (best.id, best.accuracy, {"latency": best.latency_ratio})
    assert kept(session) == {best.id, 0, 1}


def test_a_search_in_which_every_model_broke_a_constraint_says_which(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=6))
    while (segment := session.next()) is not None:
        outcome = fakes.completed(segment.proposal)
        error = f"constraint: params 0.{outcome.id} > 0.05"
        broken = replace(outcome, status="stopped", metric=None, error=error)
        session.end_segment(outcome if outcome.recipe.method.name == "dense" else broken)

    with pytest.raises(StudyError, match=r"5 of 6 trials broke a constraint; the last one: constraint: params 0.5 > 0"):
        session.close()


def test_without_controls_every_recipe_is_searched(tmp_path):
    config = replace(fakes.study_config(trials=9), controls=False)
    session = fakes.open_session(tmp_path, config)
    fakes.run_here(session)
    session.close()

    assert not any(outcome.control for outcome in session.outcomes)
    assert len(session.proposer.optuna_study.trials) == 9


RMSE = {"name": "rmse", "direction": "minimize", "best": 0.0, "worst": None, "unit": "cm", "scale": 0.5}


def test_a_search_of_a_metric_to_minimise_keeps_the_small_ones(tmp_path):
    """The fake's values are read as errors: the larger a model, the worse it is, so the cheapest beats all others."""
    config = replace(fakes.study_config(trials=9), metric=RMSE, objectives=("rmse", "flops"))
    session = fakes.open_session(tmp_path, config)
    fakes.run_here(session)
    session.close()
    lines = [json.loads(line) for line in session.folder.outcomes.read_text().splitlines()]
    study = load_study(tmp_path)
    pruned = [outcome for outcome in study.outcomes if outcome.recipe.method.name != "dense"]

    assert all("accuracy" not in line and "rmse" in line and "rmse" in line["rungs"][0] for line in lines)
    assert study.front[-1].metric == min(outcome.metric for outcome in pruned)
    assert [point.id for point in session.progress().front] == [member.id for member in study.front]
    assert kept(session) == {0, 1} | {member.id for member in study.front}
    told = [trial.values for trial in session.proposer.optuna_study.get_trials() if trial.values]
    assert sorted(values[0] for values in told) == pytest.approx(
        sorted(0.5 / (0.5 + outcome.metric) for outcome in study.outcomes if not outcome.control)
    )


def test_where_no_model_reaches_the_limit_the_search_says_so(tmp_path):
    config = fakes.study_config(trials=5)
    session = fakes.open_session(tmp_path, replace(config, constraints=replace(config.constraints, metric=0.99)))
    fakes.run_here(session)
    best = max((outcome for outcome in session.outcomes if outcome.id), key=lambda outcome: outcome.metric)

    with pytest.raises(StudyError) as caught:
        session.close()
    assert f"none of 4 models has accuracy >= 0.99 (constraints.metric); the best: trial {best.id} with" in str(
        caught.value
    )
    assert all(outcome.completed for outcome in session.outcomes)


@pytest.fixture
def hasty(monkeypatch):
    """A search that waits, but not for long."""
    monkeypatch.setattr(dispatcher, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher, "PATIENCE_SECONDS", 0.2)


@pytest.mark.usefixtures("hasty")
def test_a_search_whose_folder_stays_away_ends_and_says_how_to_go_on(tmp_path):
    session = fakes.open_session(tmp_path / "study", fakes.study_config(trials=9))
    fakes.run_here(session, after=lambda: (tmp_path / "study").rename(tmp_path / f"away-{len(session.outcomes)}"))

    assert len(session.outcomes) == 1
    assert [warning.rpartition(": ")[2] for warning in session.warnings] == ["No such file or directory"]
    what = r"could not be written for 0.00333333 minutes: No such file or directory; go on with `autoprune resume"
    with pytest.raises(StudyError, match=what):
        session.close()
    assert not (tmp_path / "study").exists()


@pytest.mark.usefixtures("hasty")
def test_the_user_may_end_a_search_that_waits_for_its_folder(tmp_path):
    session = fakes.open_session(tmp_path / "study", fakes.study_config(trials=9))
    segment = session.next()
    (tmp_path / "study").rename(tmp_path / "away")
    session.interrupted = True
    session.end_segment(fakes.completed(segment.proposal))

    assert session.outcomes == []
    assert session.gave_up is None


def test_what_ends_while_the_user_ends_the_search_is_kept(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=9))
    segment = session.next()
    session.interrupted = True
    session.end_segment(fakes.completed(segment.proposal))

    assert [outcome.id for outcome in load_study(tmp_path).outcomes] == [segment.proposal.id]


def test_a_segment_that_was_put_back_is_handed_out_before_any_other(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=1))
    segment = session.next()
    assert session.finished_handing_out()
    session.put_back(replace(segment, resumed=True))
    assert not session.finished_handing_out()
    assert session.next() == replace(segment, resumed=True)
    session.end_segment(fakes.completed(segment.proposal))

    assert session.finished_handing_out()
    assert len(load_study(tmp_path).outcomes) == 1


def test_no_leap_of_the_time_of_day_ends_a_search(tmp_path, monkeypatch):
    limits = Limits(trials=6, deadline=3600.0)
    session = fakes.open_session(tmp_path, fakes.study_config(trials=6), limits=limits)
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + 86400)
    fakes.run_here(session)

    assert {outcome.status for outcome in session.outcomes} == {"completed"}
    assert all(0 <= outcome.started <= outcome.finished < 3600 for outcome in session.outcomes)


def test_a_search_of_which_nothing_can_work_any_more_ends_and_keeps_what_it_has(tmp_path):
    config = fakes.study_config(trials=20)
    fakes.open_session(tmp_path, config)
    folder, space = StudyFolder(tmp_path), config.space.bind(fakes.GROUPS)
    first = iter([None] * 3)
    session = Session(
        config,
        space,
        folder,
        limits=Limits.of(config.budget),
        refuse=lambda _: next(first, InputError("no widths", where="target")),
    )

    fakes.run_here(session)

    with pytest.raises(InputError, match=r"none of \d+ recipes drawn can work, the last one because no widths"):
        session.close()
    assert len(load_study(tmp_path).outcomes) == 4
