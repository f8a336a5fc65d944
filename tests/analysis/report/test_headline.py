"""Whether the method of the headline's model earned it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report.headline import headline_model, verdict
from autoprune.study.folder import load_study
from autoprune.study.log import append_line

RANDOMLY = "better than removing channels at random"
NO_METHOD = "No method beat removing channels at random"


def told(study: Any) -> str:
    return verdict(study, headline_model(study)).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        # 1.96 * sqrt((0.9 * 0.1 + 0.8 * 0.2) / 5000)
        (0.80, f"It is 10.0 points {RANDOMLY}, which is more than noise: trainings differ by up to 1.4"),
        (0.895, f"{NO_METHOD} by more than noise: it is 0.5 points better, and trainings differ by up to 1.2"),
        (0.91, None),
    ],
)
def test_beside_random(make_study: Any, build: SimpleNamespace, random: float, expected: str | None) -> None:
    found = told(make_study([build.completed(3, 0.45, 0.9), build.completed(5, 0.49, random, "random")]))

    if expected is None:
        assert found == "Trial 5 found it by removing channels at random: no method did better."
    else:
        assert found == f"Trial 3 found it, by the method l1. {expected} points through chance."


def test_without_random(make_study: Any, build: SimpleNamespace) -> None:
    assert told(make_study([build.completed(3, 0.45, 0.9)])).endswith(
        "Nothing was pruned at random at a like cost, so what the method adds is not known."
    )


def test_noise_that_is_not_known_is_said(make_study: Any, build: SimpleNamespace) -> None:
    outcomes = [build.completed(3, 0.45, 0.9), build.completed(5, 0.49, 0.8, "random")]
    dense = {"accuracy": 0.917, "flops": 7, "params": 7, "activations": 7}

    assert told(make_study(outcomes, dense=dense)).endswith("how much of that is noise is not known.")


def test_a_smaller_metric_may_be_the_better_one(tmp_path: Path) -> None:
    """Trial 7 has 2.1 at 40 %, random pruning 2.9 there: it is better, though below."""
    folder = rmse_study.write(tmp_path / "trees")
    append_line(folder.outcomes, rmse_study.line(19, 2.9, 0.45, "random"))

    assert told(load_study(folder.path)) == (
        "Trial 7 found it, by the method taylor. It is 0.8 cm better than removing channels at random; how much of "
        "that is noise is not known."
    )


def test_nothing_to_judge(make_study: Any, build: SimpleNamespace) -> None:
    assert told(make_study([build.failed(3, "boom")])) == ""
