"""The command for a machine with a GPU runs on a CPU too: every section has its rows, and the page its tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.analysis.benchmarks import gpu
from autoprune.analysis.benchmarks.search_efficiency_runs import ITERATIVE, Plan, Run
from tests.helpers.efficiency_runs import made


@pytest.mark.slow
def test_every_section_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--out", str(tmp_path)])
    gpu.main()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    of = {section: [row for row in rows if row["section"] == section] for section in gpu.SECTIONS}

    assert [row["processes"] for row in of["together"]] == 4 * [2]
    assert {row["trainings"] for row in of["sharing"]} == {1}
    assert all(row["images/s"] > 0 for section in ("speed", "together") for row in of[section])
    assert {row["graphs"] for row in of["speed"]} == {False, True}
    assert [row["loss"] == row["as graphs"] for row in of["agreement"]] == [True] * 2
    assert [row["kept alike"] for row in of["agreement"]] == [None, 1.0]
    assert of["deployed"][0]["dense, ms"] > 0
    assert (tmp_path / "gpu.md").read_text().count("\n## ") == len(gpu.SECTIONS) - 1
    assert "files were not given: search." in (tmp_path / "gpu.md").read_text()


def test_what_the_time_is_over_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"speed": lambda _: iter([{"images/s": 7}]), "deployed": lambda _: 1 / 0})
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--device", "cpu", "--out", str(tmp_path), "--minutes", "0", "--sections", "speed"]
    )
    gpu.main()

    assert "files were not given: speed." in (tmp_path / "gpu.md").read_text()


def test_the_search_is_set_beside_the_loop_of_another_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def measured(plan: Plan) -> Run:
        plans.append(plan)
        return made(plan.side, (11.0, 0.5, 0.8 if plan.side == "ours" else 0.7))

    monkeypatch.setattr(gpu, "measure", measured)
    plan = Plan(side="ours", network="resnet20", minutes=4.0, seed=0, data=Path("data"), device="cuda")
    rows = list(gpu.search(replace(gpu.Setting.of("cpu"), rivals=plan)))

    assert [(each.side, each.device, each.minutes) for each in plans] == [
        ("ours", "cuda", 4.0),
        (ITERATIVE, "cuda", 4.0),
    ]
    assert [row["hypervolume"] for row in rows] == [0.4, 0.35]
