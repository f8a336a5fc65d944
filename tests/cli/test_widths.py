"""`autoprune widths`: the tables that come with autoprune, and one of this machine that an allocation takes."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from commands import Capture, fails, works

from autoprune.engine.allocation.width_times import load_width_times
from autoprune.timing import width_times


def test_the_tables_say_on_what_they_were_measured(capsys: Capture) -> None:
    rows = {row["device"]: row["measured on"] for row in json.loads(works(capsys, "widths", "--json"))}

    assert set(rows) == {"cpu", "h100-bf16"}
    assert "H100" in rows["h100-bf16"]
    assert "h100-bf16" in works(capsys, "widths")


def test_a_table_of_this_machine_is_one_that_an_allocation_takes(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = (("spatial", 7, 3), ("depthwise", 7, 3))
    few = functools.partial(width_times.measure_curves, widths=(8, 16, 24), layers=layers)
    monkeypatch.setattr(width_times, "measure_curves", few)
    out = works(capsys, "widths", "--out", "mine.json", "--threads", "1", "--batch", "3", "--runtime", "eager")
    table = load_width_times("mine.json")

    assert "1 threads, eager, float32, batch 3, torch" in table.device
    assert [(curve.kind, curve.positions, curve.widths) for curve in table.curves] == [
        ("spatial", 49, [8, 16, 24]),
        ("depthwise", 49, [8, 16, 24]),
    ]
    assert out.splitlines()[-1] == "allocation: {round_to: auto, device: mine.json}"


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("mine.yaml", "--out: found mine.yaml; allowed: a file that ends with .json"),
        ("here.json", "here.json: already exists; allowed: a new file"),
        ("gone/mine.json", "gone/mine.json: nothing can be written there"),
    ],
)
def test_a_place_where_no_table_can_go_is_refused_at_once(capsys: Capture, here: Path, out: str, what: str) -> None:
    (here / "here.json").write_text("{}")

    assert what in fails(capsys, "widths", "--out", out)
    assert [path.name for path in here.iterdir()] == ["here.json"]
