"""Images and masks in memory move together."""

from __future__ import annotations

import torch

from autoprune.tasks.base import Pixels
from autoprune.tasks.segmentation.files import IGNORED
from autoprune.tasks.segmentation.resident import ResidentMasks


def split(*augment: str) -> ResidentMasks:
    """Seven images of 16 x 16 whose grey is 10 times the class of the pixel's column plus one."""
    masks = torch.arange(16, dtype=torch.uint8).expand(7, 16, 16).contiguous()
    pixels = Pixels(mean=(0.0,), std=(1.0,), scale=1.0, augment=augment)
    return ResidentMasks(images=(10 * (masks + 1))[..., None], masks=masks, pixels=pixels)


def test_batches_follow_the_order() -> None:
    found = list(split().batches(torch.tensor([6, 0, 3]), 2))

    assert [tuple(images.shape) for images, _ in found] == [(2, 1, 16, 16), (1, 1, 16, 16)]
    assert found[0][1].dtype == torch.int64
    assert torch.equal(found[0][0][:, 0], 10.0 * (found[0][1] + 1))


def test_image_and_mask_move_together_and_nothing_beyond_the_border_counts() -> None:
    (images, masks), *rest = split("flip", "crop").batches(torch.arange(7), 7, seed=3)

    beyond = masks == IGNORED
    assert not rest
    assert beyond.any()
    assert not images[:, 0][beyond].any()
    assert torch.equal(images[:, 0][~beyond], 10.0 * (masks[~beyond] + 1))
    assert len({mask.numpy().tobytes() for mask in masks}) > 3


def test_ignored_pixels_stay_ignored_when_they_move() -> None:
    one = split("crop")
    one.masks[:] = IGNORED

    (_, masks), *_ = one.batches(torch.arange(7), 7, seed=3)

    assert masks.unique().tolist() == [IGNORED]


def test_batches_left_out_change_none() -> None:
    whole = list(split("flip", "crop").batches(torch.arange(7), 2, seed=11))
    rest = list(split("flip", "crop").batches(torch.arange(7), 2, seed=11, start=2))

    assert len(rest) == 2
    assert all(
        torch.equal(a, b) for one, two in zip(whole[2:], rest, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_the_fingerprint_is_of_pixels_and_masks() -> None:
    one, other = split(), split()
    assert one.fingerprint() == other.fingerprint()

    other.masks[3, 2, 1] = 5

    assert one.fingerprint() != other.fingerprint()
