"""digit_scenes: scenes that a seed decides, with boxes and masks that belong to the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoprune.errors import InputError
from autoprune.tasks.digit_scenes import CLASSES, INK, _box_of_ink, _Canvas, _covered_share, make_scenes
from autoprune.tasks.sources import digits_by_part

FEW = {"train": 7, "validation": 5, "test": 3}


def digit(shape: tuple[int, int], ink: tuple[slice, slice]) -> np.ndarray:
    image = np.full(shape, 30, dtype=np.uint8)
    image[ink] = 200
    return image


def test_parts_have_the_asked_number_of_scenes_and_shapes() -> None:
    parts = make_scenes({**FEW, "size": 37, "channels": 3}, "data")

    assert {name: tuple(part.images.shape) for name, part in parts.items()} == {
        "train": (7, 37, 37, 3),
        "validation": (5, 37, 37, 3),
        "test": (3, 37, 37, 3),
    }
    assert parts["train"].images.dtype == parts["train"].masks.dtype == torch.uint8
    assert torch.equal(parts["train"].images[..., 0], parts["train"].images[..., 2])


def test_a_seed_decides_everything() -> None:
    one, same, other = (make_scenes({**FEW, "seed": seed}, "data") for seed in (3, 3, 4))

    for part in FEW:
        assert torch.equal(one[part].images, same[part].images)
        assert torch.equal(one[part].masks, same[part].masks)
        assert not torch.equal(one[part].images, other[part].images)


def test_more_scenes_begin_with_the_same_ones() -> None:
    few, more = make_scenes(FEW, "data")["test"], make_scenes({**FEW, "test": 5}, "data")["test"]

    assert torch.equal(few.images, more.images[:3])


def test_digits_of_a_part_are_in_no_other() -> None:
    parts = digits_by_part()
    places = [{image.tobytes() for image in images} for images, _ in parts.values()]

    assert [len(images) for images, _ in parts.values()] == [1197, 300, 300]
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert not places[1] & places[2]


def test_pasted_ink_is_in_mask_and_box_and_the_grey_around_it_is_not() -> None:
    canvas = _Canvas(np.full((20, 20), 11, dtype=np.uint8))
    seven = digit((8, 8), np.s_[2:7, 1:4])  # 5 rows, 3 columns of ink

    box = _box_of_ink(seven, top=3, left=5)
    canvas.paste(seven, label=7, top=3, left=5, box=box)

    assert box == (5 + 1, 3 + 2, 5 + 4, 3 + 7)
    assert canvas.labels == [8]
    assert (canvas.mask == 8).sum() == 15
    assert (canvas.mask[5:10, 6:9] == 8).all()
    assert canvas.image[5, 6] == 200
    assert canvas.image[3, 5] == 30  # grey of the digit, below INK
    assert canvas.image[0, 0] == 11


def test_the_last_digit_covers_the_mask_and_brighter_pixels_stay() -> None:
    canvas = _Canvas(np.zeros((9, 9), dtype=np.uint8))
    canvas.paste(np.full((3, 3), 250, dtype=np.uint8), 1, 0, 0, (0, 0, 3, 3))
    canvas.paste(np.full((3, 3), 100, dtype=np.uint8), 4, 0, 2, (2, 0, 5, 3))

    assert canvas.mask[0].tolist() == [2, 2, 5, 5, 5, 0, 0, 0, 0]
    assert canvas.image[0].tolist() == [250, 250, 250, 100, 100, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("other", "share"),
    [
        ((4, 0, 7, 5), 0.0),  # side by side
        ((3, 2, 7, 7), 1 * 3 / 20),  # 1 x 3 of the smaller 4 x 5
        ((1, 1, 2, 2), 1.0),  # inside
        ((9, 9, 11, 11), 0.0),
    ],
)
def test_covered_share(other: tuple[int, int, int, int], share: float) -> None:
    assert _covered_share((0, 0, 4, 5), other) == pytest.approx(share)


def test_boxes_lie_in_the_image_overlap_little_and_hold_ink_of_their_class() -> None:
    scenes = make_scenes({**FEW, "train": 41, "overlap": 0.1}, "data")["train"]

    for image, mask, boxes, labels in zip(scenes.images, scenes.masks, scenes.boxes, scenes.labels, strict=True):
        assert 1 <= len(boxes) <= 4
        assert boxes.min() >= 0
        assert boxes.max() <= 64
        whole = [tuple(map(int, box)) for box in boxes]
        assert all(_covered_share(a, b) <= 0.1 for i, a in enumerate(whole) for b in whole[:i])
        for (left, top, right, bottom), label in zip(whole, labels.tolist(), strict=True):
            inside = mask[top:bottom, left:right] == label
            assert inside.any()
            assert (image[top:bottom, left:right, 0][inside] >= INK).all()
        covered = torch.zeros(64, 64, dtype=torch.bool)
        for left, top, right, bottom in whole:
            covered[top:bottom, left:right] = True
        assert not (mask[~covered] > 0).any()


def test_classes_are_the_digits_after_the_background() -> None:
    scenes = make_scenes({**FEW, "train": 97}, "data")["train"]
    labels = torch.cat(scenes.labels)

    assert len(CLASSES) == 10
    assert labels.unique().tolist() == list(range(1, 11))
    assert scenes.masks.unique().tolist() == list(range(11))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 31}, "data.size"),
        ({"channels": 2}, "1 or 3"),
        ({"digits": 3}, "digits"),
        ({"overlap": 1.1}, "data.overlap"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_scenes(arguments, "data")
