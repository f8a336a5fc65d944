"""The benchmark of whole searches: its arithmetic and its page, by hand."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autoprune.analysis.benchmarks import search_efficiency
from autoprune.analysis.benchmarks.search_efficiency import GLUE, Run, describe, page, read_runs
from autoprune.results import append_line


def made(side: str, *points: tuple[float, float, float], seed: int = 0, **rest: Any) -> Run:
    plain: dict[str, Any] = {
        "network": "resnet20",
        "minutes": 10.0,
        "wall": 611.0,
        "busy": None if side == GLUE else 0.97,
        "counts": {"completed": len(points)},
        "machine": "a machine",
        "date": "2026-11-21 10:00",
        "load": 0.3,
    }
    return Run(side=side, points=points, seed=seed, **{**plain, **rest})


def test_volumes_times_and_bests_by_hand() -> None:
    run = made("ours", (11.0, 0.5, 0.8), (23.0, 0.25, 0.4), (37.0, 0.5, 0.7))

    assert [volume for _, volume in run.curve] == pytest.approx([0.4, 0.5, 0.5])
    assert (run.volume, run.best(0.5), run.best(0.3), run.best(0.2)) == (pytest.approx(0.5), 0.8, 0.4, 0.0)
    assert (run.reaches(0.4), run.reaches(0.45), run.reaches(0.6)) == (11.0, 23.0, None)
    assert made("ours").volume == 0.0


def test_the_page_compares_runs_of_the_same_seed() -> None:
    runs = [
        made("ours", (11.0, 0.5, 0.8), (23.0, 0.25, 0.4)),
        made(GLUE, (70.0, 0.5, 0.3), (100.0, 0.5, 0.7)),
        made("ours", (13.0, 0.5, 0.6), seed=1),
        made(GLUE, (90.0, 0.5, 0.62), seed=1),
    ]
    text = page(runs)

    ours = next(line for line in text.splitlines() if line.startswith("| ours"))
    assert "| 0, 1 |" in ours
    assert "11 s, 1 never | 11% |" in ours
    assert "0.4000 (0.3000 to 0.5000)" in ours
    assert "97.0%" in ours
    assert "resnet20, 10 minutes a run" in text


def test_a_run_is_read_as_it_was_written_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made("ours", (11.0, 0.5, 0.8))
    append_line(tmp_path / "runs.jsonl", json.dumps(asdict(run)))
    assert read_runs(tmp_path / "runs.jsonl") == [run]

    monkeypatch.setattr(search_efficiency, "measure", lambda *_: pytest.fail("made again"))
    words = [
        "bench",
        "data",
        "--out",
        str(tmp_path / "runs.jsonl"),
        "--sides",
        "ours",
        "--table",
        str(tmp_path / "t.md"),
    ]
    monkeypatch.setattr(sys, "argv", words)
    search_efficiency.main()
    assert (tmp_path / "t.md").read_text() == page([run]) + "\n"
    assert (tmp_path / "search_efficiency_resnet20.svg").is_file()


def test_a_study_becomes_points_in_the_order_they_ended(make_study: Any, build: Any) -> None:
    study = make_study([build.completed(2, 0.5, 0.75), build.completed(1, 0.25, 0.5), build.stopped(7, 0.5, 0.61)])
    found = describe(study)

    assert [flops for _, flops, _ in found["points"]] == [0.25, 0.5]
    assert found["counts"] == {"completed": 2, "stopped": 1, "failed": 0}
    assert found["busy"] is not None
