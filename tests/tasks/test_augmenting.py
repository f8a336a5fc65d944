"""torchvision's operations and mixtures draw from streams of their own; mixed batches have shares as targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from autoprune.errors import InputError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.tasks.augmenting import MixedImages, operated
from autoprune.tasks.base import LabelledImages, Pixels
from autoprune.tasks.checks import check_task
from autoprune.tasks.data import load_splits
from autoprune.tasks.data_spec import DataSpec
from autoprune.tasks.resident import Resident
from autoprune.training.seeds import drawing_from, random_stream

CLASSES = 13
EVERYTHING = ("crop", "flip", "trivial_augment", "rand_augment", "mixup", "cutmix")


def resident(*augment: str, count: int = 11, size: int = 16, labels: Tensor | None = None) -> LabelledImages:
    """Random images; those after the first have the classes 1, 2, ..."""
    images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=random_stream(1))
    pixels = Pixels(mean=(0.0,) * 3, std=(1.0,) * 3, scale=255.0, augment=augment)
    found = torch.arange(count) if labels is None else labels
    plain = Resident(images=images, labels=found, pixels=pixels)
    classes = CLASSES if labels is None else labels.shape[1]
    return MixedImages(unmixed=plain, classes=classes) if {"mixup", "cutmix"} & set(augment) else plain


def batches(split: LabelledImages, size: int = 5, *, seed: int | None = 7, start: int = 0) -> list[Any]:
    return list(split.batches(torch.arange(len(split)), size, seed=seed, start=start))


@pytest.mark.parametrize(
    ("name", "reference"), [("trivial_augment", v2.TrivialAugmentWide()), ("rand_augment", v2.RandAugment())]
)
def test_operations_are_torchvisions_and_each_image_has_a_stream_of_its_own(name: str, reference: Any) -> None:
    split = resident(name)
    found = torch.cat([inputs for inputs, _ in batches(split)])
    expected = []
    for place, image in enumerate(split.images):
        with drawing_from(random_stream(7, place, 1)):
            expected.append(reference(image.permute(2, 0, 1)) / 255)

    torch.testing.assert_close(found, torch.stack(expected))
    assert not torch.equal(found, torch.cat([inputs for inputs, _ in batches(split, seed=None)]))


def test_operations_run_in_the_order_that_they_are_named_in() -> None:
    image = resident().images[0].permute(2, 0, 1)
    stream, again = random_stream(3), random_stream(3)
    both = operated(image, ("flip", "trivial_augment", "mixup", "rand_augment"), stream)

    assert torch.equal(both, operated(operated(image, ("trivial_augment",), again), ("rand_augment",), again))


@pytest.mark.parametrize("augment", [EVERYTHING, ("mixup",), ("cutmix",), ("rand_augment",)])
def test_batches_depend_on_seed_and_place_alone(augment: tuple[str, ...]) -> None:
    split, before = resident(*augment), torch.get_rng_state()
    whole = batches(split)

    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    for (inputs, labels), (again, labels_again) in zip(whole[1:], batches(split, start=1), strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(labels, labels_again)
    assert not torch.equal(whole[0][0], batches(split, seed=8)[0][0])
    assert whole[0][0].is_contiguous(memory_format=torch.channels_last)


def test_operations_do_not_depend_on_the_size_of_batches() -> None:
    split = resident("crop", "trivial_augment")
    whole, parts = (torch.cat([inputs for inputs, _ in batches(split, size)]) for size in (11, 3))

    assert torch.equal(whole, parts)


def test_mixup_mixes_each_image_and_its_class_with_the_one_before() -> None:
    plain, _ = batches(resident(), 11)[0]
    inputs, targets = batches(resident("mixup"), 11)[0]
    share = targets[3, 3].item()

    assert 0 < share < 1
    assert (targets.dtype, tuple(targets.shape)) == (torch.float32, (11, CLASSES))
    torch.testing.assert_close(inputs, share * plain + (1 - share) * plain.roll(1, 0))
    eye = torch.eye(CLASSES)[:11]
    torch.testing.assert_close(targets, share * eye + (1 - share) * eye.roll(1, 0))


def test_cutmix_puts_a_part_of_the_image_before_into_each() -> None:
    plain, _ = batches(resident(), 11)[0]
    inputs, targets = batches(resident("cutmix"), 11)[0]
    own, other = ((inputs == images).all(1) for images in (plain, plain.roll(1, 0)))

    assert bool((own | other).all())
    assert targets[3, 3].item() == pytest.approx(own[3].float().mean().item())
    assert 0 < targets[3, 3].item() < 1
    torch.testing.assert_close(targets.sum(1), torch.ones(11))


def test_of_both_mixtures_each_batch_has_one() -> None:
    split, plain = resident("mixup", "cutmix"), [inputs for inputs, _ in batches(resident(), 1, seed=None)]
    order = torch.arange(2).repeat(30)
    whole = list(split.batches(order, 2, seed=3))
    cut = [torch.isin(inputs, torch.cat(plain[:2])).all().item() for inputs, _ in whole]

    assert 5 < sum(cut) < 25
    assert len({targets[0, 0].item() for _, targets in whole}) > 25


def test_without_a_seed_nothing_is_augmented() -> None:
    for (inputs, labels), (expected, classes) in zip(
        batches(resident(*EVERYTHING), seed=None), batches(resident(), seed=None), strict=True
    ):
        assert torch.equal(expected, inputs)
        assert torch.equal(classes, labels)


def test_several_labels_are_mixed_too() -> None:
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]])
    _, targets = batches(resident("mixup", labels=labels, count=3))[0]
    share = targets[2, 0].item()  # only the image itself has this label, not the one before

    assert 0 < share < 1
    torch.testing.assert_close(targets, share * labels + (1 - share) * labels.roll(1, 0))


def test_images_stay_where_the_operations_run() -> None:
    assert resident("mixup", "flip").to("meta").unmixed.images.device.type == "meta"
    assert resident("mixup", "rand_augment").to("meta").unmixed.images.device.type == "cpu"


def write_images(folder: Path) -> Path:
    for part, count in (("train", 5), ("val", 2), ("test", 2)):
        for number in range(2 * count):
            target = folder / part / ("cat", "dog")[number % 2]
            target.mkdir(parents=True, exist_ok=True)
            image = torch.randint(0, 256, (19, 23, 3), dtype=torch.uint8, generator=random_stream(number, count))
            Image.fromarray(image.numpy()).save(target / f"{number}.png")
    return folder


def test_image_folders_are_augmented_alike_whatever_the_number_of_workers(tmp_path: Path) -> None:
    path, found, before = str(write_images(tmp_path)), [], torch.get_rng_state()
    for workers in (0, 2):
        spec = DataSpec(name="image_folder", path=path, size=16, workers=workers, augment=EVERYTHING)
        splits, _ = load_splits(spec, "data")
        found.append(batches(splits["train"], 4))
        validation = [batches(splits["validation"], 4, seed=seed)[0] for seed in (None, 3)]

    for (inputs, targets), (other, other_targets) in zip(*found, strict=True):
        assert torch.equal(inputs, other)
        assert torch.equal(targets, other_targets)
    assert found[0][0][1].shape == (4, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(validation[0][0], validation[1][0])
    assert validation[1][1].dtype == torch.int64


def digits(*augment: str, **changes: Any) -> Any:
    model = {"name": "digits_net", "train": {"images": 0}}
    return load_task({"data": {"name": "digits", "augment": list(augment)}, "model": model, **changes})


WEIGHT = [1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 7.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("loss", "weight"), [("CrossEntropyLoss", None), ({"name": "CrossEntropyLoss", "weight": WEIGHT}, WEIGHT)]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_mixed_images_is_the_mean_of_both_classes_by_their_shares(
    loss: Any, weight: list[float] | None, smoothing: float
) -> None:
    task = digits("mixup", loss=loss)
    inputs, targets = next(task.train.batches(torch.arange(7), 7, seed=3))
    labels = task.train.labels[:7]
    model = task.model()
    value, logits = task.loss(model, (inputs, targets), Training(label_smoothing=smoothing))
    log_shares, weights = logits.log_softmax(1), torch.ones(10) if weight is None else torch.tensor(weight)
    smoothed = targets * (1 - smoothing) + smoothing / 10

    torch.testing.assert_close(value, -(weights * smoothed * log_shares).sum(1).mean())
    assert not torch.equal(F.one_hot(labels, 10).float(), targets)


def test_a_loss_that_cannot_use_shares_is_known_before_a_search() -> None:
    task = digits("mixup", loss={"name": "CrossEntropyLoss", "ignore_index": 7})

    with pytest.raises(InputError, match="the loss fails: RuntimeError: ignore_index is not supported"):
        check_task(task, task.model())
    plain = digits("crop", loss={"name": "CrossEntropyLoss", "ignore_index": 7})
    check_task(plain, plain.model())
