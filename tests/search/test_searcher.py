"""Proposer: a contract that holds with every sampler, and a study that the two logs can rebuild."""

import fakes
import numpy as np
import pytest
from optuna.trial import TrialState

from autoprune.pareto import hypervolume
from autoprune.results import Outcome, Proposal
from autoprune.search.searcher import Proposer
from autoprune.space import Sampler, Space

SAMPLERS = ("tpe", "nsga2", "random")


def failed(proposal, status="failed"):
    return Outcome(id=proposal.id, recipe=proposal.recipe, status=status, error="no")


def play(proposer, count, *, lose=(), fail=(), stop=()):
    """Ask and tell; the proposals, and the outcomes of those that were not lost."""
    proposals, outcomes = [], []
    for _ in range(count):
        proposal = proposer.next(now=float(len(proposals)))
        proposals.append(proposal)
        if proposal.id in lose:
            continue
        status = "failed" if proposal.id in fail else "stopped" if proposal.id in stop else ""
        outcome = failed(proposal, status) if status else fakes.completed(proposal)
        proposer.tell(outcome)
        outcomes.append(outcome)
    return proposals, outcomes


def trials(proposer):
    return [(t.state, t.params, t.distributions, t.values) for t in proposer.optuna_study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestContract:
    def proposer(self, sampler, **options):
        return Proposer(fakes.bound_space(), sampler=Sampler(name=sampler, startup=8), seed=3, **options)

    def test_ids_count_up_and_every_line_comes_back(self, sampler):
        proposals, _ = play(self.proposer(sampler), 23, fail=(5,), stop=(6,))

        assert [proposal.id for proposal in proposals] == list(range(23))
        assert [Proposal.from_json(proposal.to_json()) for proposal in proposals] == proposals

    def test_controls_come_first(self, sampler):
        dense, random, *others = play(self.proposer(sampler), 12)[0]

        assert (dense.recipe.method.name, dense.recipe.target.flops) == ("dense", None)
        assert random.recipe.method.name == "random"
        assert random.recipe.target.flops == pytest.approx(0.45)
        assert random.recipe.allocation.name == "uniform"
        assert dense.recipe.training == random.recipe.training
        assert [dense.control, random.control] == [True, True]
        assert not any(proposal.control for proposal in others)

    def test_l1_at_three_targets_then_every_method_in_turn(self, sampler):
        proposals = play(self.proposer(sampler), 10)[0]
        warm, spread = proposals[2:5], proposals[5:10]

        assert [p.recipe.method.name for p in warm] == ["l1"] * 3
        assert [p.recipe.target.flops for p in warm] == pytest.approx([0.205, 0.45, 0.695])
        assert {p.recipe.method.name for p in spread} == set(fakes.METHODS)
        slices = np.floor((np.array([p.recipe.target.flops for p in spread]) - 0.1) / 0.7 * 5)
        assert sorted(slices) == [0, 1, 2, 3, 4]

    def test_only_completed_outcomes_have_values(self, sampler):
        proposer = self.proposer(sampler)
        play(proposer, 16, fail=(4, 9), stop=(11,), lose=(12,))
        states = [t.state for t in proposer.optuna_study.trials]

        # Both controls are outside this space: trial n of Optuna is proposal n + 2.
        assert [n + 2 for n, state in enumerate(states) if state == TrialState.FAIL] == [4, 9, 11]
        assert [n + 2 for n, state in enumerate(states) if state == TrialState.RUNNING] == [12]
        assert len(states) == 14

    @pytest.mark.parametrize("accuracy", [None, float("nan"), float("inf")])
    def test_an_accuracy_that_is_no_number_never_reaches_optuna(self, sampler, accuracy):
        proposer = self.proposer(sampler)
        play(proposer, 2)
        proposal = proposer.next()
        outcome = fakes.completed(proposal)
        proposer.tell(Outcome(**{**vars(outcome), "accuracy": accuracy}))

        assert proposer.optuna_study.trials[-1].state == TrialState.FAIL

    def test_a_rebuilt_proposer_knows_what_the_old_one_knew(self, sampler):
        old = self.proposer(sampler)
        proposals, outcomes = play(old, 20, lose=(4, 17), fail=(6,), stop=(8,))
        new = self.proposer(sampler, proposals=proposals, outcomes=outcomes)

        assert trials(new) == trials(old)
        assert new.waiting == 2
        assert [new.next(), new.next()] == [proposals[4], proposals[17]]
        assert new.next().id == 20

    def test_a_recipe_that_runs_again_is_told_once(self, sampler):
        proposals, outcomes = play(self.proposer(sampler), 9, lose=(6,))
        new = self.proposer(sampler, proposals=proposals, outcomes=outcomes)
        new.tell(fakes.completed(new.next()))
        new.tell(failed(proposals[6]))

        assert [t.state for t in new.optuna_study.trials] == [TrialState.COMPLETE] * 7

    def test_a_crash_in_the_first_recipes_keeps_the_order_of_the_others(self, sampler):
        whole = play(self.proposer(sampler), 10)[0]
        first, outcomes = play(self.proposer(sampler), 3)
        rest = play(self.proposer(sampler, proposals=first, outcomes=outcomes), 7)[0]

        assert [p.recipe.method.name for p in (*first, *rest)] == [p.recipe.method.name for p in whole]
        assert [p.recipe.target for p in (*first, *rest)] == [p.recipe.target for p in whole]

    def test_no_recipe_comes_twice(self, sampler):
        proposer = Proposer(Space.read({"method": {"choice": ["l1", "l2"]}}), sampler=Sampler(name=sampler, startup=2))
        proposals = play(proposer, 12)[0]

        assert len({proposal.recipe.key() for proposal in proposals}) == 12


def test_the_random_control_is_told_to_the_sampler_if_the_space_has_it():
    space = Space.read({"method": {"choice": ["l1", "random"]}, "target": {"flops": {"float": [0.2, 0.6]}}})
    proposer = Proposer(space)
    proposals, outcomes = play(proposer, 2)

    assert proposals[1].params == {"method": "random", "target.flops": pytest.approx(0.4)}
    assert [t.state for t in proposer.optuna_study.trials] == [TrialState.COMPLETE]
    assert trials(Proposer(space, proposals=proposals, outcomes=outcomes)) == trials(proposer)


@pytest.mark.parametrize(
    ("objectives", "values"),
    [
        (("accuracy",), [0.75]),
        (("params", "accuracy"), [0.25, 0.75]),
        (("accuracy", "flops", "activations"), [0.75, 0.5, 1]),
    ],
)
def test_objectives_are_told_in_their_order(objectives, values):
    proposer = Proposer(fakes.bound_space(), objectives=objectives)
    play(proposer, 2)
    proposal = proposer.next()
    outcome = fakes.completed(proposal, 0.75, flops_ratio=0.5, params_ratio=0.25)
    proposer.tell(Outcome(**{**vars(outcome), "activations_ratio": 1.0}))

    assert proposer.optuna_study.trials[-1].values == values


def test_a_resumed_sampler_does_not_repeat_its_first_draws():
    space, random = fakes.bound_space(), Sampler(name="random", startup=0)
    proposals, outcomes = play(Proposer(space, sampler=random), 9)
    again = play(Proposer(space, sampler=random, proposals=proposals, outcomes=outcomes), 4)[0]

    seen = {proposal.recipe.training.lr for proposal in proposals[5:]}
    assert not seen & {proposal.recipe.training.lr for proposal in again}


def test_tpe_learns():
    """The formula rewards short names and high targets; hypervolume after 80 recipes, mean of three seeds."""

    def volume(name, seed):
        outcomes = play(Proposer(fakes.bound_space(), sampler=Sampler(name=name, startup=12), seed=seed), 80)[1]
        return hypervolume([(o.flops_ratio, -o.accuracy) for o in outcomes if o.recipe.method.name != "dense"])

    assert np.mean([volume("tpe", s) for s in range(3)]) > np.mean([volume("random", s) for s in range(3)])
