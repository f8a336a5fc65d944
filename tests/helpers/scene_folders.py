"""Tiny folders of images with masks or boxes, as users have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from autoprune.tasks.digit_scenes import Scenes, make_scenes


def few_scenes(count: int, size: int = 32) -> Scenes:
    return make_scenes({"size": size, "train": count, "validation": 1, "test": 1, "most": 2}, "test")["train"]


def write_mask_folder(folder: Path, count: int, size: int = 32) -> Scenes:
    """FOLDER/images/0.jpg ... and FOLDER/masks/0.png ..."""
    scenes = few_scenes(count, size)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(scenes.images[number, ..., 0].numpy()).save(folder / "images" / f"{number}.jpg")
        Image.fromarray(scenes.masks[number].numpy()).save(folder / "masks" / f"{number}.png")
    return scenes


def write_voc_masks(root: Path, names: dict[str, list[str]]) -> None:
    """VOC's layout with palette masks of 6 x 9 pixels, whose class is the number at the end of the name."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for part, listed in names.items():
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("".join(f"{name}\n" for name in listed))
    for name in {name for listed in names.values() for name in listed}:
        Image.fromarray(np.full((6, 9, 3), 77, dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(np.full((6, 9), int(name[-1]), dtype=np.uint8), mode="P")
        mask.putpalette([255 - i // 3 for i in range(768)])
        mask.save(root / "SegmentationClass" / f"{name}.png")


def write_coco(root: Path, part: str, count: int, size: int = 32) -> Scenes:
    """ROOT/annotations/instances_PART.json and ROOT/PART/0.png ...; categories 3, 6, ..., 30 are the digits."""
    scenes = few_scenes(count, size)
    (root / part).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    data: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    data["categories"] = [{"id": 3 * (digit + 1), "name": f"digit {digit}"} for digit in range(10)]
    for number in range(count):
        Image.fromarray(scenes.images[number, ..., 0].numpy()).save(root / part / f"{number}.png")
        image = {"id": 100 + number, "file_name": f"{number}.png", "width": size, "height": size}
        data["images"].append(image)
        for box, label in zip(scenes.boxes[number].tolist(), scenes.labels[number].tolist(), strict=True):
            left, top, right, bottom = box
            entry = {"id": len(data["annotations"]), "image_id": 100 + number, "category_id": 3 * label, "iscrowd": 0}
            data["annotations"].append(entry | {"bbox": [left, top, right - left, bottom - top]})
    (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(data))
    return scenes


def write_voc_boxes(root: Path, parts: dict[str, list[str]], objects: dict[str, list[str]]) -> None:
    """VOC's layout with images of 7 x 11 pixels; `objects`: of each image, as `class left top right bottom [hard]`."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for part, listed in parts.items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in listed))
    for name, found in objects.items():
        Image.fromarray(np.full((7, 11, 3), 77, dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        size = "<size><width>11</width><height>7</height></size>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation>{size}{''.join(map(_voc_object, found))}</annotation>"
        )


def _voc_object(text: str) -> str:
    kind, *corners = text.replace(" hard", "").split()
    box = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    hard = int(text.endswith(" hard"))
    return f"<object><name>{kind}</name><difficult>{hard}</difficult><bndbox>{box}</bndbox></object>"


def write_yolo(root: Path, parts: dict[str, int], size: int = 64) -> Path:
    """ROOT/images/PART/0.png ..., ROOT/labels/PART/0.txt ... and ROOT/scenes.yaml, which is returned.

    Each part has other scenes, as many as said; class 0 is the digit 0.
    """
    scenes = few_scenes(sum(parts.values()), size)
    number = 0
    for part, count in parts.items():
        for name in ("images", "labels"):
            (root / name / part).mkdir(parents=True)
        for place in range(count):
            Image.fromarray(scenes.images[number, ..., 0].numpy()).convert("RGB").save(
                root / "images" / part / f"{place:02}.png"
            )
            lines = map(_yolo_line, scenes.boxes[number].tolist(), scenes.labels[number].tolist(), [size] * 9)
            (root / "labels" / part / f"{place:02}.txt").write_text("".join(lines))
            number += 1
    listed = "".join(f"{part}: images/{part}\n" for part in parts)
    (root / "scenes.yaml").write_text(f"{listed}names: [{', '.join(f'digit {digit}' for digit in range(10))}]\n")
    return root / "scenes.yaml"


def _yolo_line(box: list[float], label: int, size: int) -> str:
    left, top, right, bottom = (corner / size for corner in box)
    return f"{label - 1} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n"
