"""Failures by kind, what they share, and what constraints ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from autoprune.analysis.report.failures import broken_limits, failure_kinds
from autoprune.analysis.report.settings import settings_of
from autoprune.study.outcome import BROKEN


def kinds(study: Any) -> Any:
    return failure_kinds(study, [settings_of(one.recipe) for one in study.outcomes])


def test_errors_that_differ_by_numbers_are_one_kind(make_study: Any, build: SimpleNamespace) -> None:
    errors = ["OutOfMemoryError: 3.2 GiB at 0x7f3a", "OutOfMemoryError: 17 GiB at 0xbeef\n  in conv1", "boom"]
    study = make_study([build.failed(i, error, ("l1", "l2")[i % 2]) for i, error in enumerate(errors)])

    found = [(one.kind, one.error, one.ids, one.methods) for one in kinds(study)]
    assert found == [
        ("OutOfMemoryError: … GiB at …", errors[0], (0, 1), ("l1", "l2")),
        ("boom", "boom", (2,), ("l1",)),
    ]


def test_what_failures_share(make_study: Any, build: SimpleNamespace) -> None:
    """Of 20 trials of taylor 11 fail, of 30 of l1 one: 0.55 - 1/30 is 4.2 deviations of sqrt(.24 * .76 / 12)."""
    outcomes = [build.failed(n, "no memory") for n in range(11)]
    outcomes += [build.completed(n, 0.5, 0.8, "taylor") for n in range(11, 20)]
    outcomes += [build.failed(20, "no memory", "l1")] + [build.completed(n, 0.5, 0.8) for n in range(21, 50)]
    (failure,) = kinds(make_study(outcomes))

    assert failure.common in {
        "method taylor: 11 of 20 trials, elsewhere 1 of 30",
        "taylor.images 512: 11 of 20 trials, elsewhere 1 of 30",
    }


def test_nothing_stands_out(make_study: Any, build: SimpleNamespace) -> None:
    outcomes = [build.failed(n, "lost", ("l1", "l2")[n % 2]) for n in range(6)]

    assert kinds(make_study(outcomes))[0].common == ""


def test_limits_that_were_broken(make_study: Any, build: SimpleNamespace) -> None:
    errors = ["latency_ms 7.31 > 5", "params 0.5 > 0.3", "latency_ms 5.25 > 5"]
    outcomes = [build.stopped(n, 0.5, 0.6, rungs=(), error=f"{BROKEN}{error}") for n, error in enumerate(errors)]
    latency, params = broken_limits(make_study([*outcomes, build.completed(7, 0.5, 0.8)]))

    assert (latency.name, latency.limit, latency.ids, latency.nearest, latency.share) == (
        "latency_ms", 5.0, (0, 2), 5.25, 0.5,
    )  # fmt: skip
    assert (params.name, params.ids) == ("params", (1,))
