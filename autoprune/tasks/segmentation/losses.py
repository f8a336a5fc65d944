"""Losses of semantic segmentation: cross entropy and Dice over the pixels that are not ignored."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.errors import InputError
from autoprune.schema import within
from autoprune.tasks.segmentation.files import IGNORED


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """The `loss:` mapping of a segmentation task: what each part of the loss is multiplied with.

    Fields:
        cross_entropy, dice: of the network's output.
        auxiliary: of the same loss of the second output that some of torchvision's networks have in training.
    """

    cross_entropy: float = field(default=1.0, metadata=within(0, 1000))
    dice: float = field(default=0.0, metadata=within(0, 1000))
    auxiliary: float = field(default=0.5, metadata=within(0, 1000))

    def __post_init__(self) -> None:
        if self.cross_entropy == self.dice == 0:
            raise InputError("a loss of nothing", where="task.loss", allowed="cross_entropy or dice above 0")

    def of(self, logits: Tensor, masks: Tensor, smoothing: float) -> Tensor:
        """The loss of logits (N, classes, H, W) for masks (N, H, W), float32; smoothing: of the labels."""
        logits, total = logits.float(), logits.new_zeros((), dtype=torch.float32)
        if self.cross_entropy:
            total = total + self.cross_entropy * cross_entropy(logits, masks, smoothing)
        if self.dice:
            total = total + self.dice * dice_loss(logits, masks)
        return total


def cross_entropy(logits: Tensor, masks: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the pixels that count; 0 where none does (torch's own mean is NaN there)."""
    total = F.cross_entropy(logits, masks, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
    return total / (masks != IGNORED).sum().clamp_min(1)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - 2 sum(p t) / (sum(p) + sum(t)) over all pixels of the batch, mean over the classes that its masks hold.

    p: the softmax's share of a class, t: whether the mask has it (Milletari et al. 2016, section 3, without squares).
    """
    counts = (masks != IGNORED)[:, None]
    wanted = F.one_hot(masks.where(masks != IGNORED, 0), logits.shape[1]).permute(0, 3, 1, 2) * counts
    shares = logits.softmax(1) * counts
    both, wanted_sum = (shares * wanted).sum((0, 2, 3)), wanted.sum((0, 2, 3))
    dice = 2 * both / (shares.sum((0, 2, 3)) + wanted_sum).clamp_min(1e-6)
    held = wanted_sum > 0
    return ((1 - dice) * held).sum() / held.sum().clamp_min(1)
