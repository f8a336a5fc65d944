"""The table of real recipes: which are recorded, that they go on from each other, and that nothing is made twice."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.analysis.benchmarks.search_table import (
    Ladder,
    Row,
    Rung,
    planned_ladders,
    read_table,
    recipe_of,
    record,
)
from autoprune.errors import StudyError
from autoprune.recipe import Training
from autoprune.study.log import append_line
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState
from tests.helpers.commands import DIGITS_DATA, UNTRAINED

BRIEF = Training(images=64, batch_size=64, rungs=(1.0,))
DOWN = Ladder((Rung("l1", "uniform", 0.7), Rung("fpgm", "global:std", 0.4), Rung("l1", "uniform", 0.2)), seed=3)


@pytest.fixture(scope="module")
def digits() -> SharedState:
    return SharedState.of(load_task({"data": DIGITS_DATA, "model": UNTRAINED}), Runtime(threads=1))


def test_every_target_is_planned_down_a_ladder_and_at_once() -> None:
    ladders = planned_ladders(["l1", "fpgm"], ["uniform"], [0.3, 0.7], [5], mixed=1)
    whole = [tuple((rung.method, rung.target) for rung in ladder.rungs) for ladder in ladders]

    assert whole[:2] == [(("l1", 0.7), ("l1", 0.3)), (("fpgm", 0.7), ("fpgm", 0.3))]
    assert whole[2:4] == [(("l1", 0.3),), (("fpgm", 0.3),)]  # 0.7 at once is the first rung of the ladder
    assert [target for _, target in whole[4]] == [0.7, 0.3]
    assert len(planned_ladders(["l1"], ["uniform"], [0.5], [0, 1, 2], mixed=0)) == 3
    again = planned_ladders(["l1", "fpgm"], ["uniform"], [0.3, 0.7], [5], mixed=1)
    assert again == ladders


def test_a_rung_is_a_recipe_that_goes_on_from_the_last() -> None:
    recipe = recipe_of(replace(DOWN, rungs=DOWN.rungs[:2]), 11, BRIEF)

    assert (recipe.method.name, recipe.weights, recipe.parent, recipe.target.flops) == ("fpgm", "front", 11, 0.4)
    assert (recipe.allocation.name, recipe.allocation.normalise, recipe.seed) == ("global", "std", 4)
    assert recipe_of(replace(DOWN, rungs=DOWN.rungs[:1]), None, BRIEF).weights == "trained"


def test_ladders_share_rungs_and_nothing_is_made_twice(digits: SharedState, tmp_path: Path) -> None:
    other = replace(DOWN, rungs=(*DOWN.rungs[:2], Rung("l2", "uniform", 0.2)))
    first = list(itertools.islice(record([DOWN, other], BRIEF, [], digits, tmp_path), 2))
    rest = list(record([DOWN, other], BRIEF, first, digits, tmp_path))

    assert [row.number for row in (*first, *rest)] == [0, 1, 2, 3]
    assert [row.recipe.parent for row in (*first, *rest)] == [None, 0, 1, 1]
    assert [row.flops for row in (*first, *rest)] == pytest.approx([0.7, 0.4, 0.2, 0.2], abs=0.01)
    assert list(record([DOWN, other], BRIEF, [*first, *rest], digits, tmp_path)) == []


def test_a_model_that_is_missing_is_made_again(digits: SharedState, tmp_path: Path) -> None:
    rows = list(record([DOWN], BRIEF, [], digits, tmp_path))
    shutil.rmtree(tmp_path / "1")
    again = list(record([DOWN], BRIEF, rows[:2], digits, tmp_path / "elsewhere"))

    assert [(row.number, row.accuracy, row.flops) for row in again] == [(2, rows[2].accuracy, rows[2].flops)]
    assert again[0].images == rows[2].images


def test_below_a_rung_that_failed_nothing_is_recorded(digits: SharedState, tmp_path: Path) -> None:
    ladder = replace(DOWN, rungs=(Rung("l1", "uniform", 0.0001), *DOWN.rungs[1:]))
    (row,) = record([ladder], BRIEF, [], digits, tmp_path)

    assert row.accuracy is None
    assert row.error is not None
    assert "cannot be reached" in row.error
    assert list(record([ladder], BRIEF, [row], digits, tmp_path)) == []


def test_rows_of_another_training_are_refused(digits: SharedState, tmp_path: Path) -> None:
    ladder = replace(DOWN, rungs=DOWN.rungs[:1])
    rows = list(record([ladder], BRIEF, [], digits, tmp_path))

    with pytest.raises(StudyError, match="row 0 on file is of another table"):
        list(record([ladder], replace(BRIEF, lr=0.07), rows, digits, tmp_path))


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    recipe = recipe_of(DOWN, 7, BRIEF)
    rows = [
        Row(number=8, ladder=DOWN, recipe=recipe, accuracy=0.7, flops=0.2, images=64, seconds=3.5, error=None),
        Row(number=9, ladder=DOWN, recipe=recipe, accuracy=None, flops=None, images=0, seconds=0.5, error="no"),
    ]
    for row in rows:
        append_line(tmp_path / "rows.jsonl", row.to_json())

    assert read_table(tmp_path / "rows.jsonl") == rows
