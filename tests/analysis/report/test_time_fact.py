"""The sentence on what the models of a front take, from their timings at the end of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report.time_fact import ADVICE, time_fact
from autoprune.study.folder import Study
from autoprune.study.front_timings import FrontTiming, with_timings

HOW = "eager, float32, batch 1, cpu"


@pytest.fixture
def study_of(make_study: Any, build: SimpleNamespace) -> Callable[..., Study]:
    """Makes a study whose front members take (ratio, upper end) of the dense model's time, as they were timed."""

    def make(*rows: tuple[float, float], **timing: Any) -> Study:
        outcomes = [build.completed(n, 0.1 * (n + 1), 0.5 + 0.05 * n) for n in range(len(rows))]
        timings = {
            n: FrontTiming(
                **{"trial": n, "ms": 2.0, "ratio": ratio, "low": ratio / 2, "high": high, "how": HOW, **timing}
            )
            for n, (ratio, high) in enumerate(rows)
        }
        return replace(make_study(outcomes), outcomes=with_timings(outcomes, timings), timings=timings)

    return make


def test_where_all_are_faster_it_says_by_how_much_and_how_that_was_measured(study_of: Callable[..., Study]) -> None:
    assert time_fact(study_of((0.4, 0.45), (0.75, 0.8))) == (
        "Models of the front take 0.40 to 0.75 of the dense model's time (eager, float32, batch 1, cpu)."
    )


def test_a_model_that_may_take_as_long_is_a_warning_with_a_way_out(study_of: Callable[..., Study]) -> None:
    assert time_fact(study_of((0.4, 0.45), (0.97, 1.02))) == (
        "FLOPs fell and time may not have: trial 1 takes 0.97 of the dense model's time (0.48 to 1.02)"
        f" (eager, float32, batch 1, cpu). {ADVICE}"
    )


def test_three_are_named_and_the_others_counted(study_of: Callable[..., Study]) -> None:
    found = time_fact(study_of(*[(1.1, 1.2)] * 5))

    assert found.count("takes") == 3
    assert "2 other models of the front as long" in found


def test_what_could_not_be_timed_says_why_and_what_was_not_is_passed_over(study_of: Callable[..., Study]) -> None:
    failed = study_of((0.0, 0.0), error="a process beside the trials has died", how="")

    assert time_fact(failed) == "The models of the front could not be timed: a process beside the trials has died."
    assert time_fact(replace(failed, timings={})) == ""


@pytest.mark.parametrize("ratio", [1.0, 0.99])
def test_the_boundary_is_the_dense_model(study_of: Callable[..., Study], ratio: float) -> None:
    assert time_fact(study_of((0.9, ratio))).startswith("FLOPs fell" if ratio >= 1 else "Models of the front")
