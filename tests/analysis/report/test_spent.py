"""What a search cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from autoprune.analysis.report.spent import spent


def test_by_hand(make_study: Any, build: SimpleNamespace) -> None:
    """Two trials of an hour each on two workers, with half a GPU."""
    times = [("a", 0.0, 3600.0), ("b", 1800.0, 5400.0)]
    outcomes = [build.completed(i, 0.5, 0.8, worker=w, started=s, finished=f) for i, (w, s, f) in enumerate(times)]
    study = make_study(outcomes, resources={"gpus_per_trial": 0.5})

    assert spent(study, outcomes[0]) == [
        ("From start to end", "1 h 30 min"),
        ("Of 2 workers together", "2 h 0 min"),
        ("GPU-hours of the search", "1"),
        ("Training images seen", "10,000"),
        ("Until trial 0 was found", "1 h 0 min"),
    ]


def test_before_anything_ended(make_study: Any) -> None:
    assert spent(make_study([]), None) == []
