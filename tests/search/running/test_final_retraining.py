"""Final retraining: what is kept of it, its progress, crash and resume."""

from dataclasses import replace

import fakes
import pytest

from autoprune.errors import SearchInterrupted, StudyError
from autoprune.search.running import in_process
from autoprune.search.running.final_retraining import continued_clock, with_longer_timeout
from autoprune.search.running.limits import Limits
from autoprune.study.config import Finalists
from autoprune.study.finalists import CONTROL, against_dense, by_member, to_train
from autoprune.study.folder import load_study
from autoprune.study.metric import ACCURACY
from autoprune.study.pareto import front

IMAGES = 1000  # of the recipes in fakes.study_config


@pytest.fixture
def study(tmp_path):
    """Twelve trials that have ended, with a front of several members."""
    return fakes.finished_study(tmp_path)


def again(study):
    return load_study(study.folder.path)


def trained(study):
    """(member, seed) of every line of the log."""
    return [(run.member, run.recipe.seed) for run in study.finalists]


def test_a_longer_training_may_take_longer(study):
    config = fakes.study_config(timeout=11.0)
    entries = to_train(study, Finalists(images=7 * IMAGES))

    assert with_longer_timeout(config, study, entries).resources.trial_timeout_minutes == 77
    entries = to_train(study, Finalists(images=100))
    assert with_longer_timeout(config, study, entries).resources.trial_timeout_minutes == 11


def test_a_search_without_controls_has_a_dense_control_in_its_retraining(tmp_path):
    study = fakes.finished_study(tmp_path, controls=False)
    fakes.retrain(study, Finalists(seeds=2, images=7000))
    after = load_study(tmp_path)
    control = next(one for one in by_member(after.finalists, ACCURACY) if one.dense)

    assert not any(proposal.control for proposal in study.proposals)
    assert (control.member, len(control.runs), control.images) == (CONTROL, 2, 7000)
    assert control.runs[0].recipe.training.lr == study.proposals[0].recipe.training.lr
    assert None not in against_dense(by_member(after.finalists, ACCURACY)).values()
    assert to_train(after, Finalists(seeds=2, images=7000)) == []
    assert (after.folder.final_models / str(control.best.id)).is_dir()


def test_one_model_per_member_is_kept_and_validation_chooses_it(study):
    fakes.retrain(study, Finalists(seeds=3))
    after = again(study)
    kept = {int(path.name) for path in study.folder.final_models.iterdir()}

    # The third seed is the best on validation and the worst on the test split.
    assert kept == {run.id for run in after.finalists if run.recipe.seed == 2}
    assert len(kept) == len(front(study.outcomes)) + 1
    assert all((study.folder.final_models / str(n) / "model.json").read_bytes() == b"%d" % n for n in kept)
    assert not study.folder.states.exists()


def test_progress_shows_validation_only(study):
    notes = fakes.Notes()
    fakes.retrain(study, Finalists(seeds=2), view=notes).close()
    last, count = notes.seen[-1], 2 * (len(front(study.outcomes)) + 1)

    assert (last.done, last.running, last.used, last.eta) == (count, 0, 1.0, 0.0)
    assert sorted(outcome.id for progress in notes.seen for outcome in progress.latest) == list(range(count))
    assert [point.id for point in last.front] == [member.id for member in front(study.outcomes)]
    assert [point.metric for point in last.front] == pytest.approx(
        [point.costs["flops"] ** 0.5 - 0.0095 for point in last.front]
    )
    assert last.dense_metric == pytest.approx(0.9905)


def test_after_a_crash_what_is_missing_runs_and_nothing_else(study):
    ran, wanted = study.folder.path / "ran", Finalists(seeds=2)
    fakes.retrain(study, wanted, ran=ran)
    whole, log = again(study), study.folder.finalists
    # Killed while the last line was being written; a worker had left a torn model and one nobody heard of.
    log.write_bytes(log.read_bytes()[:-40])
    for name in (".99.4711", "99"):
        (study.folder.final_models / name).mkdir()
    fakes.retrain(again(study), wanted, ran=ran)
    after = again(study)

    assert after.finalists[:-1] == whole.finalists[:-1]
    assert trained(after) == trained(whole)
    assert len(ran.read_text().splitlines()) == len(whole.finalists) + 1
    assert not {"99", ".99.4711"} & {path.name for path in study.folder.final_models.iterdir()}
    assert to_train(after, wanted) == []


def test_what_failed_is_tried_again_and_says_nothing_of_its_member(study):
    fakes.retrain(study, Finalists(seeds=1), trouble={1: "raise"})
    after = again(study)
    entries = to_train(after, Finalists(seeds=1))

    assert after.finalists[1].error == "ValueError: a bad"
    assert [entry.member for entry in entries] == [after.finalists[1].member]
    assert entries[0].proposal.id == len(after.finalists)
    assert after.finalists[1].member not in {one.member for one in by_member(after.finalists, ACCURACY)}


def test_a_retraining_in_which_everything_fails_says_why(study):
    retraining = fakes.retrain(study, Finalists(seeds=1), trouble=dict.fromkeys(range(50), "raise"))

    with pytest.raises(StudyError, match=r"none of .* finalists completed; .* ended with: ValueError: a bad"):
        retraining.close()


def test_an_interrupted_retraining_says_how_to_go_on(study):
    class Interrupting(fakes.Fake):
        def run(self, proposal, report, scratch, parent):
            if proposal.id == 2:
                raise KeyboardInterrupt
            return super().run(proposal, report, scratch, parent)

    retraining = fakes.open_retraining(study, Finalists(seeds=1))
    in_process.run(retraining, Interrupting(retraining.clock, 0.0, None, final=True), trial_timeout=60.0)

    with pytest.raises(
        SearchInterrupted, match=f"stopped with 2 of .* go on with `autoprune finish {study.folder.path}`"
    ):
        retraining.close()
    assert len(again(study).finalists) == 2


def test_nothing_begins_that_would_not_end_in_time(study):
    """The fakes say that 1,000 images take 1 second after the first 0.1; a finalist of 5,000 so takes more than 5."""
    clock = continued_clock(study)
    too_short, long_enough = Limits(deadline=clock.now() + 0.0), Limits(deadline=clock.now() + 1000.0)
    fakes.retrain(study, Finalists(seeds=1), limits=too_short, clock=clock).close()

    assert again(study).finalists == ()
    retraining = fakes.retrain(study, Finalists(seeds=1), limits=long_enough, clock=clock)
    assert len(again(study).finalists) == retraining.planned


def test_a_worker_that_was_lost_is_a_failed_finalist(study):
    retraining = fakes.open_retraining(study, Finalists(seeds=1))
    proposal = retraining.next().proposal
    retraining.end_lost_trial(proposal, "failed", "the worker process died")
    retraining.end_lost_trial(proposal, "failed", "the worker process died")

    assert [(run.status, run.member, run.control) for run in again(study).finalists] == [("failed", 0, True)]


def test_a_training_whose_worker_was_taken_away_goes_on_and_leaves_no_state(tmp_path):
    study = fakes.finished_study(tmp_path)
    retraining = fakes.open_retraining(study, Finalists(seeds=1))
    segment = retraining.next()
    retraining.states.write(segment.proposal.id, {"state": b"7"})
    retraining.put_back(replace(segment, resumed=True))
    assert retraining.next() == replace(segment, resumed=True)
    retraining.end_segment(fakes.completed(segment.proposal))

    assert list(study.folder.final_states.iterdir()) == []
    assert not study.folder.states.exists()
