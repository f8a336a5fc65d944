"""Errors by hand, and what the page says of a row."""

from __future__ import annotations

import pytest

from autoprune.analysis.benchmarks.predicted_time import COLUMNS, Row, page

ROW = Row(
    network="resnet7",
    runtime="eager",
    threads=1,
    round_to="auto",
    fitted=5,
    measured=[[0.5, 0.45, 0.5], [0.8, 0.8, 0.88], [0.4, 0.38, 0.42]],
    predicted=[0.55, 0.8, 0.388],
    median=0.031,
    most=0.07,
    microseconds=88.2,
    seconds=61.4,
    machine="a CPU",
    torch="2.0",
)


def test_errors_are_relative_to_what_was_measured() -> None:
    assert ROW.errors.tolist() == pytest.approx([0.1, 0.0, 0.03])
    assert ROW.spread == pytest.approx(0.1)


def test_a_row_of_the_page() -> None:
    lines = page([ROW]).splitlines()

    assert lines[-1].count("|") == len(COLUMNS) + 1
    assert "| resnet7 | eager | 1 | auto | 5 | 61 s | 3 | 3.0% | 9.3% | 10.0% | 3.1%, 7.0% | 10.0% | 88 us |" in lines
