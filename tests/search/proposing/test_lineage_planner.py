"""What a search along lineages remembers, and what the sampler hears of it."""

import math
from dataclasses import replace
from unittest import mock

import fakes
import pytest
from optuna.trial import TrialState

from autoprune.errors import InputError
from autoprune.search.proposing import lineage_planner
from autoprune.search.proposing.lineage_planner import (
    LineagePlanner,
    Room,
    images_of_trainings,
    offers_lineages,
    target_range,
    without_steps,
)
from autoprune.search.proposing.lineage_policy import Step
from autoprune.search.proposing.proposer import Proposer
from autoprune.study.config import Sampler
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.study.outcome import Outcome

SPACE = {**fakes.SPACE, "weights": {"choice": ["trained", "front"]}}


def proposer(space=SPACE, **options):
    bound = fakes.bound_space(space)
    return Proposer(bound, sampler=Sampler(startup=4), controls=False, dense_metric=0.9, **options)


def play(search, count, accuracy=None):
    proposals = []
    for _ in range(count):
        proposals.append(search.next(now=float(len(proposals))))
        search.tell(fakes.completed(proposals[-1], accuracy))
    return proposals


@pytest.mark.parametrize(
    ("weights", "offered"),
    [(None, False), ("scratch", False), ("front", True), ({"choice": ["trained", "front"]}, True)],
)
def test_a_space_offers_lineages_if_it_names_the_front(weights, offered):
    space = fakes.SPACE if weights is None else {**fakes.SPACE, "weights": weights}
    assert offers_lineages(fakes.bound_space(space)) == offered


@pytest.mark.parametrize("target", [{"flops": 0.5}, {"flops": {"float": [0.1, 0.8]}, "params": 0.7}])
def test_lineages_go_down_one_range(target):
    with pytest.raises(InputError, match="one target with a range"):
        target_range(fakes.bound_space({**SPACE, "target": target}))


def test_any_cost_can_be_the_target():
    planner = LineagePlanner(fakes.bound_space({**SPACE, "target": {"params": {"float": [0.2, 0.7]}}}), ACCURACY, 0.9)
    step = planner.next_step()
    assert planner.settle(step, {"method": "l1"}) == {
        "method": "l1",
        "weights": "trained",
        "target.params": step.target,
    }
    assert 0.2 <= step.target <= 0.7


def test_without_the_dense_accuracy_nothing_can_be_expected():
    with pytest.raises(InputError, match="dense model's accuracy"):
        Proposer(fakes.bound_space(SPACE), controls=False)


def test_the_front_alone_begins_with_the_dense_model():
    first, *others = play(proposer({**SPACE, "weights": "front"}), 9)
    assert (first.recipe.weights, first.recipe.parent) == ("trained", None)
    assert any(proposal.recipe.parent is not None for proposal in others)


def test_the_sampler_hears_how_far_a_recipe_ends_above_what_was_expected():
    search = proposer()
    cuts = [proposal for proposal in play(search, 15, accuracy=0.625) if proposal.distributions]
    trials = search.optuna_study.get_trials(deepcopy=False)

    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * len(cuts)
    assert [trial.values for trial in trials] == [[pytest.approx(0.625 - cut.expected)] for cut in cuts]
    for cut in cuts:
        assert cut.params["target.flops"] == cut.recipe.target.flops
        assert cut.params["weights"] == cut.recipe.weights


def test_training_on_is_as_it_was_and_no_business_of_the_samplers():
    search = proposer()
    proposals = {proposal.id: proposal for proposal in play(search, 40)}
    on = [proposal for proposal in proposals.values() if not proposal.distributions]

    assert on
    for proposal in on:
        parent = proposals[proposal.recipe.parent].recipe
        assert replace(proposal.recipe, weights=parent.weights, parent=parent.parent, target=parent.target) == parent


@pytest.mark.parametrize("accuracy", [None, float("nan")])
def test_an_outcome_without_accuracy_is_no_parent(accuracy):
    search = proposer()
    proposal = search.next()
    search.tell(Outcome(id=proposal.id, recipe=proposal.recipe, status="failed", metric=accuracy))
    assert search.parents() == set()
    assert search.next().recipe.parent is None


def test_plans_say_how_and_not_where():
    planner = LineagePlanner(fakes.bound_space(SPACE), ACCURACY, 0.9)
    plans = [
        {"method": "l1", "target.flops": 0.5},
        {"method": "l1", "target.flops": 0.3, "weights": "front"},
        {"method": "l2"},
    ]
    assert without_steps(planner, plans) == [{"method": "l1"}, {"method": "l2"}]


def test_the_whole_plan_is_carried_out_whatever_is_trained_on_between():
    search = Proposer(
        fakes.bound_space(SPACE),
        sampler=Sampler(startup=12, first=[{"method": "taylor"}], warm_start=False),
        controls=False,
        dense_metric=0.9,
    )
    cuts = [proposal for proposal in play(search, 60) if proposal.distributions]
    methods = list(dict.fromkeys(proposal.recipe.method.name for proposal in cuts))
    assert methods[0] == "taylor"
    assert set(methods[:5]) == set(fakes.METHODS)


def test_the_sampler_learns_which_way_to_prune_ends_above_what_was_expected():
    search = proposer()
    methods = []
    for number in range(60):
        proposal = search.next(now=float(number))
        method = proposal.recipe.method.name
        if proposal.distributions:
            methods.append(method)
        search.tell(fakes.completed(proposal, (proposal.expected or 0.5) + (0.01 if method == "fpgm" else -0.01)))
    assert methods[-15:].count("fpgm") >= 10


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (700, [700]),
        ({"int": [300, 1300]}, [300, 600, 1200]),
        ({"int": [300, 1300], "log": True}, [300, 600, 1200]),
        ({"int": [300, 1300], "step": 200}, [300]),  # 600 and 1200 are no steps
        ({"int": [300, 900], "step": 100}, [300, 600]),
        ({"choice": [900, 200, 300]}, [200, 300, 900]),
    ],
)
def test_trainings_have_the_images_that_the_space_says(images, found):
    assert images_of_trainings(longer_space(images)) == found


@pytest.mark.parametrize("images", [{"int": [0, 300]}, {"choice": [300, 0]}])
def test_searched_lengths_are_multiples_of_some_images(images):
    with pytest.raises(InputError, match="no length is a multiple of no images"):
        LineagePlanner(longer_space(images), ACCURACY, 0.9)


def test_a_space_may_cut_without_any_training():
    proposals = play(proposer({**SPACE, "training": {**SPACE["training"], "images": 0}}), 9)
    assert {proposal.recipe.training.images for proposal in proposals} == {0}


def longer_space(images):
    return fakes.bound_space({**SPACE, "training": {**SPACE["training"], "images": images}})


def test_how_long_a_recipe_is_trained_is_the_policys_to_say():
    planner = LineagePlanner(longer_space({"int": [300, 1300]}), ACCURACY, 0.9)
    proposal = replace(fakes.proposal(3, flops=0.5, images=600), expected=0.6)
    planner.record_proposal(proposal)
    planner.record_outcome(fakes.completed(proposal, 0.65))

    cut = Step(parent=3, target=0.4, expected=0.6, length=4.0)
    assert planner.settle(cut, {"method": "l1"})["training.images"] == 1200
    assert planner.train_on(replace(cut, target=0.5)).training.images == 1200
    assert planner._ended[0].length == 2.0
    assert without_steps(planner, [{"method": "l1", "training.images": 600}]) == [{"method": "l1"}]


def test_a_training_is_long_only_where_there_is_room_for_it():
    """One of 600 images, at half of the cost, took 32 seconds: 25 a unit, of which a half-cost model takes 0.64."""
    planner = LineagePlanner(longer_space({"int": [300, 1300]}), ACCURACY, 0.9)
    seen = []
    planner_step = lineage_planner.next_step
    with mock.patch.object(lineage_planner, "next_step", lambda known: seen.append(known) or planner_step(known)):
        planner.next_step()
        planner.next_step(Room(seconds=50.0))
        proposal = replace(fakes.proposal(3, flops=0.5, images=600), expected=0.6)
        planner.record_proposal(proposal)
        planner.record_outcome(fakes.completed(proposal, 0.65, seconds={"finetune": 32.0}))
        planner.next_step(Room(seconds=50.0, images=1199))
    assert [known.time_left for known in seen] == [math.inf, 0.0, pytest.approx(2.0)]
    assert [known.lengths for known in seen] == [[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0]]


def test_controls_begin_with_the_dense_model():
    space = {**SPACE, "weights": {"choice": ["front", "trained"]}}
    search = Proposer(fakes.bound_space(space), sampler=Sampler(startup=4), dense_metric=0.9)
    assert [proposal.recipe.weights for proposal in play(search, 2)] == ["trained", "trained"]


def test_of_another_metric_heights_are_compared():
    """Of 0.7, where the dense model has 1.4: height 2/3 against 1/2."""
    rmse = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, scale=1.4)
    planner = LineagePlanner(fakes.bound_space(SPACE), rmse, 1.4)
    proposal = replace(fakes.proposal(3, flops=0.5), expected=0.6)
    planner.record_proposal(proposal)
    outcome = fakes.completed(proposal, 0.7)
    planner.record_outcome(outcome)

    assert planner._dense.height == 0.5
    assert planner.surprise(outcome) == pytest.approx(2 / 3 - 0.6)
    assert [(model.number, model.cost) for model in planner._front()] == [(3, 0.5)]
    planner.record_proposal(replace(fakes.proposal(5, flops=0.6), expected=0.6))
    planner.record_outcome(fakes.completed(fakes.proposal(5, flops=0.6), 0.9))
    assert planner.parents() == {3}  # smaller, and better
