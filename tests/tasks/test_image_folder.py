"""Folders of images: broken files are found before anything is trained, and parts may lack classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoprune.errors import DataError, InputError
from autoprune.tasks import image_files, load_task
from autoprune.tasks.data import load_splits
from autoprune.tasks.data_spec import DataSpec

WHOLE = {"train": {"cat": 5, "dog": 5}, "val": {"cat": 3, "dog": 2}, "test": {"cat": 1, "dog": 2}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / "data"))
    return tmp_path


def write_photos(folder: Path, parts: Mapping[str, Mapping[str, int]]) -> None:
    random = np.random.default_rng(7)
    for part, classes in parts.items():
        for name, count in classes.items():
            place = folder / "photos" / part / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (19, 23, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.jpg")


def splits_of(**spec: Any) -> dict[str, Any]:
    return load_splits(DataSpec(name="image_folder", path="photos", size=13, **spec), "task.data")[0]


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])


def test_a_broken_image_is_named_before_anything_is_trained(here: Path) -> None:
    write_photos(here, WHOLE)
    tear(here / "photos/val/cat/1.jpg")
    (here / "photos/val/dog/1.jpg").write_bytes(b"")

    with pytest.raises(DataError, match=r"val/\w+/1\.jpg: cannot be read: .* \(and 1 more\); .*on_error: skip"):
        splits_of()


def test_broken_images_are_skipped_on_request(here: Path) -> None:
    write_photos(here, WHOLE)
    tear(here / "photos/train/dog/3.jpg")
    (here / "photos/val/dog/1.jpg").write_text("hello")
    splits = splits_of(on_error="skip")

    assert [9, 4, 3] == [len(splits[name]) for name in ("train", "validation", "test")]
    assert 4 == (splits["train"].labels == 1).sum()
    assert not any("dog/3.jpg" in path for path in splits["train"].paths)


def test_a_part_without_a_readable_image_is_refused(here: Path) -> None:
    write_photos(here, {**WHOLE, "test": {"cat": 1, "dog": 1}})
    for file in (here / "photos/test").rglob("*.jpg"):
        file.write_bytes(b"no image")

    with pytest.raises(DataError, match=r"photos/test: none of 2 images can be read"):
        splits_of(on_error="skip")


def test_files_are_decoded_once_until_one_changes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(here, WHOLE)
    tear(here / "photos/train/cat/0.jpg")
    splits_of(on_error="skip")
    decoded: list[str] = []
    monkeypatch.setattr(image_files, "_fault_of", decoded.append)
    splits_of(on_error="skip")
    kept = [json.loads(file.read_text()) for file in (here / "data/checked").iterdir()]
    (here / "photos/train/cat/0.jpg").write_bytes((here / "photos/train/cat/1.jpg").read_bytes())

    assert [] == decoded
    assert [["photos/train/cat/0.jpg"]] == [list(found) for found in kept if found]
    assert 10 == len(splits_of()["train"])
    assert 10 == len(decoded)


def test_where_nothing_can_be_kept_images_are_checked_all_the_same(here: Path) -> None:
    write_photos(here, WHOLE)
    tear(here / "photos/train/cat/0.jpg")
    (here / "data").write_text("no folder")

    assert 9 == len(splits_of(on_error="skip")["train"])


def test_classes_are_numbered_as_in_training_where_a_part_lacks_some(here: Path) -> None:
    write_photos(here, {"train": {"ant": 5, "cat": 5, "dog": 5}, "val": {"dog": 3}})
    data = {"name": "image_folder", "path": "photos", "size": 13}
    task = load_task({"data": data, "model": {"name": "resnet20", "train": {"images": 0}}})

    assert [2, 2, 2] == task.validation.labels.tolist()
    assert task.test is None
    assert task.remarks == ("Validation has no image of class ant, cat: what pruning does to it is not seen.",)


def test_a_folder_without_test_needs_no_splits(here: Path) -> None:
    write_photos(here, {"train": {"cat": 15, "dog": 15}})
    splits = splits_of()

    assert (27, 3, None) == (len(splits["train"]), len(splits["validation"]), splits["test"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {**WHOLE, "val": {"cat": 3, "fox": 3}},
            "photos/val: classes that train has no folder of: fox; .*dog",
        ),
        ({"train": {"cat": 7}}, "photos/train: the only class is 'cat'; allowed: two"),
        ({"train": {"cat": 7, "dog": 0}}, "photos/train: no images of class dog; allowed: CLASS/"),
        ({"train": {}}, "no folder 'train' with images; there is no such folder"),
        ({"cat": {"a": 1}, "dog": {"a": 1}}, "no folder 'train' with images; there are cat, dog; allowed: train/CLASS"),
    ],
)
def test_folders_of_another_layout(parts: Mapping[str, Mapping[str, int]], message: str, here: Path) -> None:
    write_photos(here, parts)

    with pytest.raises(InputError, match=message):
        splits_of()


def test_a_train_folder_without_classes(here: Path) -> None:
    (here / "photos/train").mkdir(parents=True)

    with pytest.raises(DataError, match="photos/train: no folders of classes"):
        splits_of()
