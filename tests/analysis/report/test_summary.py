"""The words and numbers that a report opens with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report import summary
from autoprune.study.folder import Study, load_study


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


class TestHeadline:
    def test_best_within_the_budget(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study(
            [
                build.completed(3, 0.7, 0.913),
                build.completed(17, 0.493, 0.891),
                build.completed(5, 0.3, 0.84),
            ]
        )

        assert plain(summary.summarise(study).headline) == (
            "A model with 49.3 % of the dense model's arithmetic (FLOPs) reaches 89.1 % accuracy (88.2 to 89.9 %, as "
            "far as 5,000 images can tell), 2.6 points below the dense model's 91.7 %."
        )

    def test_nothing_within_the_budget(self, make_study: Any, build: SimpleNamespace) -> None:
        headline = plain(summary.summarise(make_study([build.completed(3, 0.71, 0.917)])).headline)

        assert headline == (
            "No model came down to half the FLOPs: the cheapest, with 71.0 % of the dense model's arithmetic (FLOPs), "
            "reaches 91.7 % accuracy (90.9 to 92.4 %, as far as 5,000 images can tell), as good as the dense model's "
            "91.7 %."
        )

    def test_no_outcomes(self, make_study: Any) -> None:
        assert summary.summarise(make_study([])).headline == "No trial has ended yet."

    def test_all_failed(self, make_study: Any, build: SimpleNamespace) -> None:
        errors = ["OutOfMemoryError: 3 GiB\n  at layer1", "ValueError: 5", "OutOfMemoryError: 3 GiB\n  at layer1"]
        study = make_study([build.failed(i, error) for i, error in enumerate(errors)])

        assert summary.summarise(study).headline == "All 3 trials failed, most often with: OutOfMemoryError: 3 GiB"

    def test_only_the_control_completed(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(1, 1.0, 0.92, "dense", control=True), build.failed(2, "boom")])

        assert "there is no front" in summary.summarise(study).headline


class TestFacts:
    def test_counts(self, make_study: Any, build: SimpleNamespace) -> None:
        outcomes = [
            build.completed(1, 1.0, 0.92, "dense", control=True),
            build.stopped(2, 0.5, 0.6),
            build.failed(83, "boom"),
        ]
        study = make_study(outcomes, unfinished=[build.recipe("l1", 0.5)])

        facts = [plain(fact) for fact in summary.summarise(study).facts]

        ended = "1 trial completed, 1 stopped early, 1 failed in 9 min 44 s (1 control among them)."
        assert f"{ended} 1 trial had begun and not ended when this page was written." in facts

    def test_nothing_ended_but_something_runs(self, make_study: Any, build: SimpleNamespace) -> None:
        facts = summary.summarise(make_study([], unfinished=[build.recipe("l1", 0.5)] * 2)).facts

        assert facts == ("2 trials had begun and not ended when this page was written.",)

    def test_cheapest_near_dense(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study(
            [build.completed(i, flops, acc) for i, flops, acc in [(3, 0.3, 0.9), (5, 0.6, 0.908), (7, 0.9, 0.93)]]
        )

        facts = " ".join(plain(fact) for fact in summary.summarise(study).facts)

        assert (
            "within 1 point of the dense accuracy: 90.8 % (\N{MINUS SIGN}0.9 points) at 60.0 % FLOPs, trial 5" in facts
        )
        assert "Hypervolume 0.6354 against" in facts  # 0.3 * 0.9 + 0.3 * 0.908 + 0.1 * 0.93
        assert "Knee" not in facts

    def test_a_knee_that_bends(self, make_study: Any, build: SimpleNamespace) -> None:
        numbers = [(3, 0.2, 0.5), (5, 0.4, 0.85), (7, 0.9, 0.9)]
        facts = summary.summarise(make_study([build.completed(i, flops, acc) for i, flops, acc in numbers])).facts

        knee = next(plain(fact) for fact in facts if fact.startswith("Knee"))
        assert knee.startswith("Knee of the front, where a further cut begins to cost most: 85.0 % (")
        assert knee.endswith("trial 5, method l1.")

    def test_none_near_dense(self, make_study: Any, build: SimpleNamespace) -> None:
        facts = summary.summarise(make_study([build.completed(3, 0.3, 0.9)])).facts

        assert "No pruned model came within 1 point of the dense accuracy." in facts


class TestMethodRows:
    def test_controls_are_always_there(self, make_study: Any) -> None:
        rows = summary.method_rows(make_study([]))

        assert [(row.name, row.best, row.median, sum(row.counts.values())) for row in rows] == [
            ("random", None, None, 0),
            ("dense", None, None, 0),
        ]

    def test_by_hand(self, make_study: Any, build: SimpleNamespace) -> None:
        outcomes = [
            build.completed(1, 0.3, 0.7, "l1"),
            build.completed(2, 0.5, 0.8, "l1"),
            build.completed(3, 0.8, 0.9, "l1"),
            build.completed(4, 0.45, 0.85, "fpgm"),
            build.failed(5, "boom", "taylor"),
            build.stopped(6, 0.4, 0.6, "l1"),
        ]
        rows = {row.name: row for row in summary.method_rows(make_study(outcomes))}

        assert list(rows) == ["fpgm", "l1", "taylor", "random", "dense"]
        l1 = rows["l1"]
        assert (l1.best_in_budget, l1.best, l1.median, l1.on_front) == (0.8, 0.9, 0.8, 2)
        assert dict(l1.counts) == {"completed": 3, "stopped": 1}
        assert (rows["taylor"].best, rows["taylor"].counts["failed"]) == (None, 1)


class TestShares:
    def test_gaps_between_trials(self, make_study: Any, build: SimpleNamespace) -> None:
        times = [("a", 3.0, 8.0), ("a", 9.0, 13.0), ("b", 5.0, 7.0), ("b", 7.0, 18.0)]
        study = make_study(
            [build.completed(i, 0.5, 0.8, worker=w, started=s, finished=f) for i, (w, s, f) in enumerate(times)]
        )

        a, b = summary.shares(study)

        assert (a.worker, a.trials, a.inside, a.span, a.outside) == ("a", 2, 9.0, 10.0, pytest.approx(0.1))
        assert (b.inside, b.span, b.outside) == (13.0, 13.0, 0.0)

    def test_overlapping_trials_count_once(self, make_study: Any, build: SimpleNamespace) -> None:
        times = [(0.0, 7.0), (3.0, 5.0), (6.0, 11.0)]
        study = make_study([build.completed(i, 0.5, 0.8, started=s, finished=f) for i, (s, f) in enumerate(times)])

        assert summary.shares(study)[0].inside == 11.0

    def test_a_trial_of_no_time(self, make_study: Any, build: SimpleNamespace) -> None:
        assert summary.shares(make_study([build.failed(1, "boom", started=3.0, finished=3.0)]))[0].outside == 0.0


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"model": {"name": "resnet20"}, "data": {"name": "cifar10"}}, "resnet20 on cifar10"),
        ({"model": {"factory": "mine:build"}, "data": "mine:splits"}, "mine:build on mine:splits"),
        ({"model": None, "data": {}}, "own model on own data"),
    ],
)
def test_title(make_study: Any, task: dict[str, Any], expected: str) -> None:
    assert summary.title(make_study([], task=task)) == expected


def test_the_counts_add_up(study: Study) -> None:
    assert sum(sum(row.counts.values()) for row in summary.method_rows(study)) == len(study.outcomes)


def test_a_metric_to_minimise_by_hand(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees", finalists=True).path)
    told = [plain(fact) for fact in summary.summarise(study).facts]

    # Within a height of 0.01 of the dense model's 1/2: 1.4 * 0.51 / 0.49. Only trial 11 is.
    assert (
        "Cheapest model near the dense model, that is with rmse <= 1.45714: 1.4 cm (±0 cm) at 70.0 % FLOPs, "
        "trial 11, method l1." in told
    )
    assert told[0].startswith("Trained again with 2 seeds, on the test split: 2.5 cm ± 0.28 (dense 1.4 cm ± 0.28) at")
    rows = {row.name: row for row in summary.method_rows(study)}
    assert [row.name for row in summary.method_rows(study)] == ["taylor", "l1", "random", "dense"]
    assert (rows["l1"].best, rows["l1"].best_in_budget, rows["l1"].median) == (1.4, 2.9, 2.9)


def test_far_from_the_dense_model_by_its_metric(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees", dense={**rmse_study.CONFIG["dense"], "rmse": 0.7}).path)

    # The height of 0.7 is 2/3; 0.01 less is that of 1.4 * 0.34333 / 0.65667.
    assert "No pruned model is near the dense model, that is with rmse <= 0.73198." in summary.summarise(study).facts
