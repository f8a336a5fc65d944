"""A study as tables, and the front as a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import rmse_study

from autoprune.analysis.report import frames
from autoprune.study import pareto
from autoprune.study.folder import Study, load_study


class TestTrialsFrame:
    def test_a_row_per_outcome(self, study: Study) -> None:
        table = frames.trials_frame(study)

        assert table["id"].tolist() == [outcome.id for outcome in study.outcomes]
        assert table["status"].tolist() == [outcome.status for outcome in study.outcomes]
        assert table["accuracy"].isna().tolist() == [outcome.accuracy is None for outcome in study.outcomes]
        assert table.loc[table["on_front"], "id"].tolist() == sorted(o.id for o in pareto.front(study.outcomes))

    def test_recipe_and_seconds_are_flat(self, make_study: Any, build: SimpleNamespace) -> None:
        table = frames.trials_frame(make_study([build.completed(7, 0.5, 0.8, "bn_scale")]))
        row = table.iloc[0]

        assert row["recipe.method.penalty"] == 1e-4
        assert row["recipe.allocation.ratios.stage0"] == 0.3
        assert row["recipe.training.rungs"] == "[0.0, 0.3, 1.0]"
        assert (row["seconds.fine-tune"], row["duration"], row["images"]) == (4.5, 7.0, 5_000)

    def test_notes_are_flat(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.completed(7, 0.5, 0.8, notes={"gap_after": 13.5}), build.completed(9, 0.4, 0.7)])
        table = frames.trials_frame(study)

        assert table["notes.gap_after"].fillna(-1).tolist() == [13.5, -1]
        assert "notes.gap_after" in frames.write_pareto_csv(study, study.folder.pareto).read_text().splitlines()[0]

    def test_a_stopped_trial_has_its_last_accuracy(self, make_study: Any, build: SimpleNamespace) -> None:
        row = frames.trials_frame(make_study([build.stopped(7, 0.5, 0.61)])).iloc[0]

        assert pd.isna(row["accuracy"])
        assert row["last_accuracy"] == 0.61

    def test_no_outcomes(self, make_study: Any) -> None:
        table = frames.trials_frame(make_study([]))

        assert len(table) == 0
        assert {"id", "method", "on_front", "last_accuracy"} <= set(table.columns)


def test_widths_frame(make_study: Any, build: SimpleNamespace) -> None:
    table = frames.widths_frame(make_study([build.completed(7, 0.25, 0.8), build.failed(8, "boom")]))

    assert table["id"].unique().tolist() == [7]
    assert dict(zip(table["group"], table["kept"], strict=True))["layer3.0.conv1"] == 34  # 67 * sqrt(0.25) = 33.5
    assert table["share"].tolist() == (table["kept"] / table["size"]).tolist()
    assert table["size"].tolist() == [17, 19, 31, 67]


def test_rungs_frame(make_study: Any, build: SimpleNamespace) -> None:
    table = frames.rungs_frame(make_study([build.stopped(7, 0.5, 0.61), build.failed(8, "boom")]))

    assert table[["id", "images", "accuracy"]].values.tolist() == [[7, 0, 0.51], [7, 1500, 0.61]]


class TestParetoCsv:
    def test_the_front_by_rising_flops(self, study: Study) -> None:
        path = frames.write_pareto_csv(study, study.folder.pareto)
        table = pd.read_csv(path)
        members = pareto.front(study.outcomes)

        assert path == study.folder.pareto
        assert table["id"].tolist() == [member.id for member in members]
        assert table["accuracy"].tolist() == pytest.approx([member.accuracy for member in members], rel=1e-15)
        rates = [member.recipe.training.lr for member in members]
        assert table["recipe.training.lr"].tolist() == pytest.approx(rates, rel=1e-15)

    def test_an_empty_front_is_a_header(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study([build.failed(7, "boom")])

        lines = frames.write_pareto_csv(study, study.folder.pareto).read_text().splitlines()

        assert len(lines) == 1
        assert lines[0].startswith("id,method,accuracy,flops_ratio")

    def test_another_metric_has_its_own_name(self, tmp_path: Path) -> None:
        study = load_study(rmse_study.write(tmp_path / "trees").path)
        table = pd.read_csv(frames.write_pareto_csv(study, study.folder.pareto))

        assert list(table.columns[:4]) == ["id", "method", "rmse", "flops_ratio"]
        assert table["rmse"].tolist() == [4.2, 2.1, 1.4]
        assert frames.trials_frame(study)["last_rmse"].tolist()[5] == 5.5
        assert frames.rungs_frame(study)["rmse"].tolist()[:2] == [1.7 * 1.3, 1.3]
        assert "accuracy" not in table
