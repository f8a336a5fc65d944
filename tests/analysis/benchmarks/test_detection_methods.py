"""The comparison of methods on a detector: rows are kept, what is there is not run again, and the table is theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scene_folders import write_voc_boxes

from autoprune.analysis.benchmarks import detection_methods
from autoprune.analysis.benchmarks.detection_methods import Settings, main, missing, page, read_rows

SETTINGS = Settings(folder="x", flops=0.5, dense=8, images=8, splits={}, network={})


def row(method: str, seed: int, test: float, settings: Settings = SETTINGS) -> dict[str, object]:
    numbers = {"flops_ratio": 0.5, "after_cut": 0.1, "validation": 0.3, "test": test, "seconds": 7.0}
    return {"settings": settings.key(), "method": method, "seed": seed, "machine": "a machine", **numbers}


def test_what_stands_in_the_rows_is_not_missing() -> None:
    other = Settings(folder="x", flops=0.25, dense=8, images=8, splits={}, network={})
    rows = [row("l1", 0, 0.3), row("taylor", 1, 0.3), row("taylor", 0, 0.3, other)]

    assert missing(rows, SETTINGS, ["l1", "taylor"], [0, 1]) == [("taylor", 0), ("l1", 1)]


def test_where_the_data_lie_decides_nothing() -> None:
    moved = Settings(folder="y", flops=0.5, dense=8, images=8, splits={}, network={})

    assert SETTINGS.key() == moved.key()


def test_the_table_has_means_over_seeds() -> None:
    text = page([row("l1", 0, 0.20), row("l1", 1, 0.24), row("taylor", 0, 0.5)], SETTINGS)

    assert "| l1 | 2 | 50.0% | 10.00 ± 0.00 | 30.00 ± 0.00 | 22.00 ± 2.83 | 7 ± 0 |" in text
    assert "| taylor | 1 | 50.0% | 10.00 | 30.00 | 50.00 | 7 |" in text
    assert "a machine" in text


def test_two_images_are_enough_to_run_and_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {name: ["cat 1 1 9 6", "dog 2 3 2 3"] for name in "abcd"}
    write_voc_boxes(tmp_path / "data", {"train": ["a", "b"], "val": ["c"], "test": ["d"]}, objects)
    network = {"widths": [7, 11], "pyramid": 13, "depth": 1, "anchors": [4, 8]}
    argv = [str(tmp_path / "data"), "--rows", str(tmp_path / "rows.jsonl"), "--table", str(tmp_path / "table.md")]
    argv += ["--dense", "2", "--images", "2", "--flops", "0.7", "--seeds", "3", "--network", json.dumps(network)]

    main([*argv, "--methods", "l1"])
    monkeypatch.setattr(detection_methods, "load_task", lambda _: pytest.fail("there is nothing left to run"))
    main([*argv, "--methods", "l1"])

    (only,) = read_rows(tmp_path / "rows.jsonl")
    assert (only["method"], only["seed"]) == ("l1", 3)
    assert 0.55 < only["flops_ratio"] <= 0.71
    assert 0 <= only["test"] <= 1
    assert "| l1 | 1 |" in (tmp_path / "table.md").read_text()
