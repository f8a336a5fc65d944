"""What chance does to a metric."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report.noise import Noise, noise_of
from autoprune.study.folder import load_study


def test_the_interval_of_a_share() -> None:
    # Wilson: (0.9 + 1.96^2 / 600) / (1 + 1.96^2 / 300) = 0.894942; half: sqrt(1.96^2 * 0.09 / 300 + 1.96^4 / 360000)
    # / (1 + 1.96^2 / 300) = 0.034113.
    assert Noise(images=300, seeds=None).interval(0.9) == pytest.approx((0.860829, 0.929055), abs=1e-5)


@pytest.mark.parametrize(("value", "place", "end"), [(0.0, 0, 0.0), (1.0, 1, 1.0)])
def test_the_interval_ends_where_shares_do(value: float, place: int, end: float) -> None:
    ends = Noise(images=7, seeds=None).interval(value)

    assert ends is not None
    assert ends[place] == pytest.approx(end)
    assert ends[0] <= value <= ends[1]


def test_a_difference() -> None:
    # 1.96 * sqrt((0.09 + 0.16) / 100 + 2 * 0.01^2)
    assert Noise(images=100, seeds=0.01).of_difference(0.9, 0.8) == pytest.approx(1.96 * (0.0025 + 0.0002) ** 0.5)
    assert Noise(images=None, seeds=0.01).of_difference(2.0, 3.0) == pytest.approx(1.96 * 0.0002**0.5)
    assert Noise(images=None, seeds=None).of_difference(2.0, 3.0) is None


def test_of_a_study(make_study: Any, build: SimpleNamespace, tmp_path: Path) -> None:
    study = make_study([build.completed(1, 0.5, 0.8)])

    assert noise_of(study) == Noise(images=5000, seeds=None)
    assert noise_of(replace(study, config={**study.config, "dense": {"accuracy": 0.9}})).images is None
    # Of rmse no number of images tells anything; its finalists have 1.9 and 1.7, and 1.1 and 1.3: both deviate by
    # 0.2 / sqrt(2).
    trees = load_study(rmse_study.write(tmp_path / "trees", finalists=True).path)
    found = noise_of(trees)
    assert (found.images, found.seeds) == (None, pytest.approx(0.1414, abs=1e-4))
    assert found.interval(1.4) is None
