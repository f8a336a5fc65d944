"""The page of fast widths says what its rows say; a small network is measured for real."""

from __future__ import annotations

from typing import Any

import pytest
import torchvision

from autoprune.analysis.benchmarks.fast_widths import AccuracyRow, WidthsRow, measure, page
from autoprune.study.constraints import Latency

ROW = WidthsRow(
    network="resnet18",
    runtime="onnxruntime",
    device="cpu",
    dense_ms=12.5,
    any_widths=0.79,
    any_interval=(0.75, 0.8),
    fast=0.52,
    fast_interval=(0.5, 0.53),
    flops=0.496,
    slow=3,
    machine="a machine",
)
TRAINED = [
    AccuracyRow(round_to=round_to, seed=seed, flops=0.5, metric=0.5 + seed / 8, unseen=unseen)
    for round_to, unseen in ((1, 0.75), ("auto", 0.8125))
    for seed in (0, 1)
]


def test_the_page() -> None:
    text = page([ROW], TRAINED)

    assert "| resnet18 | onnxruntime | 12.5 | 0.79 (0.75 to 0.80) | 0.52 (0.50 to 0.53) | 49.6 % | 3 |" in text
    assert "| 1 | 50.0 % | 75.00 (56.25) | 75.00 (50.00) | 75.00 (62.50) |" in text
    assert "| auto | 50.0 % | 81.25 (56.25) | 81.25 (50.00) | 81.25 (62.50) |" in text


def test_a_network_is_pruned_to_half_with_fast_widths_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(**_: Any) -> Any:
        return torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=5)

    monkeypatch.setattr(torchvision.models, "small", small, raising=False)
    (row,) = measure("small", "cpu", [Latency(runtime="eager")], 1)

    assert row.flops == pytest.approx(0.5, abs=0.01)
    assert row.dense_ms > 0
    assert row.fast_interval[0] <= row.fast <= row.fast_interval[1]
