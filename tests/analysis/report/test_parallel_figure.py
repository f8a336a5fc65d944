"""A line per trial through its settings, costs and metric."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report.parallel_figure import parallel_figure


def test_by_hand(make_study: Any, build: SimpleNamespace) -> None:
    rates = {3: 0.01, 5: 0.02, 7: 0.05}
    outcomes = [
        build.completed(n, flops, metric, method, recipe=build.recipe(method, flops, lr=rates[n]))
        for n, flops, metric, method in ((3, 0.2, 0.6, "l1"), (5, 0.4, 0.8, "l2"), (7, 0.5, 0.7, "l1"))
    ]
    figure = parallel_figure(make_study(outcomes), [])

    assert list(figure.layout.xaxis.ticktext) == ["method", "lr", "FLOPs", "accuracy"]
    lines = {trace.customdata[0]: list(trace.y) for trace in figure.data}
    # Few different values are evenly spread; 0.4 is two thirds of the way from 0.2 to 0.5; trial 7 is beaten by 5.
    assert lines == {
        7: [0.0, 1.0, 1.0, pytest.approx(0.5), None],
        3: [0.0, 0.0, 0.0, 0.0, None],
        5: [1.0, 0.5, pytest.approx(2 / 3), 1.0, None],
    }
    texts = {(note.x, note.y): note.text for note in figure.layout.annotations}
    assert texts[0, 0.0] == "l1"
    assert texts[1, 1.0] == "0.05"
    assert texts[3, 1.0] == "80.0\N{NO-BREAK SPACE}%"


def test_numbers_far_apart_are_laid_out_by_their_logarithm(make_study: Any, build: SimpleNamespace) -> None:
    rates = [0.0001, 0.001, 0.01, 0.02, 0.05, 0.1]
    outcomes = [
        build.completed(n, 0.2 + n / 10, 0.6 + n / 100, recipe=build.recipe("l1", 0.5, lr=lr))
        for n, lr in enumerate(rates)
    ]
    figure = parallel_figure(make_study(outcomes), [])

    (line,) = figure.data
    assert "lr (log)" in figure.layout.xaxis.ticktext
    place = list(figure.layout.xaxis.ticktext).index("lr (log)")
    step = len(figure.layout.xaxis.ticktext) + 1
    assert [line.y[place + n * step] for n in (0, 1, 5)] == [0.0, pytest.approx(1 / 3), pytest.approx(1.0)]
