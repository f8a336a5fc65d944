"""The command for a machine with a GPU runs on a CPU too: every section has its rows, and the page its tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autoprune.analysis.benchmarks import gpu


@pytest.mark.slow
def test_every_section_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--out", str(tmp_path)])
    gpu.main()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    of = {section: [row for row in rows if row["section"] == section] for section in gpu.SECTIONS}

    assert [row["processes"] for row in of["together"]] == [1, 2, 1, 2]
    assert all(row["images/s"] > 0 for section in ("speed", "together") for row in of[section])
    assert {row["graphs"] for row in of["speed"]} == {False, True}
    assert [row["loss"] == row["as graphs"] for row in of["agreement"]] == [True] * 2
    assert [row["kept alike"] for row in of["agreement"]] == [None, 1.0]
    assert of["deployed"][0]["dense, ms"] > 0
    assert (tmp_path / "gpu.md").read_text().count("\n## ") == len(gpu.SECTIONS)


def test_what_the_time_is_over_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"speed": lambda _: iter([{"images/s": 7}]), "deployed": lambda _: 1 / 0})
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--device", "cpu", "--out", str(tmp_path), "--minutes", "0", "--sections", "speed"]
    )
    gpu.main()

    assert "Left out, as the time was over: speed." in (tmp_path / "gpu.md").read_text()
