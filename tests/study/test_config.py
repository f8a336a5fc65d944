"""The configuration of a study survives its file, and says whether models are timed."""

import dataclasses

import pytest

from autoprune.errors import InputError
from autoprune.study.config import Budget, Goal, Resources, StudyConfig
from autoprune.study.constraints import Constraints, Latency

TIMED = """
task: {}
space: {method: l1, target: {flops: {float: [0.2, 0.8]}}}
objectives: [accuracy, latency, params]
constraints: {latency_ms: 5, activations: 0.75}
latency: {batch: 7}
"""


def test_objectives_and_constraints_round_trip():
    config = StudyConfig.from_yaml(TIMED)

    assert config.objectives == ("accuracy", "latency", "params")
    assert config.constraints == Constraints(latency_ms=5.0, activations=0.75)
    assert config.timed == Latency(batch=7)
    assert StudyConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("objectives", "limits", "timed"),
    [
        (("accuracy", "flops"), {}, False),
        (("accuracy", "flops"), {"params": 0.5}, False),
        (("accuracy", "flops"), {"latency": 0.5}, True),
        (("accuracy", "flops"), {"latency_ms": 5.0}, True),
        (("accuracy", "latency"), {}, True),
    ],
)
def test_models_are_timed_only_where_somebody_wants_to_know(objectives, limits, timed):
    config = dataclasses.replace(StudyConfig.from_yaml(TIMED), objectives=objectives, constraints=Constraints(**limits))

    assert (config.timed is not None) == timed


def test_a_tracker_by_its_name_alone_has_no_options():
    plain = StudyConfig.from_yaml(TIMED).to_plain()
    given = StudyConfig.from_plain({**plain, "trackers": ["wandb", {"name": "mlflow", "uri": "there"}]})

    assert plain["trackers"] == []
    assert given.trackers == ({"name": "wandb"}, {"name": "mlflow", "uri": "there"})
    assert StudyConfig.from_yaml(given.to_yaml()) == given


@pytest.mark.parametrize("trackers", ["wandb", {"mlflow": {}}, [7]])
def test_trackers_are_a_list_of_names_and_mappings(trackers):
    with pytest.raises(InputError, match=r"s\.yaml: trackers"):
        StudyConfig.from_plain({**StudyConfig.from_yaml(TIMED).to_plain(), "trackers": trackers}, "s.yaml")


@pytest.mark.parametrize(
    ("given", "processes", "cpus", "gpus"),
    [
        ({}, 1, 1, 0.0),
        ({"gpus_per_trial": 0.5}, 1, 1, 0.5),
        ({"gpus_per_trial": "auto"}, 1, 1, 1.0),
        ({"gpus_per_trial": 4, "cpus_per_trial": 10}, 4, 2, 1.0),
        ({"gpus_per_trial": 1, "processes_per_trial": 2}, 2, 1, 0.5),
        ({"processes_per_trial": 3, "cpus_per_trial": 7}, 3, 2, 0.0),
    ],
)
def test_what_each_process_of_a_trial_gets(given, processes, cpus, gpus):
    resources = Resources(**given)
    assert (resources.processes, resources.cpus_per_process, resources.gpus_per_process) == (processes, cpus, gpus)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"gpus_per_trial": 1.5}, "1.5 GPUs cannot be shared out; allowed: 1, 2, or a part of one GPU"),
        ({"gpus_per_trial": 2, "processes_per_trial": 1}, "processes_per_trial: 1 would use 1 of 2 GPUs"),
        ({"gpus_per_trial": 3, "processes_per_trial": 2}, "processes_per_trial: 2 would use 2 of 3 GPUs"),
        ({"gpus_per_trial": "auto", "processes_per_trial": 2}, "auto beside processes_per_trial: 2"),
    ],
)
def test_gpus_that_no_process_would_use_are_refused(given, error):
    with pytest.raises(InputError, match=f"resources.gpus_per_trial: {error}"):
        Resources(**given)


@pytest.mark.parametrize("given", [{}, {"gpus_per_trial": 1}, {"gpus_per_trial": 2, "processes_per_trial": 2}])
def test_a_service_for_shared_gpus_is_refused_where_none_is_shared(given):
    with pytest.raises(InputError, match=r"resources\.mps: nothing shares a GPU: gpus_per_trial is"):
        Resources(mps=True, **given)
    assert Resources(mps=True, gpus_per_trial=0.5).mps
    assert Resources(mps=True, gpus_per_trial="auto").mps


@pytest.mark.parametrize("until", [None, "hypervolume", {"within": 1, "share": 0.5}])
def test_the_end_of_a_search_round_trips(until):
    plain = {**StudyConfig.from_yaml(TIMED).to_plain(), "budget": {"trials": 7, "until": until}}
    config = StudyConfig.from_plain(plain)

    assert config.budget.goal == (Goal(within=1.0, share=0.5) if isinstance(until, dict) else None)
    assert StudyConfig.from_yaml(config.to_yaml()) == config


def test_a_goal_alone_ends_no_search():
    assert Budget(until={"within": 1}).endless
    assert not Budget(until="hypervolume").endless
    assert not Budget(until={"within": 1}, minutes=3.0).endless
