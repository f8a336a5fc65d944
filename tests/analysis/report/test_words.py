"""Numbers of a report in words."""

from __future__ import annotations

import pytest

from autoprune.analysis.report import words


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (7.4, "7 s"), (59.6, "1 min 0 s"), (598, "9 min 58 s"), (5423, "1 h 30 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("difference", "text"), [(0.0261, "+2.6"), (-0.026, "\N{MINUS SIGN}2.6"), (-0.0001, "±0.0"), (0.1, "+10.0")]
)
def test_points(difference: float, text: str) -> None:
    assert words.points(difference).replace("\N{NO-BREAK SPACE}", " ") == f"{text} points"
