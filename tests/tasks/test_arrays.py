"""Images and labels of users: what is wrong is said with how to put it right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from autoprune.errors import DataError
from autoprune.tasks.arrays import are_one_hot, check_varied, checked_images, checked_labels

WITH_NAN = np.zeros((7, 5, 5, 3), np.float32)
WITH_NAN[3, 2, 2, 1] = np.nan


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((7, 3, 11, 13), np.uint8), r"channels come first; allowed: .*images\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((7, 1, 28, 28), np.uint8), "channels come first"),
        (np.zeros((7, 5, 5, 3), np.uint16) + 700, r"uint16 .*they go from 700 to 700, \(images / 700\)"),
        (np.zeros((7, 5, 5, 3), np.int64) + 255, r"int64 .*images\.astype\('uint8'\)"),
        (np.zeros((7, 5, 5, 3), bool), r"images are bool \(7, 5, 5, 3\); allowed: uint8 or float"),
        (np.zeros((0, 5, 5, 3), np.uint8), "there are none; allowed: one image or more"),
        (np.zeros((7, 5), np.uint8), r"images are uint8 \(7, 5\)"),
        (WITH_NAN, "NaN or infinity, 1 of 7, the first is number 3"),
        ([np.zeros((5, 5, 3)), np.zeros((5, 7, 3))], r"several sizes, \(5, 5, 3\) and \(5, 7, 3\)"),
        (None, "images are a NoneType of objects"),
    ],
)
def test_what_is_wrong_with_images(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^mine: train: .*{message}"):
        checked_images(images, "mine: train")


@pytest.mark.parametrize("shape", [(7, 3, 3, 2), (7, 1, 13, 64), (7, 28, 28), (7, 3, 3, 3), (7, 32, 3, 3)])
def test_small_images_and_signals_are_images_too(shape: tuple[int, ...]) -> None:
    assert tuple(checked_images(np.zeros(shape, np.uint8), "").shape) == (*shape, 1)[:4]


def test_tensors_are_arrays() -> None:
    assert torch.equal(checked_images(torch.ones(7, 5, 5, 3), ""), torch.ones(7, 5, 5, 3))


def test_images_that_are_all_the_same() -> None:
    with pytest.raises(DataError, match="all pixels of all images are 7; allowed: images that differ"):
        check_varied(torch.full((3, 5, 5, 1), 7, dtype=torch.uint8), "mine: train")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(7) - 1, r"labels go from -1 to 5, 1 are negative; allowed: .*labels - labels\.min\(\)"),
        (np.arange(6), r"labels are int64 \(6,\), 6 for 7 images"),
        (np.eye(7), r"one-hot; allowed: \(7,\): labels\.argmax\(1\)"),
        (np.arange(7)[:, None], r"a column; allowed: \(7,\): labels\[:, 0\]"),
        (np.arange(7.0), r"float64 .*labels\.astype\('int64'\)"),
        (np.full(7, np.nan), r"labels are float64 \(7,\); allowed: whole numbers from 0 or names, \(7,\)"),
        (np.full(7, 2**40), r"a label is 1099511627776; allowed: classes numbered from 0, at most 1,048,576"),
        (np.full((7, 2), 3), "a label is 3; allowed: 0 and 1, where images have several"),
        (np.zeros((7, 0), int), r"labels are int64 \(7, 0\)"),
        (np.zeros((7, 2, 2), int), r"labels are int64 \(7, 2, 2\)"),
    ],
)
def test_what_is_wrong_with_labels(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        checked_labels(labels, 7, "mine: train")


def test_labels_as_losses_take_them() -> None:
    several = np.array([[1, 0, 1], [0, 0, 0]])

    assert checked_labels(np.uint8([3, 0]), 2, "").dtype == torch.int64
    assert checked_labels(several, 2, "").dtype == torch.float32
    assert are_one_hot(checked_labels(np.eye(3, dtype=int), 3, ""))
    assert not are_one_hot(checked_labels(several, 2, ""))
