"""Batches of images with boxes: in order, augmented by place and seed, and known by a fingerprint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scene_folders import few_scenes, write_coco

from autoprune.tasks.detection.coco import read_part
from autoprune.tasks.detection.splits import ImagesWithBoxes, ResidentBoxes, StreamedBoxes


def resident(*augment: str) -> ResidentBoxes:
    scenes = few_scenes(7)
    pairs = zip(scenes.boxes, scenes.labels, strict=True)
    targets = tuple({"boxes": boxes, "labels": labels, "iscrowd": labels * 0} for boxes, labels in pairs)
    return ResidentBoxes(images=scenes.images.permute(0, 3, 1, 2), targets=targets, augment=augment)


def streamed(folder: Path, *augment: str) -> StreamedBoxes:
    write_coco(folder, "train", 7)
    images, _ = read_part(folder / "annotations" / "instances_train.json", folder / "train")
    return StreamedBoxes.of(tuple(images), augment, 0)


@pytest.fixture(params=["resident", "streamed"])
def split(request: pytest.FixtureRequest, tmp_path: Path) -> ImagesWithBoxes:
    return resident("flip", "scale") if request.param == "resident" else streamed(tmp_path, "flip", "scale")


def test_every_place_has_its_own_draw_and_batches_left_out_change_none(split: ImagesWithBoxes) -> None:
    order = torch.tensor([5, 5, 5, 2, 0])
    whole = list(split.batches(order, 2, seed=3))
    rest = list(split.batches(order, 2, seed=3, start=1))

    assert [len(images) for images, _ in whole] == [2, 2, 1]
    assert not torch.equal(whole[0][0][0], whole[0][0][1])
    assert all(
        torch.equal(a, b) for one, two in zip(whole[1:], rest, strict=True) for a, b in zip(one[0], two[0], strict=True)
    )
    assert torch.equal(whole[1][1][1]["boxes"], rest[0][1][1]["boxes"])


def test_without_a_seed_images_are_as_they_are(split: ImagesWithBoxes) -> None:
    ((images, targets),) = split.batches(torch.tensor([5, 5]), 2)

    assert torch.equal(images[0], images[1])
    assert torch.equal(targets[0]["boxes"], few_scenes(7).boxes[5])
    assert 0 <= images[0].min() < images[0].max() <= 1


def test_objects_that_are_ignored_are_not_counted() -> None:
    one = resident()
    count = one.objects()
    first = {**one.targets[0], "iscrowd": torch.ones_like(one.targets[0]["labels"])}

    assert count == sum(len(target["labels"]) for target in one.targets)
    assert replace(one, targets=(first, *one.targets[1:])).objects() == count - len(first["labels"])


def test_the_fingerprint_is_of_pixels_and_boxes(tmp_path: Path) -> None:
    one, other = resident(), resident("flip")
    changed = {**one.targets[0], "boxes": one.targets[0]["boxes"] + 1}

    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint() != replace(one, targets=(changed, *one.targets[1:])).fingerprint()
    files = streamed(tmp_path)
    assert files.fingerprint() == StreamedBoxes.of(files.annotated, (), 3).fingerprint()
    assert files.fingerprint() != StreamedBoxes.of(files.annotated[:-1], (), 0).fingerprint()
