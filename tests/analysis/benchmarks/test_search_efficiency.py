"""The benchmark of whole searches: its page by hand, and its command."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autoprune.analysis.benchmarks import search_efficiency
from autoprune.analysis.benchmarks.search_efficiency import page
from autoprune.analysis.benchmarks.search_efficiency_runs import EXPERT, GLUE, ITERATIVE, PLAIN_CHAIN, Plan, Run
from autoprune.study.log import append_line, read_lines
from tests.helpers.efficiency_runs import made


def tables(runs: list[Run]) -> list[dict[str, dict[str, str]]]:
    """The tables of a page: first cell -> column -> cell."""
    found: list[dict[str, dict[str, str]]] = []
    heads: list[str] = []
    for line in page(runs).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            heads = []
        elif not heads:
            heads = cells
            found.append({})
        elif not cells[0].startswith("---"):
            found[-1][cells[0]] = dict(zip(heads, cells, strict=True))
    return found


RUNS = [
    made("ours", (11.0, 0.5, 0.8), (23.0, 0.25, 0.4), unseen=((0.25, 0.3), (0.5, 0.7))),
    made(ITERATIVE, (70.0, 0.5, 0.3), (100.0, 0.5, 0.7), settings={"cuts": 7}),
    made(EXPERT, (80.0, 0.5, 0.2)),
    made(GLUE, (80.0, 0.5, 0.1)),
    made("ours", (13.0, 0.5, 0.6), seed=1, unseen=((0.5, 0.5),)),
    made(ITERATIVE, (90.0, 0.5, 0.62), seed=1, settings={"cuts": 7}),
]


def test_fronts_by_hand() -> None:
    fronts, _, _ = tables(RUNS)
    ours = fronts["ours"]

    assert ours["seeds"] == "0, 1"
    # 0.4 * 0.25 + 0.8 * 0.5, and 0.6 * 0.5; over 0.9 of the costs
    assert ours["hypervolume"] == "0.4000 (0.3000 to 0.5000)"
    assert ours["mean height"] == f"{0.4 / 0.9:.4f} ({0.3 / 0.9:.4f} to {0.5 / 0.9:.4f})"
    assert ours["at <= 30% FLOPs"] == "40.00 %"
    assert ours["unseen hypervolume"] == "0.3375 (0.2500 to 0.4250)"
    assert ours["unseen height"] == f"{0.3375 / 0.9:.4f} ({0.25 / 0.9:.4f} to {0.425 / 0.9:.4f})"
    assert fronts["iterative, cuts 7"]["unseen hypervolume"] == ""
    assert fronts["expert"]["at <= 30% FLOPs"] == "none"


def test_times_are_compared_with_the_strong_opponents_of_the_same_seed() -> None:
    _, times, _ = tables(RUNS)
    ours = times["ours"]

    assert list(ours)[1:5] == ["reached iterative", "of iterative's time", "reached expert", "of expert's time"]
    # 11 of 600 s; 0.31 with seed 1 is never reached; of expert there is one seed
    assert (ours["reached iterative"], ours["of iterative's time"]) == ("11 s, 1 never", "2%")
    assert (ours["reached expert"], ours["of expert's time"]) == ("11 s", "2%")
    assert times["expert"]["reached iterative"] == "1 never"
    assert (ours["busy"], ours["command"]) == ("97.0% (97.0% to 97.0%)", "611 s (611 s to 611 s)")


def test_the_strongest_opponent_is_among_those_that_times_are_compared_with() -> None:
    _, times, _ = tables([*RUNS, made(PLAIN_CHAIN, (230.0, 0.5, 0.75), settings={"factor": 0.87})])

    assert list(times["ours"])[1:6:2] == ["reached plain chain", "reached iterative", "reached expert"]
    _, times, _ = tables([made("ours", (11.0, 0.5, 0.8)), made(GLUE, (70.0, 0.5, 0.3))])
    assert list(times["ours"])[1] == f"reached {GLUE}"


def test_ours_is_set_beside_every_opponent_the_strongest_first() -> None:
    _, _, opponents = tables(RUNS)

    assert list(opponents) == [ITERATIVE, EXPERT, GLUE]
    iterative = opponents[ITERATIVE]
    assert iterative["seeds"] == "2"
    # 0.5 - 0.35 and 0.3 - 0.31
    assert iterative["hypervolume"] == "+0.0700 (-0.0100 to +0.1500)"
    assert iterative["mean height"] == f"+{0.07 / 0.9:.4f} (-{0.01 / 0.9:.4f} to +{0.15 / 0.9:.4f})"
    assert opponents[GLUE]["hypervolume"] == "+0.4500"
    assert page(RUNS).count("1 of 2") == 2
    assert "resnet20, 10 minutes a run" in page(RUNS)


def test_ours_is_set_beside_itself_with_parts_left_out_after_all_opponents() -> None:
    parts = [made("random sampler", (11.0, 0.5, 0.4)), made("only l1", (11.0, 0.5, 0.6))]
    _, _, others = tables([*parts, *RUNS])

    assert list(others) == [ITERATIVE, EXPERT, GLUE, "only l1", "random sampler"]
    assert others["only l1"]["hypervolume"] == "+0.2000"  # 0.5 of seed 0, and 0.3


def test_where_ours_was_not_run_whole_nothing_is_set_beside_it() -> None:
    assert len(tables([made("one length", (11.0, 0.5, 0.4)), made(ITERATIVE, (70.0, 0.5, 0.3))])) == 2


def test_runs_of_other_settings_have_a_row_of_their_own() -> None:
    fronts, _, _ = tables([*RUNS, made(ITERATIVE, (70.0, 0.5, 0.9), settings={"cuts": 15})])

    assert [name for name in fronts if name.startswith(ITERATIVE)] == ["iterative, cuts 7", "iterative, cuts 15"]


def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> None:
    monkeypatch.setenv("AUTOPRUNE_DATA", "the one of before, which the command sets")
    monkeypatch.setattr(sys, "argv", ["bench", "data", "--out", str(tmp_path / "runs.jsonl"), *words])
    search_efficiency.main()
    assert os.environ["AUTOPRUNE_DATA"] == "data"


def test_what_is_missing_is_run_and_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def measured(plan: Plan) -> Run:
        plans.append(plan)
        return made(plan.side, (11.0, 0.5, 0.8), seed=plan.seed, settings=plan.settings)

    monkeypatch.setattr(search_efficiency, "measure", measured)
    append_line(tmp_path / "runs.jsonl", json.dumps(asdict(made("ours", (11.0, 0.5, 0.8)))))
    words = ["--sides", "ours", ITERATIVE, PLAIN_CHAIN, "--seeds", "0", "1", "--table", str(tmp_path / "t.md")]
    words += ["--baselines", "rivals", "--cuts", "5", "--factor", "0.75", "--images", "1700"]
    command(monkeypatch, tmp_path, *words)
    made_now = [(plan.side, plan.seed) for plan in plans]
    command(monkeypatch, tmp_path, *words)

    assert made_now == [(ITERATIVE, 0), (PLAIN_CHAIN, 0), ("ours", 1), (ITERATIVE, 1), (PLAIN_CHAIN, 1)]
    assert [(plan.side, plan.seed) for plan in plans] == made_now  # nothing was made again
    assert plans[0].settings == {"cuts": 5}
    assert plans[1].settings == {"factor": 0.75, "images": 1700}
    assert (plans[0].baselines, plans[0].minutes) == (Path("rivals"), 10.0)
    assert len(list(read_lines(tmp_path / "runs.jsonl"))) == 6
    assert "| iterative, cuts 5 | 0, 1 |" in (tmp_path / "t.md").read_text()
    assert (tmp_path / "search_efficiency_resnet20.svg").is_file()


def test_sides_that_there_are_not_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "--sides", "only magic")
    assert "only magic" in (said := capsys.readouterr().err)
    assert all(side in said for side in ("only l1", "killed", EXPERT, PLAIN_CHAIN))


def test_opponents_of_other_tools_need_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "--sides", "ours", EXPERT)
    assert "'expert' needs --baselines FOLDER with expert.py" in capsys.readouterr().err
