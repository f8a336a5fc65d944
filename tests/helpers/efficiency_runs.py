"""Runs of the benchmark of whole searches, made by hand."""

from __future__ import annotations

from typing import Any

from autoprune.analysis.benchmarks.search_efficiency_runs import OPPONENTS, Run


def made(side: str, *points: tuple[float, float, float], seed: int = 0, **rest: Any) -> Run:
    """A run of ten minutes that found these points; `rest` replaces fields."""
    plain: dict[str, Any] = {
        "network": "resnet20",
        "minutes": 10.0,
        "wall": 611.0,
        "busy": None if side in OPPONENTS else 0.97,
        "counts": {"completed": len(points)},
        "machine": "a machine",
        "date": "2026-11-21 10:00",
        "load": 0.3,
    }
    return Run(side=side, points=points, seed=seed, **{**plain, **rest})
