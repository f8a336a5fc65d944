"""What the figures of a study show, read from their traces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report import figures
from autoprune.study import pareto
from autoprune.study.folder import Study


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
        """A method that prunes only some layers says nothing of the other groups: they are whole."""
        outcomes = [
            build.completed(7, 0.7, 0.8, widths={"conv1": 5, "layer3.0.conv1": 67}),
            build.completed(3, 0.4, 0.7, widths={"conv1": 2}),
        ]
        (trace,) = figures.widths_heatmap(make_study(outcomes)).data

        assert list(trace.x) == ["trial 3", "trial 7"]
        assert list(trace.y) == ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]
        assert [list(row) for row in trace.z] == [[2 / 17, 5 / 17], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
        assert list(trace.text[0]) == ["2 of 17", "5 of 17"]
        assert [list(row) for row in trace.customdata] == [[3, 7]] * 4
