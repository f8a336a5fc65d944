"""The benchmark of parametrisations: its searches on ResNet-20's groups, going on with one, and the table's numbers."""

from __future__ import annotations

import pytest

from autoprune.analysis.benchmarks.parametrisations import ALLOCATIONS, Plan, Row, best_after, search, table, tuned
from autoprune.errors import StudyError
from autoprune.recipe import Recipe
from autoprune.study.outcome import Outcome

GROUPS = (("conv1", 0), ("layer1.0.conv1", 0), ("layer2.0.conv1", 1), ("layer3.0.conv1", 2), ("layer3.0.conv2", 2))


def measured(recipe: Recipe) -> Outcome:
    """An accuracy that follows from the recipe."""
    accuracy = int(recipe.key(), 16) / 16**12
    return Outcome(id=0, recipe=recipe, status="completed", metric=accuracy, widths={"conv1": 3})


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("uniform", 1),
        ("global", 4),
        ("share per stage", 13),
        ("share per stage and stream", 13),
        ("share per group", 13),
        ("three features", 13),
        ("four features", 13),
    ],
)
def test_every_parametrisation_is_searched_or_gone_through(name: str, count: int) -> None:
    plan = Plan(name, 0.3, seed=7)
    rows = list(search(plan, plan.space(GROUPS), 13, [], measured))

    assert set(ALLOCATIONS) >= {name}
    assert [row["number"] for row in rows] == list(range(count))
    assert len({Recipe.from_dict(row["recipe"]).key() for row in rows}) == count
    assert all(row["recipe"]["target"] == {"flops": 0.3, "params": None} for row in rows)


def test_an_interrupted_search_ends_as_one_that_was_not() -> None:
    plan = Plan("four features", 0.3, seed=7)
    space = plan.space(GROUPS)
    whole = list(search(plan, space, 17, [], measured))
    rest = list(search(plan, space, 17, whole[:14], measured))

    assert [row["recipe"] for row in rest] == [row["recipe"] for row in whole[14:]]
    with pytest.raises(StudyError, match="evaluation 1 on file is of another search"):
        list(search(plan, space, 17, [whole[0], whole[2]], measured))


def test_the_best_of_a_search_is_tuned() -> None:
    plan = Plan("three features", 0.5, seed=7)
    rows = list(search(plan, plan.space(GROUPS), 5, [], measured))
    best = max(rows, key=lambda row: row["accuracy"])
    seen: list[Recipe] = []
    row = tuned(plan, rows, lambda recipe: seen.append(recipe) or measured(recipe))  # type: ignore[func-returns-value]

    assert row["evaluations"] == 5
    assert (row["number"], row["before"]) == (best["number"], best["accuracy"])
    assert seen[0].allocation == Recipe.from_dict(best["recipe"]).allocation
    assert (seen[0].training.images, seen[0].seed) == (19_200, 7)


def rows_of(name: str, seed: int, accuracies: dict[int, float | None], after: float) -> list[Row]:
    allocation = {"name": "features", "depth": 0.1, "flops": 0.0, "ratios": {}}
    mine = {"name": name, "flops": 0.3, "seed": seed}
    found = [
        {**mine, "kind": "evaluation", "number": number, "accuracy": accuracy, "seconds": 7.0}
        | {"recipe": {"allocation": {**allocation, "depth": number / 100}}}
        for number, accuracy in accuracies.items()
    ]
    return [*found, {**mine, "kind": "tuned", "after": after}]


def test_the_table_has_the_best_so_far_and_what_became_of_it() -> None:
    rows = rows_of("three features", 0, {0: 0.31, 11: None, 12: 0.47, 23: 0.41, 24: 0.53, 47: 0.1}, after=0.71)
    rows += rows_of("three features", 1, {0: 0.37, 1: 0.11}, after=0.75)
    rows += rows_of("uniform", 0, {0: 0.29}, after=0.61)
    rows += rows_of("global", 0, {0: 0.29}, after=0.61)[:1]  # not at its end yet

    assert [best_after(rows[:6], count) for count in (12, 24, 48)] == [0.31, 0.47, 0.53]
    assert "best of 24 | best of 48 |" in table(rows)
    assert "best of 24 | fine-tuned |" in table(rows_of("uniform", 0, {0: 0.3, 23: 0.29}, after=0.61))
    lines = [line for line in table(rows).splitlines() if line.startswith("| ")]
    assert lines[1:] == [
        "| uniform | 0 | 1 | 29.00 | 29.00 | 29.00 | 61.00 |",
        "| three features | 1 | 2 | 34.00 ± 4.24 | 42.00 ± 7.07 | 45.00 ± 11.31 | 73.00 ± 2.83 |",
    ]
