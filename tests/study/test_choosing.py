"""Which member is handed over: within limits or at the knee, with finalists in place of their searched selves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from commands import OUTCOMES, write_finished, write_study

from autoprune.errors import InputError
from autoprune.study import choosing
from autoprune.study.folder import load_study


def test_finalists_stand_in_place_of_what_the_search_had_found(tmp_path: Path) -> None:
    study = load_study(write_finished(tmp_path / "study"))

    found = {member.id: (member.metric, member.test_metric) for member in choosing.members(study)}
    searched = {member.id: member.metric for member in choosing.members(study, searched=True)}

    assert found == {3: (0.71, None), 5: (0.94, 0.90), 7: (0.95, None)}
    assert searched == {3: 0.71, 5: 0.89, 7: 0.95}


def test_what_loses_at_most_so_many_points(tmp_path: Path) -> None:
    """The dense model has 0.97; 0.97 - 0.08 is 0.89 but for rounding."""
    study = load_study(write_study(tmp_path / "study", OUTCOMES))
    picked = {
        points: choosing.choose(study, {"metric": choosing.metric_within(study, points)}).id for points in (2, 8, 26)
    }

    assert picked == {2: 7, 8: 5, 26: 3}


def test_a_study_that_does_not_know_its_dense_model(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "study", OUTCOMES))
    config = yaml.safe_load(study.folder.config.read_text())
    study.folder.config.write_text(yaml.safe_dump({**config, "dense": None}))

    with pytest.raises(InputError, match=r"does not know the accuracy of its dense model; allowed: limits in"):
        choosing.metric_within(load_study(study.folder.path), 1)
