"""Images and their boxes move together."""

from __future__ import annotations

import pytest
import torch

from autoprune.tasks.detection.augmenting import ZOOM, augmented
from autoprune.training.seeds import random_stream


def scene() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A white block of 8 rows and 6 columns on black, 24 x 40, and its box."""
    image = torch.zeros(1, 24, 40)
    image[:, 10:18, 20:26] = 1
    boxes = torch.tensor([[20.0, 10.0, 26.0, 18.0]])
    return image, {"boxes": boxes, "labels": torch.tensor([3]), "iscrowd": torch.tensor([0])}


def moved(seed: int, *names: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return augmented(*scene(), names, random_stream(seed))


def box_of_white(image: torch.Tensor) -> list[float]:
    rows, columns = (torch.nonzero((image[0] > 0.5).any(axis)).flatten() for axis in (1, 0))
    return [float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1]


def test_flip_mirrors_half_of_the_images_with_their_boxes() -> None:
    found = [moved(seed, "flip") for seed in range(40)]
    places = [tuple(target["boxes"][0].tolist()) for _, target in found]

    assert all(box_of_white(image) == list(place) for (image, _), place in zip(found, places, strict=True))
    assert set(places) == {(20, 10, 26, 18), (40 - 26, 10, 40 - 20, 18)}
    assert 10 < places.count((20, 10, 26, 18)) < 30


@pytest.mark.parametrize("names", [("scale",), ("flip", "scale")])
def test_scale_moves_boxes_with_what_they_hold_and_keeps_the_size_of_the_image(names: tuple[str, ...]) -> None:
    sides = []
    for seed in range(60):
        image, target = moved(seed, *names)
        assert image.shape == (1, 24, 40)
        for box in target["boxes"]:
            seen = torch.tensor(box_of_white(image))
            assert (box - seen).abs().max() <= 1.01  # a border between pixels
            sides.append(float(box[3] - box[1]))

    assert min(sides) < 8 * 0.65
    assert max(sides) > 8 * 1.25
    assert ZOOM[0] * 8 - 0.5 <= min(sides) <= max(sides) <= ZOOM[1] * 8 + 0.5


def test_an_object_of_which_little_is_left_is_gone_with_its_label() -> None:
    image = torch.zeros(1, 20, 20)
    boxes = torch.tensor([[0.0, 0.0, 2.0, 20.0], [8.0, 8.0, 12.0, 12.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "iscrowd": torch.tensor([0, 0])}

    labels = [augmented(image, target, ("scale",), random_stream(seed))[1]["labels"].tolist() for seed in range(60)]

    assert [1, 2] in labels
    assert [2] in labels
    assert all(len(found) <= 2 for found in labels)


def test_a_stream_decides_everything_and_without_names_nothing_changes() -> None:
    one, same, other = moved(3, "flip", "scale"), moved(3, "flip", "scale"), moved(4, "flip", "scale")
    plain, target = moved(3)

    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1]["boxes"], same[1]["boxes"])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(plain, scene()[0])
    assert torch.equal(target["boxes"], scene()[1]["boxes"])


def test_an_image_without_objects_can_be_zoomed() -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}

    _, target = augmented(torch.zeros(1, 9, 9), empty, ("scale", "flip"), random_stream(1))

    assert target["boxes"].shape == (0, 4)
