"""The picture of a report, read from its traces, and the axes it may have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest
import rmse_study

from autoprune.analysis.report import front_figure
from autoprune.analysis.report.retrained import with_finalists
from autoprune.study import pareto
from autoprune.study.folder import Study, load_study


def picture(study: Study) -> go.Figure:
    return front_figure.front_figure(study, front_figure.axes(study)[0])


def marks(figure: go.Figure) -> dict[int, tuple[str, float, float]]:
    """Trial -> (kind, x, y) of everything drawn as a mark of its own."""
    return {
        trial: (trace.meta, x, y)
        for trace in figure.data
        if trace.customdata is not None
        for trial, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }


class TestFront:
    def test_every_measured_trial_is_drawn_once(self, study: Study) -> None:
        drawn = marks(picture(study))
        members = {member.id for member in pareto.front(study.outcomes)}

        assert sorted(drawn) == sorted(o.id for o in study.outcomes if o.status != "failed")
        assert {trial for trial, (kind, _, _) in drawn.items() if kind == "front"} == members
        assert {trial for trial, (kind, _, _) in drawn.items() if kind == "control"} == {1, 2}

    def test_a_stopped_trial_lies_at_its_last_accuracy(self, make_study: Any, build: SimpleNamespace) -> None:
        assert marks(picture(make_study([build.stopped(7, 0.5, 0.61)]))) == {7: ("stopped", 0.5, 0.61)}

    def test_a_failed_trial_is_not_drawn_even_if_it_got_somewhere(
        self, make_study: Any, build: SimpleNamespace
    ) -> None:
        rungs = build.stopped(1, 0.5, 0.6).rungs

        assert marks(picture(make_study([build.failed(7, "boom", flops_ratio=0.5, rungs=rungs)]))) == {}

    def test_a_control_on_the_front_is_marked_as_both(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(2, 0.5, 0.8, "random", control=True), build.completed(3, 0.7, 0.7)])

        assert marks(picture(study)) == {2: ("front control", 0.5, 0.8), 3: ("completed", 0.7, 0.7)}

    def test_the_dense_line(self, study: Study) -> None:
        figure = picture(study)

        (line,) = figure.layout.shapes
        assert (line.y0, line.y1, line.name) == (0.917, 0.917, front_figure.INK)
        assert figure.layout.annotations[0].text == "dense 91.7\N{NO-BREAK SPACE}%"

    def test_one_legend_entry_per_method(self, study: Study) -> None:
        names = [t.name for t in picture(study).data if t.customdata is not None and t.showlegend]

        assert sorted(names) == ["bn_scale", "dense", "fpgm", "l1", "l2", "random", "taylor"]

    def test_ranges(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(3, 0.3, 0.817), build.completed(5, 0.6, 0.317)])
        ranges = picture(study).layout.meta["ranges"]

        assert ranges["front"] == pytest.approx([0.817 - 0.008, 0.917 + 0.008])  # 8 % of the 0.1 between them
        assert ranges["all"] == pytest.approx([0.317 - 0.048, 0.917 + 0.048])

    def test_no_outcomes(self, make_study: Any) -> None:
        assert marks(picture(make_study([]))) == {}

    def test_members_that_were_trained_again_lie_at_their_mean(self, tmp_path: Path) -> None:
        study = with_finalists(load_study(rmse_study.write(tmp_path / "trees", finalists=True).path))
        (trace,) = [one for one in picture(study).data if one.meta == "front retrained"]

        # Seeds of 1.9 and 1.7.
        assert (trace.customdata, trace.x, trace.y) == ((7,), (0.4,), (pytest.approx(1.8),))
        assert trace.error_y.array == (pytest.approx(0.1414, abs=1e-4),)


class TestAxes:
    def test_what_was_measured_can_be_chosen(self, make_study: Any, build: SimpleNamespace) -> None:
        outcomes = [build.completed(3, 0.4, 0.8, latency_ratio=0.5, latency_ms=7.0), build.completed(5, 0.7, 0.9)]
        runtime = {"device": "cpu", "threads": 4}
        axes = front_figure.axes(make_study(outcomes, runtime=runtime, latency={"batch": 1}))

        keys = [(axis.key, axis.cost, axis.factor) for axis in axes]
        assert keys == [
            *((name, name, 1.0) for name in ("flops", "params", "activations", "latency")),
            ("flops absolute", "flops", 81_600_000),
            ("params absolute", "params", 269_722),
            ("activations absolute", "activations", 188_000),
            ("latency_ms", "latency_ms", 1.0),
        ]
        assert axes[-1].title == "Latency in ms (cpu, 4 threads, batch 1)"
        assert (axes[0].line, axes[-1].line) == ((3, 5), (3,))

    def test_noise_lies_around_the_line(self, make_study: Any, build: SimpleNamespace) -> None:
        (axis, *_) = front_figure.axes(make_study([build.completed(3, 0.4, 0.9), build.completed(5, 0.7, 0.95)]))

        assert [low < value < high for low, value, high in zip(axis.low, (0.9, 0.95), axis.high, strict=True)] == [
            True
        ] * 2

    def test_the_main_cost_comes_first(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(3, 0.4, 0.8)], objectives=["params", "accuracy"])

        assert [axis.key for axis in front_figure.axes(study)][:3] == ["params", "flops", "activations"]
