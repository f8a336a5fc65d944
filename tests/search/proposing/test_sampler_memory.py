"""What a sampler remembers: the best and the latest trials, those under way, and the same after a resumption."""

import fakes
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from autoprune.search.proposing import sampler_memory
from autoprune.search.proposing.proposer import Proposer
from autoprune.search.proposing.sampler_memory import condensed
from autoprune.study.config import Sampler

KINDS = {"x": FloatDistribution(0.0, 1.0)}


def study_of(values, *, running=(), failed=(), directions=("maximize", "minimize")):
    """A trial for each pair of values; those named are under way or failed."""
    study = optuna.create_study(directions=list(directions))
    for number, pair in enumerate(values):
        state = TrialState.COMPLETE
        if number in (*running, *failed):
            state = TrialState.RUNNING if number in running else TrialState.FAIL
        told = {"values": list(pair)} if state == TrialState.COMPLETE else {}
        params = {"x": number / len(values)}
        study.add_trial(create_trial(state=state, params=params, distributions=KINDS, **told))
    return study


def known(study):
    return [trial.values for trial in study.get_trials(deepcopy=False)]


@pytest.fixture
def remembers_ten(monkeypatch):
    monkeypatch.setattr(sampler_memory, "REMEMBERED", {"tpe": 10})


@pytest.mark.usefixtures("remembers_ten")
class TestCondensed:
    def test_ten_ended_trials_are_all_remembered_and_other_samplers_remember_any_number(self):
        assert condensed(study_of([(0.5, 0.5)] * 11, running=(3,)), "tpe") is None
        assert condensed(study_of([(0.5, 0.5)] * 11), "nsga2") is None

    def test_the_best_two_and_the_latest_four_stay_in_their_order(self):
        # By accuracy up and cost down: the third and the fifth dominate all others, which are alike.
        values = [(0.5, 0.5)] * 13
        values[2], values[4] = (0.9, 0.4), (0.7, 0.2)
        study, numbers = condensed(study_of(values), "tpe")

        assert known(study) == [[0.9, 0.4], [0.7, 0.2], *[[0.5, 0.5]] * 4]
        assert [trial.params["x"] for trial in study.trials[2:]] == [9 / 13, 10 / 13, 11 / 13, 12 / 13]
        assert numbers == {}

    def test_trials_under_way_stay_and_can_be_told_by_their_new_numbers_while_failed_ones_go(self):
        study, numbers = condensed(study_of([(0.5, 0.5)] * 15, running=(1, 14), failed=(0, 2)), "tpe")

        assert list(numbers) == [1, 14]
        assert all(trial.state != TrialState.FAIL for trial in study.trials)
        study.tell(numbers[14], [0.25, 0.75])
        assert study.trials[numbers[14]].values == [0.25, 0.75]
        assert study.trials[numbers[1]].state == TrialState.RUNNING

    def test_a_study_of_stopped_trials_keeps_the_latest(self):
        study = optuna.create_study(directions=["maximize"])
        for number in range(11):
            study.add_trial(create_trial(state=TrialState.PRUNED, params={"x": number / 11}, distributions=KINDS))
        shorter, _ = condensed(study, "tpe")

        assert [trial.params["x"] for trial in shorter.trials] == [number / 11 for number in (7, 8, 9, 10)]


@pytest.mark.usefixtures("remembers_ten")
def test_a_search_that_forgets_is_resumed_as_it_would_have_gone_on():
    def proposer(**logs):
        return Proposer(fakes.bound_space(), sampler=Sampler(name="tpe", startup=3), seed=3, **logs)

    whole, proposals, outcomes = proposer(), [], []
    for moment in range(40):
        proposals.append(whole.next(now=float(moment)))
        outcomes.append(fakes.completed(proposals[-1], finished=float(moment)))
        whole.tell(outcomes[-1])
    resumed = proposer(proposals=proposals[:33], outcomes=outcomes[:33])

    assert len(whole.optuna_study.trials) <= 11
    for moment in range(33, 40):
        proposal = resumed.next(now=float(moment))
        assert proposal == proposals[moment]
        resumed.tell(outcomes[moment])
