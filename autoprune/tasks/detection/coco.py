"""Annotations in COCO's format: a JSON file per part; boxes are left, top, width, height."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import DataError, first_line
from autoprune.tasks.detection.annotations import AnnotatedImage, Box

Annotated = tuple[list[AnnotatedImage], tuple[str, ...]]


def find_parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Part -> (annotation file, folder of its images), in the layouts that people have.

    annotations/instances_NAME.json beside NAME/, as of COCO itself (`train2017` is the part `train`), and
    PART/_annotations.coco.json inside the folder of the images.
    """
    parts = {}
    for file in sorted((root / "annotations").glob("instances_*.json")):
        name = file.stem.removeprefix("instances_")
        parts[name.rstrip("0123456789") or name] = (file, root / name)
    for file in sorted(root.glob("*/_annotations.coco.json")):
        parts[file.parent.name] = (file, file.parent)
    return parts


def read_part(file: Path, images: Path, *, by_number: bool = False) -> Annotated:
    """The images of an annotation file, and the names of the classes, sorted by their category's number.

    Args:
        by_number: a category's number is its label, and numbers between them are classes without objects, as in
            torchvision's weights for COCO; else labels count the categories.

    Raises:
        DataError: the file is not in COCO's format, or names images or categories that are not there.
    """
    data = _read_json(file)
    try:
        return _annotated_images(data, images, str(file), by_number=by_number)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else first_line(error)
        allowed = "images: id, file_name, width, height; annotations: image_id, category_id, bbox; categories: id, name"
        raise DataError(f"not in COCO's format: {reason}", where=str(file), allowed=allowed) from error


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"not a readable JSON file: {first_line(error)}", where=str(file)) from error
    if not isinstance(data, dict):
        raise DataError("expected a mapping", where=str(file), allowed="images, annotations, categories")
    return data


def _annotated_images(data: Mapping[str, Any], images: Path, where: str, *, by_number: bool) -> Annotated:
    names = {int(entry["id"]): str(entry["name"]) for entry in data["categories"]}
    if by_number and min(names) < 1:
        raise DataError(f"category {min(names)}", where=where, allowed="numbers from 1; 0 is the background")
    numbers = range(1, max(names) + 1) if by_number else sorted(names)
    classes = tuple(names.get(number, f"no category {number}") for number in numbers)
    boxes: dict[Any, list[Box]] = defaultdict(list)
    label_of = {number: label for label, number in enumerate(numbers, 1) if number in names}
    for image, box in _boxes(data["annotations"], label_of, where):
        boxes[image].append(box)
    found = [
        AnnotatedImage(
            file=str(images / entry["file_name"]),
            width=int(entry["width"]),
            height=int(entry["height"]),
            boxes=tuple(boxes.pop(entry["id"], ())),
        )
        for entry in data["images"]
    ]
    if boxes:
        raise DataError(f"boxes of image {next(iter(boxes))!r}, which is not listed", where=where)
    _check_there(found, where)
    return found, classes


def _boxes(entries: Any, label_of: Mapping[int, int], where: str) -> Iterator[tuple[Any, Box]]:
    for entry in entries:
        left, top, width, height = map(float, entry["bbox"])
        if entry["category_id"] not in label_of:
            known = ", ".join(map(str, label_of))
            raise DataError(f"a box of category {entry['category_id']!r}", where=where, allowed=known)
        corners = (left, top, left + width, top + height)
        label = label_of[entry["category_id"]]
        yield entry["image_id"], Box(corners=corners, label=label, ignored=bool(entry.get("iscrowd", 0)))


def _check_there(found: list[AnnotatedImage], where: str) -> None:
    missing = [image.file for image in found if not Path(image.file).is_file()]
    if missing or not found:
        what = f"no image {missing[0]} ({len(missing)} of {len(found)} are missing)" if missing else "no images"
        raise DataError(what, where=where)
