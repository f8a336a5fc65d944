"""Mean IoU and Dice by hand; pixels of all batches are counted together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.tasks.segmentation.metric import METRICS, PixelMetric


def logits(classes: list[list[int]]) -> Tensor:
    return F.one_hot(torch.tensor([classes]), 4).permute(0, 3, 1, 2).float()


def value(name: str) -> float:
    metric = PixelMetric(name, 4)
    metric.update(logits([[0, 0, 1, 1, 2]]), (None, torch.tensor([[[0, 1, 1, 255, 2]]])))
    metric.update(logits([[1, 1, 1]]), (None, torch.tensor([[[1, 0, 0]]])))
    return metric.value()


# class 0: 1 right, found 2, wanted 3; class 1: 2 right, found 4, wanted 3; class 2: 1, 1, 1; class 3 is nowhere
def test_mean_iou() -> None:
    assert value("miou") == pytest.approx((1 / 4 + 2 / 5 + 1) / 3)


def test_mean_dice() -> None:
    assert value("dice") == pytest.approx((2 / 5 + 4 / 7 + 1) / 3)


def test_larger_is_better_and_one_is_all_right() -> None:
    assert {spec.direction for spec in METRICS.values()} == {"maximize"}
    assert [spec.height(0.3) for spec in METRICS.values()] == [pytest.approx(0.3)] * 2
