"""Data sets of images and masks by name, as splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scene_folders import write_mask_folder, write_voc_masks

from autoprune.errors import DataError, InputError
from autoprune.schema import read
from autoprune.tasks.base import Split
from autoprune.tasks.segmentation.data import VOC_CLASSES, MaskDataSpec, load_splits


def load(**fields: Any) -> tuple[dict[str, Split], tuple[str, ...]]:
    return load_splits(read(MaskDataSpec, fields, "data"), "data")


def test_digit_scenes_have_eleven_classes_and_their_own_statistics() -> None:
    splits, classes = load(name="digit_scenes", arguments={"train": 31, "validation": 7, "test": 5}, augment=["crop"])
    images, masks = next(splits["train"].batches(torch.arange(31), 31))

    assert {name: len(split) for name, split in splits.items()} == {"train": 31, "validation": 7, "test": 5}
    assert classes[:2] == ("background", "0")
    assert len(classes) == 11
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std().item() == pytest.approx(1, abs=1e-3)
    assert masks.shape == (31, 64, 64)
    assert splits["train"].pixels.augment == ("crop",)
    assert splits["validation"].pixels.augment == ()


def test_a_folder_with_parts(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        write_mask_folder(tmp_path / part, count)

    splits, classes = load(name="mask_folder", path=str(tmp_path), classes=list("abcdefghijk"), size=32, workers=0)

    assert {name: len(split) for name, split in splits.items()} == {"train": 5, "validation": 2, "test": 3}
    assert classes == tuple("abcdefghijk")
    assert all(Path(image).stem == Path(mask).stem for image, mask in splits["train"].files)


def test_one_folder_is_split_by_expressions(tmp_path: Path) -> None:
    scenes = write_mask_folder(tmp_path, 7)
    parts = {"train": "all[:4]", "validation": "all[4:6]", "test": "all[6:]"}

    fields = {"path": str(tmp_path), "classes": list("abcdefghijk"), "size": 32, "workers": 0}
    splits, _ = load(name="mask_folder", splits=parts, **fields)
    _, masks = next(splits["train"].batches(torch.tensor([2]), 1))

    names = [Path(mask).stem for split in splits.values() for _, mask in split.files]
    assert sorted(names) == list("0123456")
    assert torch.equal(masks[0], scenes.masks[int(names[2])].long())


def test_voc_layout_reads_palettes(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"train": ["a1", "a2", "a3"], "val": ["b4", "b5"], "trainval": ["a1", "b4"]})

    splits, classes = load(
        name="voc", path=str(tmp_path), size=9, workers=0, splits={"validation": "val[:1]", "test": "val[1:]"}
    )
    _, masks = next(splits["train"].batches(torch.tensor([2, 0]), 2))

    assert classes == VOC_CLASSES
    assert len(VOC_CLASSES) == 21
    assert masks[:, 0, 0].tolist() == [3, 1]
    assert masks[0].unique().tolist() == [3, 255]  # 6 of 9 rows


def test_splits_that_share_files_are_refused(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"train": ["a1", "a2"], "trainval": ["b4", "a2"], "val": ["b4"]})

    with pytest.raises(InputError, match=r"train and test share a2\.jpg; allowed: disjoint splits"):
        load(name="voc", path=str(tmp_path), splits={"test": "trainval[1:]"})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "digit_scenes", "path": "x"}, "'path' means nothing to digit_scenes"),
        ({"name": "digit_scenes", "arguments": {"size": 7}}, r"data\.arguments\.size"),
        ({"name": "voc"}, "missing key 'path'"),
        ({"name": "voc", "path": "x", "arguments": {"a": 1}}, "'arguments' means nothing to voc"),
        ({"name": "voc", "path": "nowhere"}, "no lists of images"),
        ({"name": "mask_folder", "path": "x"}, "missing key 'classes'"),
        ({"name": "mask_folder", "path": "nowhere", "classes": ["a", "b"]}, "no folder with images and masks"),
        ({"name": "coco"}, r"data\.name"),
        ({"name": "digit_scenes", "augment": ["mixup"]}, r"unknown value 'mixup'.*allowed: crop, flip"),
    ],
)
def test_wrong_mappings_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(**fields)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    write_mask_folder(tmp_path, 3)
    (tmp_path / "masks" / "1.png").unlink()

    with pytest.raises(DataError, match=r"masks: no mask '1\.png' \(1 of 3 are missing\)"):
        load(name="mask_folder", path=str(tmp_path), classes=["a", "b"])
