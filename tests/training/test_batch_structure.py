"""Batches of any structure: how many images they hold, and how the inputs of one become those of several."""

import pytest
import torch

from autoprune.errors import DataError
from autoprune.training.batch_structure import describe_structure, images_in, moved, repeated

IMAGES = torch.zeros(7, 3, 5, 5)
#: Three images of different sizes, as detectors take them.
LISTED = [torch.zeros(3, 5, 11), torch.zeros(3, 7, 5), torch.zeros(3, 13, 5)]


@pytest.mark.parametrize(
    ("batch", "images"),
    [
        (IMAGES, 7),
        ((IMAGES, torch.zeros(1)), 7),
        ({"name": "a", "x": IMAGES}, 7),
        ((torch.tensor(1.0), {"x": (IMAGES,)}), 7),
        (LISTED, 3),
        ((LISTED, [{"boxes": torch.zeros(2, 4)}] * 3), 3),
        ({"images": LISTED}, 3),
    ],
)
def test_images_are_counted_whatever_holds_them(batch, images):
    assert images == images_in(batch)


def test_what_holds_no_images_is_refused():
    with pytest.raises(DataError, match="a dict without tensors"):
        images_in({"name": "a", "scale": torch.tensor(1.0)})


def test_the_inputs_of_one_image_become_those_of_several():
    image = torch.arange(15.0).reshape(1, 3, 5)

    stacked, (listed, scale), named = repeated((image, ([image[0]], torch.tensor(11.0)), {"x": image, "n": 2}), 3)

    assert torch.equal(stacked, torch.cat([image] * 3))
    assert [(3, 5)] * 3 == [tuple(one.shape) for one in listed]
    assert 11 == scale.item()
    assert torch.equal(named["x"], stacked)
    assert 2 == named["n"]


def test_only_tensors_move():
    batch = moved((LISTED, [{"boxes": torch.zeros(2, 4), "name": "a"}]), "meta")

    assert ["meta"] * 3 == [image.device.type for image in batch[0]]
    assert "meta" == batch[1][0]["boxes"].device.type
    assert "a" == batch[1][0]["name"]


def test_structures_in_words():
    batch = {"x": torch.zeros(2, 3), "y": ([torch.zeros(1)], "a")}

    assert "{x: float32 2-d, y: (a list, str)}" == describe_structure(batch)
