"""Finalists: which trainings are missing, and what several seeds gave."""

from statistics import fmean, stdev

import fakes
import pytest
import rmse_study

from autoprune.errors import InputError
from autoprune.study.config import Finalists
from autoprune.study.finalists import TIMES_LONGER, against_dense, by_member, evenly_spread, rows, to_train
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
    assert {entry.proposal.recipe.training.images for entry in to_train(study, Finalists())} == {TIMES_LONGER * IMAGES}


def test_trials_that_are_named_are_trained_in_place_of_the_front(study):
    completed = [outcome.id for outcome in study.outcomes if outcome.completed and not outcome.control]
    beaten = next(number for number in completed if number not in {member.id for member in front(study.outcomes)})
    entries = to_train(study, Finalists(seeds=1, most=1), trials=(beaten, completed[-1], beaten))

    assert [entry.member for entry in entries] == [0, beaten, completed[-1]]
    with pytest.raises(InputError, match="trial 77 cannot be trained again; allowed: pruned trials"):
        to_train(study, Finalists(), trials=(77,))
    with pytest.raises(InputError, match="trial 0 cannot be trained again"):
        to_train(study, Finalists(), trials=(0,))


def test_of_a_long_front_so_many_as_wanted(study):
    members = [member.id for member in front(study.outcomes)]

    assert [entry.member for entry in to_train(study, Finalists(seeds=1, most=2))] == [0, members[0], members[-1]]


@pytest.mark.parametrize(
    ("most", "found"), [(1, [7]), (2, [3, 13]), (3, [3, 7, 13]), (4, [3, 5, 11, 13]), (5, [3, 5, 7, 11, 13])]
)
def test_spread(most, found):
    assert evenly_spread([3, 5, 7, 11, 13], most) == found


def test_means_deviations_and_the_distance_to_dense(study):
    fakes.retrain(study, Finalists(seeds=3))
    after = again(study)
    found = {one.member: one for one in by_member(after.finalists, ACCURACY)}
    members = [member.id for member in front(study.outcomes)]

    assert list(found) == [*members, 0]
    for one in found.values():
        assert [run.recipe.seed for run in one.runs] == [0, 1, 2]
        assert one.test.mean == pytest.approx(fmean([0.5, 0.49, 0.48]))
        assert one.test.std == pytest.approx(stdev([0.5, 0.49, 0.48]))
        assert one.validation.mean == pytest.approx(one.flops_ratio**0.5 - 0.009)
        assert one.images == TIMES_LONGER * IMAGES
    assert set(against_dense(list(found.values())).values()) == {0}
    assert [row["trial"] for row in rows(after)] == [*members, 0]
    assert after.outcomes == study.outcomes


def test_without_a_control_there_is_no_distance(study):
    fakes.retrain(study, Finalists(seeds=1))
    members = [run for run in again(study).finalists if not run.control]

    assert set(against_dense(by_member(members, ACCURACY)).values()) == {None}
    assert {one.test.std for one in by_member(members, ACCURACY)} == {None}


def test_more_seeds_are_added_and_fewer_change_nothing(study):
    fakes.retrain(study, Finalists(seeds=1))
    first = again(study)
    fakes.retrain(first, Finalists(seeds=3))
    after = again(study)

    assert after.finalists[: len(first.finalists)] == first.finalists
    assert len(after.finalists) == 3 * len(first.finalists)
    assert len({run.id for run in after.finalists}) == len(after.finalists)
    assert to_train(after, Finalists(seeds=2)) == []


def test_the_length_stays_what_it_was(study):
    fakes.retrain(study, Finalists(seeds=1, images=3000))
    after = again(study)

    assert {entry.proposal.recipe.training.images for entry in to_train(after, Finalists(seeds=2))} == {3000}
    with pytest.raises(InputError, match="4000 training images: the finalists of this study have 3000"):
        to_train(after, Finalists(seeds=2, images=4000))


def test_of_a_metric_to_minimise_the_smallest_is_kept(tmp_path):
    found = load_study(rmse_study.write(tmp_path / "trees", finalists=True).path)
    member, control = by_member(found.finalists, found.metric)

    assert (member.member, member.best.id, control.best.id) == (7, 3, 0)
    assert (member.validation.mean, member.test.mean) == (pytest.approx(1.8), 2.5)
    assert against_dense([member, control])[7] == pytest.approx(2.5 - 1.4)
