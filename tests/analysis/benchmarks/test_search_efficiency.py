"""The benchmark of whole searches: its arithmetic and its page, by hand."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autoprune import methods
from autoprune.analysis.benchmarks import search_efficiency
from autoprune.analysis.benchmarks.search_efficiency import GLUE, Run, describe, page, read_runs, settings_of
from autoprune.study.log import append_line
from autoprune.study.space_file import load_space


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
    assert "97.0% (97.0% to 97.0%) | 611 s (611 s to 611 s) |" in ours
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


def test_a_side_with_one_method_has_it_as_the_space_has_it() -> None:
    words = settings_of("only fuzzy", "resnet20")
    alone, whole = (
        load_space("cifar10_resnet20", overrides=these, find_method=methods.find).to_plain()["space"]
        for these in (words, ())
    )

    assert alone["method"]["choice"] == {"fuzzy": alone["method"]["choice"]["fuzzy"]}
    assert alone["method"]["choice"]["fuzzy"]["rounds"] == whole["method"]["choice"]["fuzzy"]["rounds"]
    assert {**alone, "method": None} == {**whole, "method": None}
    assert settings_of("killed", "resnet20") == ()


def test_sides_that_there_are_not_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "data", "--out", "runs.jsonl", "--sides", "only magic"])
    with pytest.raises(SystemExit):
        search_efficiency.main()
    assert "only magic" in (said := capsys.readouterr().err)
    assert "only l1" in said
    assert "killed" in said


def test_a_killed_search_is_resumed_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives, commands = [], []
    monkeypatch.setattr(search_efficiency, "_kill_after", lambda life, command, _: lives.append((life, command[3])))
    monkeypatch.setattr(search_efficiency, "_run_command", lambda command, _: commands.append(command[3]))
    monkeypatch.setattr(search_efficiency, "load_study", lambda _: None)
    monkeypatch.setattr(search_efficiency, "describe", lambda _: {"busy": 0.5})

    assert search_efficiency.run_ours("killed", tmp_path, "resnet20", 10, 0) == {"busy": None}
    assert [command for _, command in lives] == ["search", "resume", "resume"]
    assert all(search_efficiency.SHORTEST <= life <= search_efficiency.LONGEST for life, _ in lives)
    assert commands == ["resume"]


def test_a_process_is_killed_and_one_that_ended_before_is_said(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    search_efficiency._kill_after(0.5, ["sh", "-c", f"sleep 1.5; touch {mark}"], {})
    time.sleep(1.5)
    assert not mark.exists()
    with pytest.raises(SystemExit, match="ended with 3"):
        search_efficiency._kill_after(5.0, ["sh", "-c", "exit 3"], {})
