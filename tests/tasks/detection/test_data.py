"""Detection data sets by name, as splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scene_folders import write_coco, write_voc_boxes

from autoprune.errors import DataError, InputError
from autoprune.schema import read
from autoprune.tasks.detection.data import BoxDataSpec, load_splits
from autoprune.tasks.detection.splits import ImagesWithBoxes
from autoprune.tasks.digit_scenes import CLASSES, make_scenes


def load(**fields: Any) -> tuple[dict[str, ImagesWithBoxes], tuple[str, ...]]:
    return load_splits(read(BoxDataSpec, fields, "data"), "data")


def test_digit_scenes_are_images_from_zero_to_one_with_their_boxes() -> None:
    arguments = {"train": 13, "validation": 7, "test": 5, "size": 32}
    splits, classes = load(name="digit_scenes", arguments=arguments, augment=["scale"])
    scenes = make_scenes(arguments, "test")["train"]

    ((images, targets),) = splits["train"].batches(torch.tensor([12, 0]), 2)

    assert {name: len(split) for name, split in splits.items()} == {"train": 13, "validation": 7, "test": 5}
    assert classes == CLASSES
    assert images[0].shape == (1, 32, 32)
    assert torch.equal(images[0][0], scenes.images[12, ..., 0] / 255)
    assert torch.equal(targets[0]["boxes"], scenes.boxes[12])
    assert torch.equal(targets[1]["labels"], scenes.labels[0])
    assert splits["train"].augment == ("scale",)
    assert splits["test"].augment == ()


def test_coco_folders(tmp_path: Path) -> None:
    scenes = write_coco(tmp_path, "train2017", 5)
    write_coco(tmp_path, "val2017", 4)
    parts = {"validation": "val[:2]", "test": "val[2:]"}

    splits, classes = load(name="coco", path=str(tmp_path), splits=parts, workers=0)
    ((images, targets),) = splits["train"].batches(torch.tensor([3]), 1)

    assert {name: len(split) for name, split in splits.items()} == {"train": 5, "validation": 2, "test": 2}
    assert classes == tuple(f"digit {digit}" for digit in range(10))
    assert torch.equal(images[0][1], scenes.images[3, ..., 0] / 255)
    assert torch.equal(targets[0]["boxes"], scenes.boxes[3])
    assert torch.equal(targets[0]["labels"], scenes.labels[3])


def test_coco_files_may_lie_elsewhere(tmp_path: Path) -> None:
    write_coco(tmp_path, "first", 5)
    part = {"annotations": "annotations/instances_first.json", "images": "first"}
    expressions = {"train": "all[:3]", "validation": "all[3:4]", "test": "all[4:]"}

    splits, _ = load(name="coco", path=str(tmp_path), parts={"all": part}, splits=expressions, workers=0)

    assert [len(split) for split in splits.values()] == [3, 1, 1]


def test_coco_parts_need_the_same_categories(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_coco(tmp_path, part, 1)
    file = tmp_path / "annotations" / "instances_val.json"
    data = json.loads(file.read_text())
    data["categories"][3]["name"] = "three"
    file.write_text(json.dumps(data))

    with pytest.raises(DataError, match="val has other categories than test; allowed: the same categories"):
        load(name="coco", path=str(tmp_path))


def test_voc_layout_and_degenerate_boxes(tmp_path: Path) -> None:
    objects = {"a": ["dog 1 2 5 6", "dog 3 3 3 3"], "b": ["cat 1 1 4 4"], "c": ["cat 0 0 3 3"]}
    write_voc_boxes(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"], "trainval": ["a", "b"]}, objects)

    with pytest.raises(DataError, match=r": 1 degenerate boxes: dog \[3, 3, 3, 3\] of .*a\.jpg; .*drop_deg"):
        load(name="voc", path=str(tmp_path))
    splits, classes = load(name="voc", path=str(tmp_path), drop_degenerate=True, workers=0)

    ((images, targets),) = splits["train"].batches(torch.tensor([0]), 1)
    assert classes == ("cat", "dog")
    assert images[0].shape == (3, 7, 11)
    assert targets[0]["boxes"].tolist() == [[1, 2, 5, 6]]


def test_splits_that_share_files_or_hold_no_object_are_refused(tmp_path: Path) -> None:
    objects = {"a": ["dog 1 2 5 6"], "b": ["cat 1 1 4 4"], "c": ["cat 0 0 3 3 hard"]}
    write_voc_boxes(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"], "trainval": ["a", "b"]}, objects)

    with pytest.raises(InputError, match=r"train and test share a\.jpg; allowed: disjoint splits"):
        load(name="voc", path=str(tmp_path), splits={"test": "trainval[:1]"})
    with pytest.raises(DataError, match="test holds no object"):
        load(name="voc", path=str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "digit_scenes", "path": "x"}, "'path' means nothing to digit_scenes"),
        ({"name": "voc", "path": "x", "parts": {"a": {"annotations": "b", "images": "c"}}}, "'parts' means nothing"),
        ({"name": "coco", "path": "x", "classes": ["a"]}, "'classes' means nothing to coco"),
        ({"name": "coco"}, "missing key 'path'"),
        ({"name": "coco", "path": "nowhere"}, "no annotations in COCO's format"),
        ({"name": "voc", "path": "nowhere"}, "no lists of images in VOC's layout"),
        ({"name": "coco", "path": "x", "parts": {"a": {"annotations": "b"}}}, r"data\.parts\.a"),
        ({"name": "digit_scenes", "augment": ["crop"]}, r"data\.augment"),
    ],
)
def test_wrong_mappings_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(**fields)


def test_an_image_of_another_size_than_its_annotation_says_is_named(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_coco(tmp_path, part, 1)
    Image.new("RGB", (32, 31)).save(tmp_path / "train" / "0.png")
    splits, _ = load(name="coco", path=str(tmp_path), workers=0)

    with pytest.raises(DataError, match=r"0\.png: an image of \(31, 32\) pixels, by its annotation \(32, 32\)"):
        next(splits["train"].batches(torch.tensor([0]), 1))
