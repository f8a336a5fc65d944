"""Pascal VOC's layout as files have it, and what is wrong with one said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scene_folders import write_voc_boxes

from autoprune.errors import DataError
from autoprune.tasks.detection.voc import find_parts, listed_names, read_classes, read_part


@pytest.fixture
def root(tmp_path: Path) -> Path:
    objects = {"a": ["dog 1 2 5 6", "cat 0 0 11 7 hard"], "b": [], "c": ["cow 2.5 1 4 3"]}
    write_voc_boxes(tmp_path, {"train": ["a", "b"], "val": ["c"]}, objects)
    return tmp_path


def test_objects_have_corners_labels_by_name_and_difficult_ones_are_ignored(root: Path) -> None:
    lists = find_parts(root)
    classes = read_classes(root, list(lists.values()))
    first, second = read_part(root, lists["train"], classes)

    assert sorted(lists) == ["train", "val"]
    assert classes == ("cat", "cow", "dog")
    assert [(box.corners, box.label, box.ignored) for box in first.boxes] == [
        ((1, 2, 5, 6), 3, False),
        ((0, 0, 11, 7), 1, True),
    ]
    assert (second.width, second.height, second.boxes) == (11, 7, ())
    assert read_part(root, lists["val"], classes)[0].boxes[0].corners == (2.5, 1, 4, 3)


def test_lists_of_single_classes_are_no_parts_and_marks_behind_a_name_are_left_out(root: Path) -> None:
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("a  1\nb -1\n\n")

    assert sorted(find_parts(root)) == ["train", "val"]
    assert listed_names(root / "ImageSets" / "Main" / "cat_train.txt") == ["a", "b"]


def test_another_class_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"c\.xml: an object of class 'cow'; allowed: cat, dog"):
        read_part(root, find_parts(root)["val"], ("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", "no element found"),
        ("<annotation/>", "no size/width"),
        ("<annotation><size><width>x</width></size></annotation>", "invalid literal"),
    ],
)
def test_a_file_in_another_format_is_named(text: str, words: str, root: Path) -> None:
    (root / "Annotations" / "b.xml").write_text(text)

    with pytest.raises(DataError, match=rf"b\.xml: not in VOC's format: {words}"):
        read_part(root, find_parts(root)["train"], ("cat", "cow", "dog"))


def test_missing_files_are_named(root: Path) -> None:
    (root / "JPEGImages" / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"c\.jpg: no such image"):
        read_part(root, find_parts(root)["val"], ("cow",))
    (root / "ImageSets" / "Main" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: names no image"):
        read_part(root, find_parts(root)["val"], ("cow",))
