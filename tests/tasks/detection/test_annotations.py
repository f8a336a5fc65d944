"""Boxes are cut at the border of their image; those without a width or a height are named, or dropped when asked."""

from __future__ import annotations

import pytest
import torch

from autoprune.errors import DataError
from autoprune.tasks.detection.annotations import AnnotatedImage, Box, as_target, checked


def image(*corners: tuple[float, float, float, float], file: str = "a.jpg") -> AnnotatedImage:
    boxes = tuple(Box(corners=each, label=2 - number % 2) for number, each in enumerate(corners))
    return AnnotatedImage(file=file, width=11, height=7, boxes=boxes)


def test_boxes_are_cut_at_the_border() -> None:
    parts = {"train": [image((-3, 2, 13, 9), (1, 1, 2, 2))]}
    (found,) = checked(parts, ["cat", "dog"], drop_degenerate=False, where="data")["train"]

    assert [box.corners for box in found.boxes] == [(0, 2, 11, 7), (1, 1, 2, 2)]


def test_degenerate_boxes_are_named_with_class_and_file() -> None:
    twice = image((2, 5, 6, 5), file="b.jpg")
    parts = {"train": [image((1, 1, 5, 5), (3, 4, 3, 6)), twice], "all": [twice, image((11, 1, 14, 3), file="c.jpg")]}

    with pytest.raises(DataError) as caught:
        checked(parts, ["cat", "dog"], drop_degenerate=False, where="data")

    assert str(caught.value) == (
        "data: 3 degenerate boxes: cat [3, 4, 3, 6] of a.jpg; dog [2, 5, 6, 5] of b.jpg; "
        "dog [11, 1, 11, 3] of c.jpg; allowed: boxes with a width and a height, or drop_degenerate: true"
    )


def test_a_box_that_is_not_a_number_is_degenerate() -> None:
    nan = float("nan")

    with pytest.raises(DataError, match="1 degenerate boxes"):
        checked({"train": [image((nan, 1, 5, 5))]}, ["cat", "dog"], drop_degenerate=False, where="data")


def test_degenerate_boxes_are_dropped_when_asked_and_the_image_stays() -> None:
    parts = {"train": [image((1, 1, 5, 5), (3, 4, 3, 6)), image((2, 5, 6, 5))]}
    found = checked(parts, ["cat", "dog"], drop_degenerate=True, where="data")["train"]

    assert [[box.corners for box in each.boxes] for each in found] == [[(1, 1, 5, 5)], []]


def test_targets_are_as_torchvision_and_torchmetrics_take_them() -> None:
    target = as_target([Box(corners=(1, 2, 3, 4), label=5), Box(corners=(0, 0, 7, 6), label=1, ignored=True)])
    none = as_target([])

    assert target["boxes"].tolist() == [[1, 2, 3, 4], [0, 0, 7, 6]]
    assert target["labels"].tolist() == [5, 1]
    assert target["iscrowd"].tolist() == [0, 1]
    assert none["boxes"].shape == (0, 4)
    assert none["labels"].dtype == torch.int64
