"""Cross entropy and Dice by hand, on pixels that count."""

from __future__ import annotations

import math

import pytest
import torch

from autoprune.errors import InputError
from autoprune.tasks.segmentation.losses import LossSpec, cross_entropy, dice_loss

#: One row of three pixels and two classes: shares of class 1 are 3/4, 1/2 and 9/10; the last pixel is ignored.
LOGITS = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, math.log(9)]]).view(1, 2, 1, 3)
MASKS = torch.tensor([[[1, 0, 255]]])


def test_cross_entropy_is_the_mean_over_pixels_that_count() -> None:
    assert float(cross_entropy(LOGITS, MASKS)) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2)) / 2)


def test_label_smoothing_moves_a_share_to_all_classes() -> None:
    first = -(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4))
    second = -math.log(1 / 2)

    assert float(cross_entropy(LOGITS, MASKS, 0.2)) == pytest.approx((first + second) / 2)


def test_dice_is_taken_per_class_over_all_pixels_that_count() -> None:
    background = 2 * (1 / 2) / ((1 / 4 + 1 / 2) + 1)
    digit = 2 * (3 / 4) / ((3 / 4 + 1 / 2) + 1)

    assert float(dice_loss(LOGITS, MASKS)) == pytest.approx(1 - (background + digit) / 2)


def test_a_class_that_no_mask_holds_has_no_dice() -> None:
    only_first = torch.tensor([[[1, 255, 255]]])

    assert float(dice_loss(LOGITS, only_first)) == pytest.approx(1 - 2 * (3 / 4) / (3 / 4 + 1))


def test_a_batch_of_ignored_pixels_costs_nothing_and_has_gradients() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = LossSpec(dice=1.0).of(logits, torch.full((1, 1, 3), 255), 0.0)
    loss.backward()

    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_parts_are_added_with_their_weights() -> None:
    both = LossSpec(cross_entropy=0.25, dice=3.0).of(LOGITS.bfloat16(), MASKS, 0.0)
    by_hand = 0.25 * cross_entropy(LOGITS.bfloat16().float(), MASKS) + 3 * dice_loss(LOGITS.bfloat16().float(), MASKS)

    assert both.dtype == torch.float32
    assert float(both) == pytest.approx(float(by_hand))


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="cross_entropy or dice above 0"):
        LossSpec(cross_entropy=0)
