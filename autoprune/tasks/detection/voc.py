"""Annotations in Pascal VOC's layout: Annotations/NAME.xml, JPEGImages/NAME.jpg, ImageSets/Main/PART.txt."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from autoprune.errors import DataError, first_line
from autoprune.tasks.detection.annotations import AnnotatedImage, Box

#: An object as its file says it, before its class has a number.
NamedBox = tuple[str, tuple[float, float, float, float], bool]


def find_parts(root: Path) -> dict[str, Path]:
    """Part -> the list of its images. Lists of single classes (`cat_train.txt`) are none."""
    return {file.stem: file for file in sorted((root / "ImageSets" / "Main").glob("*.txt")) if "_" not in file.stem}


def read_classes(root: Path, lists: list[Path]) -> tuple[str, ...]:
    """The classes that the annotations of these lists hold, sorted by name.

    Raises:
        DataError: a file is missing or not in VOC's format.
    """
    names = {name for file in lists for image in listed_names(file) for name, _, _ in _read_objects(root, image)[2]}
    return tuple(sorted(names))


def read_part(root: Path, file: Path, classes: tuple[str, ...]) -> list[AnnotatedImage]:
    """The images that a list names.

    Raises:
        DataError: a file is missing or not in VOC's format, or an object is of another class.
    """
    found = [_annotated_image(root, name, classes) for name in listed_names(file)]
    if not found:
        raise DataError("names no image", where=str(file), allowed="at least one")
    return found


def listed_names(file: Path) -> list[str]:
    """The names of images in a list, without ending; what follows a name in its line is left out."""
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _annotated_image(root: Path, name: str, classes: tuple[str, ...]) -> AnnotatedImage:
    file, annotation = root / "JPEGImages" / f"{name}.jpg", root / "Annotations" / f"{name}.xml"
    if not file.is_file():
        raise DataError("no such image", where=str(file))
    width, height, objects = _read_objects(root, name)
    strange = sorted({kind for kind, _, _ in objects} - set(classes))
    if strange:
        raise DataError(f"an object of class {strange[0]!r}", where=str(annotation), allowed=", ".join(classes))
    boxes = tuple(Box(corners=box, label=classes.index(kind) + 1, ignored=hard) for kind, box, hard in objects)
    return AnnotatedImage(file=str(file), width=width, height=height, boxes=boxes)


def _read_objects(root: Path, name: str) -> tuple[int, int, list[NamedBox]]:
    """Width and height of the image, and its objects."""
    file = root / "Annotations" / f"{name}.xml"
    try:
        tree = ET.parse(file).getroot()  # noqa: S314 - the user's own annotations
        size = [int(_text(tree, f"size/{side}")) for side in ("width", "height")]
        return size[0], size[1], [_named_box(entry) for entry in tree.iter("object")]
    except (OSError, ET.ParseError, ValueError) as error:
        allowed = "size/width, size/height and object/name, object/bndbox with xmin, ymin, xmax, ymax"
        raise DataError(f"not in VOC's format: {first_line(error)}", where=str(file), allowed=allowed) from error


def _named_box(entry: ET.Element) -> NamedBox:
    left, top, right, bottom = (float(_text(entry, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    hard = (entry.findtext("difficult") or "0").strip() == "1"
    return _text(entry, "name").strip(), (left, top, right, bottom), hard


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text
