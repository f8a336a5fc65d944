"""Who wins in a band of costs, and by more than noise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report.contest import bands, lead_over_random
from autoprune.study.folder import load_study


def test_a_band_by_hand(make_study: Any, build: SimpleNamespace) -> None:
    numbers = [(3, 0.41, 0.90, "l1"), (5, 0.45, 0.89, "fpgm"), (7, 0.5, 0.80, "random"), (11, 0.49, 0.7, "fpgm")]
    study = make_study([build.completed(*numbers_of) for numbers_of in numbers])
    (band,) = bands(study)

    assert (band.low, band.high, band.best.id) == (0.4, 0.5, 3)
    assert band.counts == {"l1": 1, "fpgm": 2, "random": 1}
    assert band.over_next is not None
    assert band.over_random is not None
    # 1.96 * sqrt((0.9 * 0.1 + 0.89 * 0.11) / 5000) is 0.0120, more than the point between them.
    assert (band.over_next.ahead, band.over_next.noise) == (pytest.approx(0.01), pytest.approx(0.0120, abs=1e-4))
    assert not band.over_next.certain
    assert band.equals == ("fpgm",)
    assert (band.over_random.ahead, band.over_random.certain) == (pytest.approx(0.1), True)


def test_without_others(make_study: Any, build: SimpleNamespace) -> None:
    (band,) = bands(make_study([build.completed(3, 0.41, 0.9), build.completed(4, 0.95, 0.9, "random")]))

    assert (band.over_next, band.over_random, band.equals) == (None, None, ())


def test_random_counts_only_at_a_like_cost(make_study: Any, build: SimpleNamespace) -> None:
    """39 % of the cost is too cheap to be compared with 50 %, and 52 % costs too much."""
    outcomes = [build.completed(3, 0.49, 0.9)]
    outcomes += [build.completed(n, flops, 0.8, "random") for n, flops in ((5, 0.39), (7, 0.52))]
    study = make_study(outcomes)
    assert lead_over_random(study, study.outcomes[0], 0.5) is None


def test_a_metric_to_minimise(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees").path)
    found = {band.high: (band.best.id, band.over_next) for band in bands(study)}

    assert found == {0.2: (3, None), 0.4: (7, None), 0.5: (5, None), 0.7: (11, None)}
