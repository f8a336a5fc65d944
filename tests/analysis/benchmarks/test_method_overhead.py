"""The benchmark of what regularisers cost: its arithmetic, its table, and that its loops see what a real stage has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.analysis.benchmarks import method_overhead
from autoprune.analysis.benchmarks.method_overhead import Row, Side, Subject, alone, staged, table
from autoprune.methods import Context, Stage
from autoprune.methods.magnitude import L1
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState


def row(method: str = "greg1", *, whole: float = 0.01, alone: float = 0.001) -> Row:
    """Plain steps of 0.1, 0.2 and 0.7 s; the middle ratio is 1 + `whole`."""
    ratios = (0.5, 1 + whole, 3)
    plain = [0.2, 0.1, 0.7]
    pressed = [seconds * ratio for seconds, ratio in zip(plain, ratios, strict=True)]
    return Row(method=method, plain=plain, pressed=pressed, alone=alone)


def test_shares_are_medians_of_ratios_within_a_round_and_the_regulariser_over_the_median_plain_step() -> None:
    assert row(whole=0.03).whole == pytest.approx(0.03)
    assert row(alone=0.004).apart == pytest.approx(0.004 / 0.2)


@pytest.mark.parametrize(("method", "whole", "alone", "met"), [
    ("greg1", 0.049, 0.009, True),
    ("greg1", 0.051, 0.009, False),
    ("greg1", 0.049, 0.011, False),
    ("orthoreg", 0.051, 0.011, True),
    ("orthoreg", 0.151, 0.011, False),
    ("orthoreg", 0.051, 0.031, False),
    ("bn_scale", 0.5, 0.5, None),
])  # fmt: skip
def test_a_limit_is_met_if_both_numbers_are_within_it(
    method: str, whole: float, alone: float, met: bool | None
) -> None:
    assert row(method, whole=whole, alone=alone).met is met


def test_the_table_has_a_line_per_method() -> None:
    rows = [row(whole=0.034, alone=0.0026), row("orthoreg", whole=0.2), row("bn_scale", whole=-0.011)]
    text = table(rows, "a machine")

    assert "a machine" in text
    assert text.splitlines()[-3:] == [
        "| greg1 | 200.0 | 103.4 | +3.4% | 2.60 | 1.3% | 5% | met |",
        "| orthoreg | 200.0 | 120.0 | +20.0% | 1.00 | 0.5% | 15% | **not met** |",
        "| bn_scale | 200.0 | 100.0 | -1.1% | 1.00 | 0.5% |  |  |",
    ]


def test_every_method_with_a_limit_is_measured() -> None:
    assert set(method_overhead.LIMITS) < set(staged())
    assert "dense" not in staged()


class Watcher(L1):
    """A method whose regulariser notes the steps it sees, and shrinks the classifier."""

    seen: list[tuple[str, int, int]] = []  # noqa: RUF012 - shared, as the method is frozen
    weights: list[torch.Tensor] = []  # noqa: RUF012

    def sparsify(self, context: Context, stage: Stage) -> Any:
        return self

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.seen.append(("before", step, steps))
        self.weights.append(model.classifier.weight.detach().clone())

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.seen.append(("after", step, steps))
        model.classifier.weight.data.mul_(0.5)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> Subject:
    """Digits instead of CIFAR-10; a stage has 22 steps, a round five of them."""
    assert data_folder.is_dir()
    monkeypatch.setattr(method_overhead, "IMAGES", 22 * method_overhead.BATCH)
    monkeypatch.setattr(method_overhead, "PARTS", 4)
    monkeypatch.setattr(Watcher, "seen", [])
    monkeypatch.setattr(Watcher, "weights", [])
    task = load_task({"data": {"name": "digits"}, "model": {"name": "digits_net", "train": {"images": 0}}})
    return Subject(task, SharedState.of(task, Runtime(threads=1)))


def steps(*numbers: int) -> list[tuple[str, int, int]]:
    return [(when, step, 22) for step in numbers for when in ("before", "after")]


def test_rounds_go_through_the_stage_step_by_step_and_begin_another_when_it_is_over(subject: Subject) -> None:
    side = Side(subject, Watcher())
    seconds = [side.round() for _ in range(5)]

    assert Watcher.seen == steps(*range(20), *range(5))
    assert min(seconds) > 0


def test_alone_a_regulariser_sees_all_steps_of_a_stage_with_the_same_weights(subject: Subject) -> None:
    assert alone(subject, Watcher()) > 0
    assert Watcher.seen == steps(*range(22))
    assert all(torch.equal(weights, Watcher.weights[0]) for weights in Watcher.weights)
    assert Watcher.weights[0].any()
