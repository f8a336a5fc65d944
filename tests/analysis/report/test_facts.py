"""What study.yaml has to say of the dense model and its groups, and what is taken from outcomes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report import facts
from autoprune.errors import InputError
from autoprune.study.folder import Study


class TestStudyYaml:
    def test_more_than_is_needed_may_be_there(self, study: Study) -> None:
        assert "images" in study.config["dense"]
        assert facts.dense_model(study).metric == 0.917
        assert [group.frozen is None for group in facts.groups(study)] == [True] * 4 + [False]

    @pytest.mark.parametrize("entries", [{"dense": {"accuracy": 0.9}}, {"dense": None}])
    def test_dense_is_incomplete(self, make_study: Any, entries: dict[str, Any]) -> None:
        with pytest.raises(
            InputError, match=r"study.yaml: dense: expected accuracy, flops, params, activations, found"
        ):
            facts.dense_model(make_study([], **entries))

    def test_groups_are_missing(self, make_study: Any) -> None:
        with pytest.raises(InputError, match=r"study.yaml: missing key 'groups'"):
            facts.groups(make_study([], groups=None))

    def test_a_group_is_incomplete(self, make_study: Any) -> None:
        with pytest.raises(InputError, match=r"groups\[0\]: expected id, size, stage, frozen, found \{'id': 'conv1'\}"):
            facts.groups(make_study([], groups=[{"id": "conv1"}]))


def test_a_group_that_was_not_cut_is_kept_whole(study: Study, build: SimpleNamespace) -> None:
    outcome = build.completed(7, 0.5, 0.8, widths={"conv1": 13})

    assert facts.kept_channels(outcome, facts.prunable_groups(study)) == [13, 19, 31, 67]


def test_the_main_cost_is_the_first_objective_beside_accuracy(make_study: Any, build: SimpleNamespace) -> None:
    study = make_study([build.completed(7, 0.5, 0.8)], objectives=["params", "accuracy", "flops"])

    assert facts.main_cost(study) == "params"
    assert facts.cost_ratio(study, study.outcomes[0]) == 0.45


def test_the_last_accuracy_of_a_stopped_trial_is_that_of_its_last_rung(build: SimpleNamespace) -> None:
    ended = (build.completed(7, 0.5, 0.8), build.stopped(8, 0.5, 0.61), build.failed(9, "boom"))

    assert [facts.last_metric(outcome) for outcome in ended] == [0.8, 0.61, None]
