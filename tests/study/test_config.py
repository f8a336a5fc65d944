"""The configuration of a study survives its file, and says whether models are timed."""

import dataclasses

import pytest

from autoprune.study.config import StudyConfig
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
