"""Finals: what is trained again, what is kept of it, crash and resume; `finish` with a real task, and its refusals."""

import json
import shutil
from dataclasses import replace
from statistics import fmean, stdev

import fakes
import pytest

from autoprune.engine.surgery import artifact
from autoprune.errors import InputError, StudyError
from autoprune.search import finish, search
from autoprune.search.options import FinalistsOptions
from autoprune.search.overrides import with_finalists
from autoprune.search.running import in_process
from autoprune.search.running.final_retraining import FinalRetraining, continued_clock, with_longer_timeout
from autoprune.search.running.limits import Limits
from autoprune.search.running.progress import SearchInterrupted
from autoprune.search.study_lock import lock
from autoprune.study.config import Budget, Finalists
from autoprune.study.finalists import CONTROL, FULL, against_dense, finalists, rows, spread, to_train
from autoprune.study.folder import load_study
from autoprune.study.pareto import front
from autoprune.tasks import load_task

IMAGES = 1000  # of the recipes in fakes.study_config


@pytest.fixture
def study(tmp_path):
    """Twelve trials that have ended, with a front of several members."""
    session = fakes.open_session(tmp_path, fakes.study_config(trials=12))
    in_process.run(session, fakes.OpenFake()(session.clock), trial_timeout=60.0)
    return load_study(tmp_path)


def finals_of(study, wanted, *, limits=None, view=None, at=None):
    config = fakes.study_config()
    clock = continued_clock(study) if at is None else at
    return FinalRetraining(config, study, to_train(study, wanted), clock=clock, limits=limits, view=view)


def run(finals, **options):
    in_process.run(finals, fakes.OpenFake(**options, final=True)(finals.clock), trial_timeout=60.0)


def again(study):
    return load_study(study.folder.path)


def trained(study):
    """(member, seed) of every line of the log."""
    return [(run.member, run.recipe.seed) for run in study.finalists]


# --- what is trained --------------------------------------------------------------------------------------------------


def test_every_seed_of_the_front_and_of_the_dense_control_at_full_length(study):
    members = [member.id for member in front(study.outcomes)]
    entries = to_train(study, Finalists(seeds=3, images=7000))
    recipes = {outcome.id: outcome.recipe for outcome in study.outcomes}

    assert len(members) >= 3
    # One seed of all comes before the next, and the control before the members: what was cut short says something.
    assert [(entry.member, entry.proposal.recipe.seed) for entry in entries] == [
        (member, recipes[member].seed + turn) for turn in range(3) for member in (0, *members)
    ]
    for entry in entries:
        recipe, searched = entry.proposal.recipe, recipes[entry.member]
        assert (recipe.method, recipe.target, recipe.allocation) == (
            searched.method,
            searched.target,
            searched.allocation,
        )
        assert (recipe.training.images, recipe.training.rungs) == (7000, (1.0,))
        assert recipe.training.lr == searched.training.lr
        assert entry.proposal.control == (entry.member == 0)
    assert recipes[0].method.name == "dense"


def test_the_length_is_a_multiple_of_the_searched_one_if_nobody_says(study):
    assert {entry.proposal.recipe.training.images for entry in to_train(study, Finalists())} == {FULL * IMAGES}


def test_of_a_long_front_so_many_as_wanted(study):
    members = [member.id for member in front(study.outcomes)]

    assert [entry.member for entry in to_train(study, Finalists(seeds=1, most=2))] == [0, members[0], members[-1]]


@pytest.mark.parametrize(
    ("most", "found"), [(1, [7]), (2, [3, 13]), (3, [3, 7, 13]), (4, [3, 5, 11, 13]), (5, [3, 5, 7, 11, 13])]
)
def test_spread(most, found):
    assert spread([3, 5, 7, 11, 13], most) == found


def test_a_longer_training_may_take_longer(study):
    config = fakes.study_config(timeout=11.0)
    entries = to_train(study, Finalists(images=7 * IMAGES))

    assert with_longer_timeout(config, study, entries).resources.trial_timeout_minutes == 77
    assert (
        with_longer_timeout(config, study, to_train(study, Finalists(images=100))).resources.trial_timeout_minutes == 11
    )


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_means_deviations_and_the_distance_to_dense(study):
    run(finals_of(study, Finalists(seeds=3)))
    after = again(study)
    found = {one.member: one for one in finalists(after.finalists)}
    members = [member.id for member in front(study.outcomes)]

    assert list(found) == [*members, 0]
    for one in found.values():
        assert [run.recipe.seed for run in one.runs] == [0, 1, 2]
        assert one.test.mean == pytest.approx(fmean([0.5, 0.49, 0.48]))
        assert one.test.std == pytest.approx(stdev([0.5, 0.49, 0.48]))
        assert one.validation.mean == pytest.approx(one.flops_ratio**0.5 + 0.001)
        assert one.images == FULL * IMAGES
    assert set(against_dense(list(found.values())).values()) == {0}
    assert [row["trial"] for row in rows(after)] == [*members, 0]
    assert after.outcomes == study.outcomes


def test_a_search_without_controls_has_a_dense_control_in_its_finals(tmp_path):
    config = replace(fakes.study_config(trials=12), controls=False)
    session = fakes.open_session(tmp_path, config)
    in_process.run(session, fakes.OpenFake()(session.clock), trial_timeout=60.0)
    study = load_study(tmp_path)
    run(finals_of(study, Finalists(seeds=2, images=7000)))
    after = load_study(tmp_path)
    control = next(one for one in finalists(after.finalists) if one.dense)

    assert not any(proposal.control for proposal in study.proposals)
    assert (control.member, len(control.runs), control.images) == (CONTROL, 2, 7000)
    assert control.runs[0].recipe.training.lr == study.proposals[0].recipe.training.lr
    assert None not in against_dense(finalists(after.finalists)).values()
    assert to_train(after, Finalists(seeds=2, images=7000)) == []
    assert (after.folder.final_models / str(control.best.id)).is_dir()


def test_without_a_control_there_is_no_distance(study):
    run(finals_of(study, Finalists(seeds=1)))
    members = [run for run in again(study).finalists if not run.control]

    assert set(against_dense(finalists(members)).values()) == {None}
    assert {one.test.std for one in finalists(members)} == {None}


def test_one_model_per_member_is_kept_and_validation_chooses_it(study):
    run(finals_of(study, Finalists(seeds=3)))
    after = again(study)
    kept = {int(path.name) for path in study.folder.final_models.iterdir()}

    # The third seed is the best on validation and the worst on the test split.
    assert kept == {run.id for run in after.finalists if run.recipe.seed == 2}
    assert len(kept) == len(front(study.outcomes)) + 1
    assert all((study.folder.final_models / str(n) / "model.json").read_bytes() == b"%d" % n for n in kept)
    assert not study.folder.states.exists()


def test_progress_shows_validation_only(study):
    notes = fakes.Notes()
    finals = finals_of(study, Finalists(seeds=2), view=notes)
    run(finals)
    finals.close()
    last, count = notes.seen[-1], 2 * (len(front(study.outcomes)) + 1)

    assert (last.done, last.running, last.used, last.eta) == (count, 0, 1.0, 0.0)
    assert sorted(outcome.id for progress in notes.seen for outcome in progress.latest) == list(range(count))
    assert [point.id for point in last.front] == [member.id for member in front(study.outcomes)]
    assert [point.accuracy for point in last.front] == pytest.approx(
        [point.costs["flops"] ** 0.5 + 0.0005 for point in last.front]
    )
    assert last.dense_accuracy == pytest.approx(1.0005)


# --- crashes and second thoughts --------------------------------------------------------------------------------------


def test_after_a_crash_what_is_missing_runs_and_nothing_else(study):
    ran, wanted = study.folder.path / "ran", Finalists(seeds=2)
    run(finals_of(study, wanted), ran=ran)
    whole, log = again(study), study.folder.finalists
    # Killed while the last line was being written; a worker had left a torn model and one nobody heard of.
    log.write_bytes(log.read_bytes()[:-40])
    for name in (".99.4711", "99"):
        (study.folder.final_models / name).mkdir()
    run(finals_of(again(study), wanted), ran=ran)
    after = again(study)

    assert after.finalists[:-1] == whole.finalists[:-1]
    assert trained(after) == trained(whole)
    assert len(ran.read_text().splitlines()) == len(whole.finalists) + 1
    assert not {"99", ".99.4711"} & {path.name for path in study.folder.final_models.iterdir()}
    assert to_train(after, wanted) == []


def test_more_seeds_are_added_and_fewer_change_nothing(study):
    run(finals_of(study, Finalists(seeds=1)))
    first = again(study)
    run(finals_of(first, Finalists(seeds=3)))
    after = again(study)

    assert after.finalists[: len(first.finalists)] == first.finalists
    assert len(after.finalists) == 3 * len(first.finalists)
    assert len({run.id for run in after.finalists}) == len(after.finalists)
    assert to_train(after, Finalists(seeds=2)) == []


def test_the_length_stays_what_it_was(study):
    run(finals_of(study, Finalists(seeds=1, images=3000)))
    after = again(study)

    assert {entry.proposal.recipe.training.images for entry in to_train(after, Finalists(seeds=2))} == {3000}
    with pytest.raises(InputError, match="4000 training images: the finalists of this study have 3000"):
        to_train(after, Finalists(seeds=2, images=4000))


def test_what_failed_is_tried_again_and_says_nothing_of_its_member(study):
    run(finals_of(study, Finalists(seeds=1)), trouble={1: "raise"})
    after = again(study)
    entries = to_train(after, Finalists(seeds=1))

    assert after.finalists[1].error == "ValueError: a bad"
    assert [entry.member for entry in entries] == [after.finalists[1].member]
    assert entries[0].proposal.id == len(after.finalists)
    assert after.finalists[1].member not in {one.member for one in finalists(after.finalists)}


def test_finals_in_which_everything_fails_say_why(study):
    finals = finals_of(study, Finalists(seeds=1))
    run(finals, trouble=dict.fromkeys(range(50), "raise"))

    with pytest.raises(StudyError, match=r"none of .* finalists completed; .* failed with: ValueError: a bad"):
        finals.close()


def test_interrupted_finals_say_how_to_go_on(study):
    class Interrupting(fakes.Fake):
        def run(self, proposal, report, scratch):
            if proposal.id == 2:
                raise KeyboardInterrupt
            return super().run(proposal, report, scratch)

    finals = finals_of(study, Finalists(seeds=1))
    in_process.run(finals, Interrupting(finals.clock, 0.0, None, final=True), trial_timeout=60.0)

    with pytest.raises(
        SearchInterrupted, match=f"stopped with 2 of .* go on with `autoprune finish {study.folder.path}`"
    ):
        finals.close()
    assert len(again(study).finalists) == 2


def test_nothing_begins_that_would_not_end_in_time(study):
    """The fakes say that 1,000 images take 1 second after the first 0.1; a finalist of 5,000 so takes more than 5."""
    clock = continued_clock(study)
    none = finals_of(study, Finalists(seeds=1), limits=Limits(deadline=clock.now() + 0.0), at=clock)
    all_of_them = finals_of(study, Finalists(seeds=1), limits=Limits(deadline=clock.now() + 1000.0), at=clock)
    run(none)
    none.close()

    assert again(study).finalists == ()
    run(all_of_them)
    assert len(again(study).finalists) == all_of_them.planned


def test_a_share_of_the_minutes_is_kept():
    assert Limits.of(Budget(minutes=10), start=30, kept=0.25).deadline == 30 + 450
    assert Limits.of(Budget(minutes=10), start=30).deadline == 30 + 600
    assert Limits.of(Budget(trials=3), kept=0.25).deadline is None


def test_a_worker_that_was_lost_is_a_failed_finalist(study):
    finals = finals_of(study, Finalists(seeds=1))
    proposal = finals.next().proposal
    finals.end_lost_trial(proposal, "failed", "the worker process died")
    finals.end_lost_trial(proposal, "failed", "the worker process died")

    assert [(run.status, run.member, run.control) for run in again(study).finalists] == [("failed", 0, True)]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_study_without_a_front(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=1))
    in_process.run(session, fakes.OpenFake()(session.clock), trial_timeout=60.0)

    with pytest.raises(InputError, match="the front is empty: nothing to train again"):
        finish(tmp_path, in_process=True)


def test_a_study_that_is_in_use(study):
    with lock(study.folder), pytest.raises(InputError, match="a search is running in this folder"):
        finish(study.folder.path, in_process=True)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (FinalistsOptions(seeds=0), "finalists.seeds: 0 is out of range"),
        (FinalistsOptions(images=-3), "finalists.images: -3 is out of range"),
    ],
)
def test_numbers_out_of_range(given, what):
    with pytest.raises(InputError, match=what):
        with_finalists(fakes.study_config(), given)


# --- a real task ------------------------------------------------------------------------------------------------------

SMALL = [
    "task.model.train={images: 6400, batch_size: 64, lr: 0.1}",
    "space.method={choice: {l1: {}, bn_scale: {share: 0.3, penalty: 1e-4}}}",
    "space.training.images=256",
    "space.target.flops={float: [0.3, 0.8]}",
    "resources={workers: 1}",
    "sampler.startup=3",
]


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.mark.slow
def test_a_search_that_keeps_time_for_its_finals_ends_with_them(tmp_path):
    """The first seed comes with the search, the second from `finish`; what was there stays."""
    finals = "finalists={share: 0.5, seeds: 1, images: 640, most: 2}"
    searched = search("digits_demo", out=tmp_path / "s", overrides=[*SMALL, finals], in_process=True, trials=5)
    study = finish(tmp_path / "s", seeds=2, in_process=True)
    found = finalists(study.finalists)

    assert searched.finalists == study.finalists[: len(searched.finalists)]
    assert {one.images for one in found} == {640}
    assert {tuple(run.recipe.seed for run in one.runs) for one in found} == {(0, 1)}
    assert found[-1].dense
    assert all(run.flops_ratio == pytest.approx(run.recipe.target.flops, abs=0.01) for run in found[0].runs)
    assert finish(tmp_path / "s", seeds=2, in_process=True) == study
    _loads_with_its_accuracies(study, found[0])


def _loads_with_its_accuracies(study, one):
    """The kept model has both accuracies that were noted, each on its split."""
    from autoprune.training.evaluate import evaluate
    from autoprune.training.runtime import Runtime

    task = load_task(study.config["task"])
    model = artifact.load(study.folder.final_models / str(one.best.id), task.build)
    runtime = Runtime(device="cpu", precision="fp32", channels_last=False, threads=1)

    assert evaluate(model, task.validation, task, runtime) == pytest.approx(one.best.accuracy, abs=0.004)
    assert evaluate(model, task.test, task, runtime) == pytest.approx(one.best.test_accuracy, abs=0.004)
    assert task.test.fingerprint() != task.validation.fingerprint()


@pytest.mark.slow
@pytest.mark.usefixtures("workers_see_fakes")
def test_finals_after_a_search_on_the_same_ray(tmp_path):
    from autoprune.search.on_ray.executor import RayExecutor

    session = fakes.open_session(tmp_path, fakes.study_config(trials=8))
    with RayExecutor(session.config.resources) as executor:
        executor.run(session, fakes.OpenFake())
        study = load_study(tmp_path)
        finals = finals_of(study, Finalists(seeds=2), at=session.clock)
        executor.run(finals, fakes.OpenFake(final=True, trouble={3: "exit"}))
    finals.close()
    after = again(study)

    assert len(after.finalists) == finals.planned
    assert {run.id for run in after.finalists if not run.completed} == {3}
    assert {path.name for path in study.folder.final_models.iterdir()} == {
        str(one.best.id) for one in finalists(after.finalists)
    }
    json.loads(study.folder.finalists.read_text().splitlines()[0])
    shutil.rmtree(study.folder.final_models)
