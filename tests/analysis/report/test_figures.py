"""What the figures of a study show, read from their traces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest

from autoprune.analysis.report import figures
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.metric import ACCURACY


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
        drawn = marks(figures.front_figure(study))
        members = {member.id for member in pareto.front(study.outcomes)}

        assert sorted(drawn) == sorted(o.id for o in study.outcomes if o.status != "failed")
        assert {trial for trial, (kind, _, _) in drawn.items() if kind == "front"} == members
        assert {trial for trial, (kind, _, _) in drawn.items() if kind == "control"} == {1, 2}

    def test_a_stopped_trial_lies_at_its_last_accuracy(self, make_study: Any, build: SimpleNamespace) -> None:
        assert marks(figures.front_figure(make_study([build.stopped(7, 0.5, 0.61)]))) == {7: ("stopped", 0.5, 0.61)}

    def test_a_failed_trial_is_not_drawn_even_if_it_got_somewhere(
        self, make_study: Any, build: SimpleNamespace
    ) -> None:
        rungs = build.stopped(1, 0.5, 0.6).rungs

        assert marks(figures.front_figure(make_study([build.failed(7, "boom", flops_ratio=0.5, rungs=rungs)]))) == {}

    def test_a_control_on_the_front_is_marked_as_both(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(2, 0.5, 0.8, "random", control=True), build.completed(3, 0.7, 0.7)])

        assert marks(figures.front_figure(study)) == {2: ("front control", 0.5, 0.8), 3: ("completed", 0.7, 0.7)}

    def test_the_dense_line(self, study: Study) -> None:
        line = next(trace for trace in figures.front_figure(study).data if trace.name.startswith("dense "))

        assert line.y == (0.917, 0.917)
        assert line.meta == figures.INK

    def test_one_legend_entry_per_method(self, study: Study) -> None:
        names = [t.name for t in figures.front_figure(study).data if t.customdata is not None and t.showlegend]

        assert sorted(names) == ["bn_scale", "dense", "fpgm", "l1", "l2", "random", "taylor"]

    def test_ranges(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(3, 0.3, 0.817), build.completed(5, 0.6, 0.317)])
        ranges = figures.front_figure(study).layout.meta["ranges"]

        assert ranges["front"] == pytest.approx([0.817 - 0.008, 0.917 + 0.008])  # 8 % of the 0.1 between them
        assert ranges["all"] == pytest.approx([0.317 - 0.048, 0.917 + 0.048])

    def test_no_outcomes(self, make_study: Any) -> None:
        assert marks(figures.front_figure(make_study([]))) == {}


class TestHoverText:
    def test_everything_that_matters(self, build: SimpleNamespace) -> None:
        outcome = build.completed(17, 0.25, 0.8914, "fpgm", params_ratio=0.31, activations_ratio=0.53)
        lines = figures.hover_text(
            outcome, {"conv1": 17, "layer1.0.conv1": 19, "layer2.0.conv1": 31, "layer3.0.conv1": 67}, ACCURACY
        )

        assert lines.replace("\N{NO-BREAK SPACE}", " ").split("<br>") == [
            "<b>trial 17</b>, fpgm",
            "accuracy 89.14 %",
            "FLOPs 25.0 %, parameters 31.0 %, activations 53.0 %",
            "5,000 training images, 7 s",
            "4 groups, median 51 % kept, least conv1: 8 of 17",
        ]

    def test_stopped(self, build: SimpleNamespace) -> None:
        text = figures.hover_text(build.stopped(7, 0.5, 0.61), {}, ACCURACY).replace("\N{NO-BREAK SPACE}", " ")

        assert "accuracy 61.00 % when stopped after 1,500 images" in text

    def test_names_from_outside_are_escaped(self, build: SimpleNamespace) -> None:
        outcome = build.completed(7, 0.5, 0.8, "<a href='//x'>m</a>", widths={"<i>g": 3})

        text = figures.hover_text(outcome, {"<i>g": 5}, ACCURACY)

        assert "&lt;a href=" in text
        assert "&lt;i&gt;g" in text
        assert "<a" not in text


class TestHypervolume:
    def test_follows_the_front(self, study: Study) -> None:
        trace = figures.hypervolume_figure(study).data[0]

        assert list(trace.y) == pareto.hypervolume_over_time(study.outcomes)[:, 1].tolist()
        assert trace.x[-1] == pytest.approx(max(o.finished for o in pareto.candidates(study.outcomes)) / 60)

    def test_no_outcomes(self, make_study: Any) -> None:
        assert len(figures.hypervolume_figure(make_study([])).data[0].x) == 0


class TestMethods:
    def test_best_per_bin(self, make_study: Any, build: SimpleNamespace) -> None:
        numbers = [(1, 0.31, 0.7), (2, 0.40, 0.9), (3, 0.39, 0.8), (4, 0.41, 0.6)]
        study = make_study([build.completed(i, flops, accuracy) for i, flops, accuracy in numbers])
        _, trace = figures.methods_figure(study).data

        assert (trace.x, trace.y) == (("30 to 40 %", "40 to 50 %"), (0.9, 0.6))
        first, second = (text.replace("\N{NO-BREAK SPACE}", " ") for text in trace.hovertext)
        assert first.endswith("best 90.00 % (trial 2), median 80.00 %<br>3 trials")
        assert second.endswith("best 60.00 % (trial 4), median 60.00 %<br>1 trial")

    def test_dense_and_random_are_shown(self, study: Study) -> None:
        names = [trace.name for trace in figures.methods_figure(study).data]

        assert names[0].startswith("dense ")
        assert names[-1] == "random"


class TestTime:
    def test_by_hand(self, make_study: Any, build: SimpleNamespace) -> None:
        seconds = {"cut": 2.0, "fine-tune": 3.0}
        times = [(0.0, 7.0), (9.0, 14.0)]
        study = make_study(
            [build.completed(i, 0.5, 0.8, seconds=seconds, started=s, finished=f) for i, (s, f) in enumerate(times)]
        )

        # 12 seconds in two trials, 10 of them in stages; 2 seconds between them.
        expected = {"cut": 4.0, "fine-tune": 6.0, "rest of the trials": 2.0, "between trials": 2.0}
        assert figures.time_spent(study) == expected
        bars = figures.time_figure(study).data[0]
        assert dict(zip(bars.y, bars.x, strict=True)) == expected


class TestWidths:
    def test_share_and_counts(self, make_study: Any, build: SimpleNamespace) -> None:
        outcome = build.completed(7, 0.5, 0.8, widths={"conv1": 5, "layer3.0.conv1": 67})
        whole, kept = figures.widths_figure(make_study([outcome]), outcome).data

        assert kept.x == whole.x == ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1")
        assert kept.y == (5 / 17, 1.0, 1.0, 1.0)
        assert kept.text == ("5/17", "19/19", "31/31", "67/67")


def test_colours_of_many_methods_differ() -> None:
    colours = figures.method_colours([f"method{i}" for i in range(31)] + ["dense", "random"])

    assert len({colours[f"method{i}"] for i in range(31)}) == 31
    assert colours["dense"] == colours["random"]
    assert all(len(colour) == 7 and colour.startswith("#") for colour in colours.values())
