"""Trial records answer as a look through all trials would."""

import random
from dataclasses import replace

import fakes
import pytest

from autoprune.search.running.trial_records import TrialRecords
from autoprune.study.pareto import front
from autoprune.study.tradeoff import ACCURACY_AND_FLOPS, Tradeoff


def child_of(number, parent, **options):
    """A proposal that goes on from a trial, or from the dense model."""
    proposal = fakes.proposal(number, **options)
    weights = "trained" if parent is None else "front"
    return replace(proposal, recipe=replace(proposal.recipe, weights=weights, parent=parent))


def drawn_search(seed, trials=60):
    """(proposal, outcome) of trials whose numbers often are equal; parents are earlier trials."""
    draw = random.Random(seed)
    for number in range(trials):
        parent = draw.choice([None, *range(number)]) if number else None
        proposal = child_of(number, parent, flops=draw.randint(1, 9) / 10, control=number < 2)
        status = draw.choice(["completed", "completed", "failed", "stopped"])
        metric = draw.randint(1, 9) / 10 if status == "completed" else None
        outcome = fakes.completed(proposal, status=status, metric=metric, finished=float(number))
        yield proposal, outcome


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("known", [0, 23])
def test_front_and_needed_models_are_those_of_all_trials(seed, known):
    trials = list(drawn_search(seed))
    records = TrialRecords(*zip(*trials[:known], strict=True), ACCURACY_AND_FLOPS) if known else None
    records = records or TrialRecords([], [], ACCURACY_AND_FLOPS)
    for number, (_, outcome) in enumerate(trials[known:], known):
        running = [proposal for proposal, _ in trials[number : number + 3]]
        for proposal in running:
            records.begin(proposal)
        past = [ended for _, ended in trials[:number]]
        controls = {ended.id for ended in past if ended.control and ended.completed}
        parents, members = {proposal.recipe.parent for proposal in running} - {None}, front(past)

        assert records.front == members
        assert records.needed_models() == {member.id for member in members} | controls | parents
        assert not records.has_ended(number)
        records.end(outcome)
        assert records.has_ended(number)
    assert records.outcomes == [outcome for _, outcome in trials]


def test_images_of_ancestors_are_those_of_the_whole_lineage():
    records = TrialRecords([], [], ACCURACY_AND_FLOPS)
    for number, parent, images in ((0, None, 700), (1, 0, 300), (2, None, 90), (3, 1, 50)):
        proposal = child_of(number, parent)
        records.begin(proposal)
        records.end(fakes.measured(number, (1.0, images, 1.0)))

    assert records.images_of_ancestors(child_of(9, 3).recipe) == 50 + 300 + 700
    assert records.images_of_ancestors(child_of(9, None).recipe) == 0


def test_a_model_is_kept_that_only_unsure_times_put_off_the_front():
    """Both have any time within 0.3 to 0.9: the better one puts the other off, until they are timed alone."""
    tradeoff = Tradeoff(costs=("latency",))
    records = TrialRecords([], [], tradeoff)
    for number, metric, ratio in ((0, 0.5, 0.6), (1, 0.7, 0.7)):
        proposal = child_of(number, None)
        records.begin(proposal)
        times = {"latency_ms": 1.0, "latency_ratio": ratio, "latency_low": 0.3, "latency_high": 0.9}
        records.end(fakes.completed(proposal, metric=metric, **times))

    assert [member.id for member in records.front] == [1]
    assert records.needed_models() == {0, 1}
