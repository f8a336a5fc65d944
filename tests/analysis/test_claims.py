"""Tables and verdicts on papers' claims, from rows made up by hand."""

from __future__ import annotations

from typing import Any

import pytest

from autoprune.analysis.claims.mechanisms import _compared, _recovered, verdict
from autoprune.analysis.claims.methods_cifar10 import Plan, _is, label, table
from autoprune.recipe import Training

TRAINING = Training(images=100_000, lr=0.03)


def row(method: str, after: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "params": {},
        "flops": 0.5,
        "seed": seed,
        "split": "test",
        "images": 100_000,
        "lr": 0.03,
        "status": "completed",
        "error": None,
        "before": after / 2,
        "after": after,
        "seconds": {"finetune": 90.0},
        "notes": {},
        "pruned": {"a": [0, 2, 5]},
        **changes,
    }


def test_a_table_has_means_deviations_and_what_l1_prunes_too() -> None:
    rows = [row("l1", 0.9), row("l1", 0.92, 1), row("sfp", 0.95, pruned={"a": [0, 3, 5]}), row("dense", 0.97)]
    text = table([*rows, row("sfp", 0.1, split="validation")])

    assert "| l1 | 2 | 45.50 ± 0.71 | 91.00 ± 1.41 | 1.5 | 100% |  |" in text
    assert "| sfp | 1 | 47.50 | 95.00 | 1.5 | 67% |  |" in text
    assert text.index("| dense (100 %)") < text.index("| sfp") < text.index("| l1")


def test_a_failed_run_is_in_the_table_with_its_reason() -> None:
    failed = {**row("sfp", 0.0), "after": None, "before": None, "status": "failed", "error": "the loss is nan"}

    assert "| sfp | 1 | failed | failed |" in table([failed])
    assert "sfp, seed 0: the loss is nan" in table([failed])


def test_what_is_unusual_about_a_run_is_in_its_label() -> None:
    assert label(row("l1", 0.9)) == "l1"
    assert label(row("l1", 0.9, images=50_000)) == "l1, 50,000 images"
    assert (
        label(row("orthoreg", 0.9, weights="scratch", params={"share": 0.15})) == "orthoreg, from scratch, share 0.15"
    )


def test_a_run_is_not_repeated_and_another_one_is() -> None:
    plan = Plan("l1", {}, 0.5, 0)

    assert _is(row("l1", 0.9), plan, TRAINING, "test")
    assert not _is(row("l1", 0.9), plan, TRAINING, "validation")
    assert not _is(row("l1", 0.9, weights="scratch"), plan, TRAINING, "test")
    assert not _is(row("l1", 0.9, seed=1), plan, TRAINING, "test")


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([0.6], "yes"), ([-0.6], "no"), ([0.4], "unclear"), ([1.0, 1.2, 0.8], "yes"), ([1.0, -0.8, 0.2], "unclear")],
)
def test_a_verdict_needs_two_standard_errors(differences: list[float], expected: str) -> None:
    assert verdict(differences) == expected


def test_methods_are_compared_seed_by_seed() -> None:
    rows = [row("a", 0.90), row("a", 0.92, 1), row("b", 0.88), row("b", 0.91, 1), row("b", 0.5, 2)]

    assert _compared(rows, "a", "b", "after") == ("+1.50 points at 50% (+2.00, +1.00)", "yes")


def test_recovering_units_are_those_that_stay_though_they_were_pressed() -> None:
    import numpy as np

    courses = np.array([[0.0, 0.5, 0.0], [0.2, 0.6, 1.0], [0.0, 0.005, 0.0], [0.1, 0.3, 0.2]])
    found = _recovered(courses, np.array([True, False, True, True]))

    assert found["pressed and alive"] == 2
    assert found["of them under no penalty at the end"] == 1
    assert found["recovering"] == [[0.0, 0.5, 0.0], [0.1, 0.3, 0.2]]
    assert found["removed"] == [[0.2, 0.6, 1.0]]
