"""Pairs of files: image and mask move together, and what is wrong with a mask is said of its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.errors import DataError
from autoprune.tasks.base import Pixels
from autoprune.tasks.segmentation.files import IGNORED, StreamedMasks

PLAIN = Pixels(mean=(0.0,) * 3, std=(1.0,) * 3, scale=255.0)


def write_pair(folder: Path, mask: np.ndarray, mode: str = "L") -> tuple[str, str]:
    """An image whose grey value is 10 times the mask's class, in PNG so that it stays exact."""
    image, file = folder / "image.png", folder / "mask.png"
    Image.fromarray((mask * 10).astype(np.uint8)).save(image)
    Image.fromarray(mask.astype(np.uint8)).convert(mode).save(file)
    return str(image), str(file)


def split_of(pair: tuple[str, str], size: int, *augment: str, count: int = 1) -> StreamedMasks:
    pixels = Pixels(mean=PLAIN.mean, std=PLAIN.std, scale=255.0, augment=augment)
    return StreamedMasks(files=(pair,) * count, classes=12, size=size, workers=0, pixels=pixels)


def test_the_longer_side_fits_and_what_lies_beyond_is_black_and_ignored(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, np.full((4, 8), 7))

    images, masks = next(split_of(pair, 4).batches(torch.tensor([0]), 1))

    assert images.shape == (1, 3, 4, 4)
    assert masks[0].tolist() == [[7] * 4, [7] * 4, [IGNORED] * 4, [IGNORED] * 4]
    assert torch.allclose(images[0, :, :2], torch.tensor(70 / 255))
    assert not images[0, :, 2:].any()


@pytest.mark.parametrize("augment", [("flip",), ("crop",), ("flip", "crop")])
def test_image_and_mask_are_augmented_together_and_anew_for_every_place(
    tmp_path: Path, augment: tuple[str, ...]
) -> None:
    columns = np.repeat(np.arange(12), 4)
    split = split_of(write_pair(tmp_path, np.tile(columns, (48, 1))), 24, *augment, count=9)

    images, masks = next(split.batches(torch.arange(9), 9, seed=5))

    # where a column of the mask is not beside another class, the image has just that class's grey
    inside = (masks == masks.roll(1, 2)) & (masks == masks.roll(-1, 2))
    inside[:, :, [0, -1]] = False
    if "crop" not in augment:  # parts are scaled up by no whole number: their grey lies between classes
        assert torch.allclose(images[:, 0][inside], masks[inside] * 10 / 255, atol=1e-6)
    assert ((images[:, 0] * 25.5 - masks).abs() < 0.75).all()
    assert len({mask.numpy().tobytes() for mask in masks}) > (1 if augment == ("flip",) else 5)
    again, _ = next(split.batches(torch.arange(9), 9, seed=5))
    assert torch.equal(images, again)


def test_without_a_seed_nothing_is_augmented(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, np.tile(np.arange(8), (8, 1)))

    _, masks = next(split_of(pair, 8, "flip", "crop", count=3).batches(torch.arange(3), 3))

    assert masks[:, 0].tolist() == [list(range(8))] * 3


def test_a_class_the_task_does_not_have_is_named_with_its_file(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, np.array([[0, 12], [255, 200]]))

    with pytest.raises(DataError, match=r"mask\.png: classes \[12, 200\] in a mask; allowed: 0 to 11, 255 = ignored"):
        next(split_of(pair, 4).batches(torch.tensor([0]), 1))


def test_a_mask_of_colours_is_refused(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, np.zeros((3, 3)), mode="RGB")

    with pytest.raises(DataError, match=r"mask\.png: a mask of mode RGB"):
        next(split_of(pair, 4).batches(torch.tensor([0]), 1))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    image, mask = write_pair(tmp_path, np.zeros((3, 5)))
    Image.fromarray(np.zeros((5, 3), dtype=np.uint8)).save(mask)

    with pytest.raises(DataError, match="image and mask are 3x5 and 5x3"):
        next(split_of((image, mask), 4).batches(torch.tensor([0]), 1))


def test_the_fingerprint_is_of_files_and_size(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, np.zeros((3, 5)))
    other = write_pair(tmp_path / ".", np.zeros((3, 5)))

    assert split_of(pair, 4).fingerprint() == split_of(other, 4).fingerprint()
    assert split_of(pair, 4).fingerprint() != split_of(pair, 5).fingerprint()
