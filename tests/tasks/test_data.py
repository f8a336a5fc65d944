"""Split expressions, normalisation, augmentation, and data from a user's function."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch

from autoprune.errors import DataError, InputError
from autoprune.tasks import resident
from autoprune.tasks.base import Pixels
from autoprune.tasks.data import load_splits
from autoprune.tasks.data_spec import DataSpec
from autoprune.tasks.resident import Resident, shift_and_flip
from autoprune.tasks.sources import channel_statistics


def numbers(*, train=100, test=50, dtype=np.uint8, classes=5):
    """Images whose every pixel is the image's own number."""
    made = {}
    for part, count in (("train", train), ("test", test)):
        made[f"{part}_images"] = np.arange(count).astype(dtype)[:, None, None, None] * np.ones((1, 3, 3, 2), dtype)
        made[f"{part}_labels"] = np.arange(count) % classes
    return made


def splits_of(**spec):
    return load_splits(DataSpec(function="user_data:numbers", **spec), "task.data")[0]


@pytest.fixture(autouse=True)
def user_data(monkeypatch):
    """A module of the user's."""
    module = types.ModuleType("user_data")
    module.numbers = numbers
    monkeypatch.setitem(sys.modules, "user_data", module)
    return module


def first_and_last(split):
    values = split.images[:, 0, 0, 0].tolist()
    return values[0], values[-1], len(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", (0, 99, 100)),
        ("train[:-7]", (0, 92, 93)),
        ("train[-7:]", (93, 99, 7)),
        ("train[11:13]", (11, 12, 2)),
        ("train[90:]", (90, 99, 10)),
        ("train[ :30]", (0, 29, 30)),
    ],
)
def test_expressions_choose_images(text, expected):
    splits = splits_of(splits={"train": text, "validation": "test[:20]", "test": "test[20:]"}, arguments={"classes": 2})

    assert expected == first_and_last(splits["train"])
    assert (0, 19, 20) == first_and_last(splits["validation"])
    assert (20, 49, 30) == first_and_last(splits["test"])


def test_validation_is_the_last_tenth_of_train_by_default():
    splits = splits_of(splits={"train": "train[:70]"})

    assert (0, 62, 63) == first_and_last(splits["train"])
    assert (63, 69, 7) == first_and_last(splits["validation"])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"validation": "train[90:]"}, "share 10 images"),
        ({"validation": "test[:20]", "test": "test[19:]"}, "share 1 images"),
        ({"test": "train[:3]", "validation": "test"}, "share 3 images"),
        ({"train": "train[5:5]"}, "is empty"),
        ({"train": "train[a:]"}, "is no split"),
        ({"train": "trian"}, "did you mean 'train'"),
        ({"valid": "test"}, "did you mean 'validation'"),
    ],
)
def test_wrong_splits_are_refused(splits, message):
    with pytest.raises(InputError, match=message):
        splits_of(splits=splits)


def test_classes_that_are_never_trained_are_refused():
    with pytest.raises(DataError, match=r"classes \[1, 2, 3, 4\] that train does not"):
        splits_of(splits={"train": "train[:1]", "validation": "train[1:]"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_images", np.zeros((100, 3), np.uint8), "images are uint8"),
        ("train_images", np.zeros((100, 3, 3, 2), np.int32), "images are int32"),
        ("train_images", np.full((100, 3, 3, 2), np.nan, np.float32), "NaN or infinity"),
        ("test_images", np.zeros((50, 4, 3, 2), np.uint8), "as train"),
        ("train_labels", np.zeros(99, int), "labels are int64"),
        ("train_labels", np.full(100, -1), "whole numbers from 0"),
        (
            "train_labels",
            ["cat", 7] * 50,
            "text beside something else; allowed: .* a name for each image",
        ),
        ("train_labels", ["cat"] * 100, "the labels of train are text, those of test are not, or not all"),
        ("train_labels", np.full((100, 2), "cat"), "labels are <U3"),
        ("train_labels", np.zeros(100), "labels are float64"),
        ("train_images", np.zeros((100, 3, 3, 2), np.uint8), "train: all pixels of all images are 0"),
    ],
)
def test_malformed_arrays_are_refused(user_data, key, value, message):
    user_data.numbers = lambda: {**numbers(), key: value}

    with pytest.raises(DataError, match=message):
        splits_of()


ANIMALS = ["otter", "ant", "newt", "cat", "eel"]


@pytest.mark.parametrize("kind", [list, np.array, lambda names: np.array(names, dtype=object), pd.Series])
def test_labels_that_are_names_are_numbered_as_they_are_sorted(user_data, kind):
    names = {part: kind([ANIMALS[number % 5] for number in numbers()[f"{part}_labels"]]) for part in ("train", "test")}
    user_data.numbers = lambda: {**numbers(), **{f"{part}_labels": found for part, found in names.items()}}
    splits, source = load_splits(DataSpec(function="user_data:numbers"), "task.data")

    assert ("ant", "cat", "eel", "newt", "otter") == source.classes
    assert 5 == source.num_classes
    assert [4, 0, 3, 1, 2, 4, 0] == splits["train"].labels[:7].tolist()
    assert torch.int64 == splits["train"].labels.dtype


def test_names_that_are_never_trained_are_refused_by_their_names(user_data):
    names = {"train_labels": ["cat", "eel"] * 50, "test_labels": ["cat", "ant"] * 25}
    user_data.numbers = lambda: {**numbers(), **names}

    with pytest.raises(DataError, match=r"test holds classes \['ant'\] that train does not"):
        splits_of()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "`name` or `function`"),
        ({"name": "digitz"}, "did you mean 'digits'"),
        ({"name": "digits", "path": "x"}, "belongs to image_folder"),
        ({"name": "digits", "arguments": {"a": 1}}, "belong to `function`"),
        ({"name": "digits", "mean": (0.5,)}, "both `mean` and `std`"),
        ({"name": "digits", "mean": (0.5, 0.5), "std": (1.0, 1.0)}, "one per channel"),
        ({"name": "digits", "mean": (0.5,), "std": (0.0,)}, "out of range"),
        ({"function": "nowhere:f"}, "cannot be imported"),
        ({"function": "math:tau"}, "not a function"),
        ({"function": "math"}, "names no function"),
        ({"function": "math:sqrt"}, "math:sqrt cannot be called with no arguments"),
    ],
)
def test_wrong_mappings_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        load_splits(DataSpec(**spec), "task.data")


def test_a_file_that_is_no_npz_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path))
    (tmp_path / "mnist.npz").write_bytes(b"PK nonsense")

    with pytest.raises(DataError, match=r"mnist\.npz: not a readable"):
        load_splits(DataSpec(name="mnist"), "task.data")


def test_statistics_of_the_training_images_are_the_default():
    images = torch.tensor([[0, 10], [20, 10]], dtype=torch.uint8).reshape(2, 1, 1, 2)

    mean, std = channel_statistics(images, 10.0)

    assert pytest.approx((1.0, 1.0)) == mean
    assert pytest.approx((1.0, 1.0)) == std  # the second channel is constant


def test_normalisation_by_hand():
    pixels = Pixels(mean=(0.2, 0.4), std=(0.5, 0.25), scale=255.0)
    image = torch.tensor([51, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)

    inputs = pixels.normalise(image)

    assert (1, 2, 1, 1) == inputs.shape
    assert pytest.approx([0.0, 2.4], abs=1e-6) == inputs.flatten().tolist()


def test_float_images_are_not_scaled():
    splits = load_splits(
        DataSpec(function="user_data:numbers", arguments={"dtype": "float64"}, mean=(1.0, 0.0), std=(2.0, 1.0)), "d"
    )[0]

    inputs, _ = next(splits["train"].batches(torch.tensor([7]), 1))

    assert pytest.approx(3.0) == inputs[0, 0, 0, 0].item()
    assert pytest.approx(7.0) == inputs[0, 1, 0, 0].item()


@pytest.mark.parametrize(
    ("mean", "std"), [((127.5,) * 2, (64.0,) * 2), ((0.5,) * 2, (5000.0,) * 2), ((99999.0,) * 2, (1.0,) * 2)]
)
def test_statistics_of_another_scale_than_that_of_float_images_are_refused(user_data, mean, std):
    made = numbers(dtype=np.float32)
    user_data.numbers = lambda: {
        **made,
        **{f"{part}_images": made[f"{part}_images"] / 99 for part in ("train", "test")},
    }

    with pytest.raises(InputError, match=r"not normalised; allowed: about mean: \[0\.5, 0\.5\], std: \[0\.29"):
        splits_of(mean=mean, std=std)


def test_statistics_of_stored_pixels_are_answered_with_what_to_write():
    with pytest.raises(InputError, match=r"allowed: .*mean: \[0\.5, 0\.25\], std: \[0\.3, 0\.2\]"):
        splits_of(mean=(127.5, 63.75), std=(0.3, 0.2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda count: np.zeros(count, int), "all labels are 0; allowed: two classes or more"),
        (lambda count: ["cat"] * count, "all labels are 'cat'"),
    ],
)
def test_one_class_is_nothing_to_learn(user_data, labels, message):
    user_data.numbers = lambda: {**numbers(), "train_labels": labels(100), "test_labels": labels(50)}

    with pytest.raises(DataError, match=message):
        splits_of()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda count: 1 + np.arange(count) % 5, "labels go from 1 to 5, and classes count from 0: labels - 1, if"),
        (lambda count: 2 * (np.arange(count) % 5), "labels go from 0 to 8, 5 different ones"),
        (lambda count: [ANIMALS[number % 5] for number in range(count)], "ant, cat, eel, ..."),
    ],
)
def test_how_classes_are_numbered_is_said(user_data, labels, said):
    user_data.numbers = lambda: {**numbers(), "train_labels": labels(100), "test_labels": labels(50)}

    assert load_splits(DataSpec(function="user_data:numbers"), "d")[1].numbering.startswith(said)


def test_arrays_under_other_names_are_named(user_data):
    user_data.numbers = lambda: {"x_train": 1, "y_train": 2}

    with pytest.raises(DataError, match="no array 'train_images'; there are x_train, y_train; allowed: train_images"):
        splits_of()


def test_read_only_arrays_are_copied(user_data):
    made = numbers()
    for array in made.values():
        array.flags.writeable = False
    user_data.numbers = lambda: made

    splits_of()["train"].images[0] = 255

    assert 0 == made["train_images"][0].max()


def test_shift_and_flip_move_every_pixel_as_drawn():
    images = torch.arange(1, 2 * 8 * 8 + 1, dtype=torch.int32).reshape(2, 8, 8, 1)

    moved = shift_and_flip(images, torch.tensor([[1, -1, 0], [-1, 1, 1]]))

    first = torch.zeros(8, 8, dtype=torch.int32)
    first[1:, :7] = images[0, :7, 1:, 0]  # one down, one left
    second = torch.zeros(8, 8, dtype=torch.int32)
    second[:7, 1:] = images[1, 1:, :7, 0]  # one up, one right, then mirrored
    assert torch.equal(first, moved[0, :, :, 0])
    assert torch.equal(second.flip(1), moved[1, :, :, 0])


def test_flip_alone_mirrors_about_half_and_shifts_none():
    draws = resident.draw(1000, 32, ("flip",), 3)

    assert 0 == draws[:, :2].abs().max()
    assert 440 < draws[:, 2].sum() < 560


def test_crop_alone_reaches_an_eighth_of_the_height_both_ways():
    draws = resident.draw(1000, 32, ("crop",), 3)

    assert (-4, 4) == (draws[:, :2].min(), draws[:, :2].max())
    assert 0 == draws[:, 2].max()


def test_an_image_has_the_same_draw_in_any_batch_size():
    images = torch.randint(0, 256, (12, 8, 8, 1), dtype=torch.uint8)
    pixels = Pixels(mean=(0.0,), std=(1.0,), scale=255.0, augment=("flip", "crop"))
    split = Resident(images=images, labels=torch.zeros(12, dtype=torch.int64), pixels=pixels)
    order = torch.randperm(12)

    whole = torch.cat([x for x, _ in split.batches(order, 12, seed=5)])
    parts = torch.cat([x for x, _ in split.batches(order, 5, seed=5)])

    assert torch.equal(whole, parts)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("trivial_augment", {"dtype": "float32"}, "trivial_augment of floating-point images; allowed: it is for uint8"),
        ("rand_augment", {}, "rand_augment of images with 2 channels; allowed: it is for 1 or 3"),
    ],
)
def test_operations_of_torchvision_are_for_8_bit_images(name, arguments, message):
    with pytest.raises(InputError, match=rf"task\.data\.augment: {message}"):
        splits_of(augment=("flip", name), arguments=arguments)


def test_images_of_any_kind_can_be_mixed():
    train = splits_of(augment=("mixup", "cutmix"), arguments={"dtype": "float32"})["train"]
    _, targets = next(train.batches(torch.arange(7), 7, seed=3))

    assert (7, 5) == targets.shape
    assert torch.float32 == targets.dtype
