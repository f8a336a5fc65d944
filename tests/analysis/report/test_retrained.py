"""Finalists in the place of the members they train again."""

from __future__ import annotations

from pathlib import Path

import pytest
import rmse_study

from autoprune.analysis.report.retrained import with_finalists
from autoprune.study.folder import load_study


def test_members_have_the_means_over_seeds(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees", finalists=True).path)
    shown = {one.id: one for one in with_finalists(study).outcomes}

    # 7 had 2.1, and 1.9 and 1.7 when it was trained again; 11 with its 1.4 was not, and the control was.
    assert shown[7].metric == pytest.approx(1.8)
    assert shown[11] == next(one for one in study.outcomes if one.id == 11)
    assert shown[0].metric == pytest.approx(1.2)
    assert shown[7].rungs == next(one for one in study.outcomes if one.id == 7).rungs
    assert [one.id for one in with_finalists(study).front] == [3, 7, 11]


def test_without_finalists_it_is_the_same(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees").path)

    assert with_finalists(study) is study
