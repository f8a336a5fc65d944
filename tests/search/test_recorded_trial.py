"""Studies of earlier versions are run again in the runtime that they recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import autoprune as ap
from autoprune.errors import InputError
from autoprune.search.recorded_trial import _recorded_runtime
from autoprune.study.folder import Study

STUDY = Path(__file__).parents[1] / "data" / "study"


@pytest.fixture
def study() -> Study:
    return ap.load_study(STUDY).study


def test_a_runtime_that_could_compile_is_read(study: Study) -> None:
    recorded = yaml.safe_load((STUDY / "study.yaml").read_text())["runtime"]
    found = _recorded_runtime(study)

    assert "compile" in recorded
    assert (found.precision, found.threads, found.graphs) == (recorded["precision"], recorded["threads"], False)


def test_other_keys_that_it_does_not_know_are_refused(study: Study) -> None:
    study.config["runtime"] = {**study.config["runtime"], "precison": "fp32"}

    with pytest.raises(InputError, match="precison"):
        _recorded_runtime(study)
