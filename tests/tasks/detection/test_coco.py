"""COCO's format as files have it, and what is wrong with one said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scene_folders import write_coco

from autoprune.errors import DataError
from autoprune.tasks.detection.coco import find_parts, read_part


@pytest.fixture
def sample(tmp_path: Path) -> dict[str, Any]:
    Image.new("RGB", (11, 7)).save(tmp_path / "a.png")
    Image.new("RGB", (11, 7)).save(tmp_path / "b.png")
    images = [{"id": 5, "file_name": name, "width": 11, "height": 7} for name in ("a.png", "b.png")]
    images[1]["id"] = 2
    categories = [{"id": 90, "name": "zebra"}, {"id": 7, "name": "train"}]
    boxes = [
        {"image_id": 5, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 5, "category_id": 7, "bbox": [0.5, 0, 2.5, 6], "iscrowd": 1},
    ]
    return {"images": images, "categories": categories, "annotations": boxes}


def read(data: object, folder: Path) -> Any:
    file = folder / "boxes.json"
    file.write_text(json.dumps(data))
    return read_part(file, folder)


def test_boxes_become_corners_and_categories_labels_from_one(sample: dict[str, Any], tmp_path: Path) -> None:
    images, classes = read(sample, tmp_path)

    assert classes == ("train", "zebra")
    assert [Path(image.file).name for image in images] == ["a.png", "b.png"]
    assert {(image.width, image.height) for image in images} == {(11, 7)}
    assert [(box.corners, box.label, box.ignored) for box in images[0].boxes] == [
        ((1, 2, 4, 6), 2, False),
        ((0.5, 0, 3, 6), 1, True),
    ]
    assert images[1].boxes == ()


def test_a_categorys_number_may_be_its_label(sample: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(sample))

    images, classes = read_part(tmp_path / "boxes.json", tmp_path, by_number=True)

    assert len(classes) == 90
    assert (classes[6], classes[89], classes[0]) == ("train", "zebra", "no category 1")
    assert [box.label for box in images[0].boxes] == [90, 7]
    sample["categories"].append({"id": 0, "name": "background"})
    (tmp_path / "boxes.json").write_text(json.dumps(sample))
    with pytest.raises(DataError, match="category 0; allowed: numbers from 1"):
        read_part(tmp_path / "boxes.json", tmp_path, by_number=True)


def break_category(data: dict[str, Any]) -> None:
    data["annotations"][0]["category_id"] = 8


def break_image(data: dict[str, Any]) -> None:
    data["annotations"][0]["image_id"] = 8


def break_box(data: dict[str, Any]) -> None:
    data["annotations"][0]["bbox"] = [1, 2, 3]


def break_key(data: dict[str, Any]) -> None:
    del data["images"][1]["file_name"]


def break_file(data: dict[str, Any]) -> None:
    data["images"][1]["file_name"] = "c.png"


def break_images(data: dict[str, Any]) -> None:
    data["images"], data["annotations"] = [], []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (break_category, "a box of category 8; allowed: 7, 90"),
        (break_image, "boxes of image 8, which is not listed"),
        (break_box, "not in COCO's format: not enough values to unpack"),
        (break_key, "not in COCO's format: no key 'file_name'"),
        (break_file, r"no image .*c\.png \(1 of 2 are missing\)"),
        (break_images, "no images"),
    ],
)
def test_what_is_wrong_is_said_of_the_file(
    spoil: Callable[[dict[str, Any]], None], words: str, sample: dict[str, Any], tmp_path: Path
) -> None:
    spoil(sample)

    with pytest.raises(DataError, match=rf"boxes\.json: {words}"):
        read(sample, tmp_path)


def test_files_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a mapping"):
        read([1, 2], tmp_path)
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(DataError, match=r"torn\.json: not a readable JSON file"):
        read_part(tmp_path / "torn.json", tmp_path)


def test_parts_are_found_in_cocos_layout_and_in_that_with_a_file_per_folder(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017", 1)
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "_annotations.coco.json").write_text("{}")

    assert find_parts(tmp_path) == {
        "train": (tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017"),
        "valid": (tmp_path / "valid" / "_annotations.coco.json", tmp_path / "valid"),
    }
