"""The studies that reports are timed with, and the page of the numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from autoprune.analysis.benchmarks import report_speed
from autoprune.analysis.benchmarks.report_studies import write_study
from autoprune.study.folder import load_study


def test_a_study_has_every_kind_of_trial(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", 211)

    assert len(study.outcomes) == len(study.proposals) == 211
    assert set(Counter(one.status for one in study.outcomes)) == {"completed", "stopped", "failed"}
    assert {one.recipe.method.name for one in study.outcomes} >= {"dense", "random", "l1", "hinge", "fuzzy"}
    assert sum(one.recipe.parent is not None for one in study.outcomes) > 50
    assert len(study.front) > 8
    assert {run.member for run in study.finalists} >= {0, study.front[0].id}
    assert load_study(tmp_path / "study").outcomes == study.outcomes


def test_the_same_seed_gives_the_same_study(tmp_path: Path) -> None:
    one, other, another = (write_study(tmp_path / name, 37, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 7)))

    assert one.outcomes == other.outcomes
    assert one.outcomes != another.outcomes


def test_a_row_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_speed, "CHROMIUM", None)
    row = report_speed.measure(41, 1, tmp_path)

    assert 0.5 < row.megabytes < 1.5
    assert 0 < row.write_cpu
    (told,) = [line for line in report_speed.page([row]).splitlines() if line.startswith("| 41 ")]
    assert told.count("|") == 8
