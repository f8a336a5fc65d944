"""Data as YAML files of Ultralytics say: letterboxed squares, boxes in pixels, augmented by the seed alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_folders import few_scenes
from yolo_tasks import needs_ultralytics, yolo_spec

from autoprune.errors import DataError, InputError
from autoprune.tasks import load_task

pytestmark = needs_ultralytics
NAMES = f"names: [{', '.join(f'digit {digit}' for digit in range(10))}]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


def batches(split, *, seed=None, start=0):
    return list(split.batches(torch.tensor([7, 3, 11, 5, 2]), 2, seed=seed, start=start))


def same(first, second):
    return all(
        torch.equal(a, b) and all(torch.equal(s[key], t[key]) for s, t in zip(x, y, strict=True) for key in s)
        for (a, x), (b, y) in zip(first, second, strict=True)
    )


def test_images_and_boxes_are_those_of_the_files(folder):
    task, scenes = load_task(yolo_spec(folder)), few_scenes(35, 64)
    images, targets = next(task.test.batches(torch.tensor([3, 1]), 2))

    assert (len(task.train), len(task.validation), len(task.test)) == (24, 6, 5)
    assert task.classes[7] == "digit 7"
    for image, target, number in zip(images, targets, (33, 31), strict=True):
        expected = scenes.images[number].permute(2, 0, 1).expand(3, -1, -1) / 255
        assert torch.equal(image, expected)
        torch.testing.assert_close(target["boxes"], scenes.boxes[number])
        assert torch.equal(target["labels"], scenes.labels[number] - 1)
        assert target["iscrowd"].tolist() == [0] * len(target["labels"])


def test_an_image_of_another_shape_is_fitted_into_the_square(folder, tmp_path):
    """20 x 40 pixels become 32 x 64 in the middle of 64 x 64, so that 16 rows lie above."""
    yolo_spec(tmp_path)
    Image.fromarray(np.full((20, 40, 3), 255, dtype=np.uint8)).save(tmp_path / "images" / "val" / "00.png")
    (tmp_path / "labels" / "val" / "00.txt").write_text("3 0.5 0.5 0.5 0.5\n")
    images, (target, _) = next(load_task(yolo_spec(tmp_path)).validation.batches(torch.arange(2), 2))

    assert images[0, 0, 31, 31] == 1
    assert images[0, 0, 15, 31] < 1
    assert target["boxes"].tolist() == [[16.0, 24.0, 48.0, 40.0]]
    assert target["labels"].tolist() == [3]


def test_what_is_augmented_depends_on_the_seed_alone(folder):
    """Mosaics hold other images: neither those read before nor the process may decide which."""
    hyp = {"mosaic": 0.7, "mixup": 0.3}
    here = load_task(yolo_spec(folder, hyp=hyp)).train
    expected = batches(here, seed=7)

    assert same(batches(here, seed=7), expected)
    assert same(batches(here, seed=7, start=1), expected[1:])
    assert same(batches(load_task(yolo_spec(folder, hyp=hyp, workers=2)).train, seed=7), expected)
    assert not same(batches(here, seed=8), expected)


def test_without_a_seed_images_are_as_they_are(folder):
    task = load_task(yolo_spec(folder, hyp={"mosaic": 1.0}))
    plain = load_task(yolo_spec(folder))

    assert same(batches(task.train), batches(plain.train))
    assert not same(batches(task.train, seed=3), batches(task.train))


def test_hyper_parameters_are_theirs_but_for_mosaic(folder):
    settings = load_task(yolo_spec(folder, hyp={"fliplr": 0.25})).settings

    assert (settings.fliplr, settings.mosaic, settings.scale, settings.imgsz) == (0.25, 0.0, 0.5, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train", "no key 'names'"),
        ("train: images/train\nnames: [a]", "no key 'val'"),
        ("train: images/train\nval: images/vla\nnames: [a]", "val of .*: no file or folder '.*vla'.*nothing is downl"),
        ("train: images/train\nval: images/val\nnames: {0: a, 2: b}", "invalid class indices"),
        ("train: images/train\nval: images/val\nnames: [a, b]", "images or their labels are malformed: .*png"),
        (f"train: images/train\nval: images/empty\n{NAMES}", "val of .*: .*Error loading data"),
        (f"train: images/train\nval: images/bare\n{NAMES}", "val of .*: no object; allowed: files with labels"),
        ("path: elsewhere\ntrain: images/train\nval: images/val\nnames: [a]", "path of .*: no file or folder"),
        ("[7]", "not a data file of Ultralytics"),
    ],
)
def test_wrong_data_files_are_refused_in_one_line(folder, text, message):
    spec = yolo_spec(folder, yaml=str(folder / "wrong.yaml"))
    (folder / "wrong.yaml").write_text(text)
    for name in ("empty", "bare"):
        (folder / "images" / name).mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "images" / "bare" / "00.png")

    with pytest.raises(DataError, match=message) as caught:
        load_task(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["scenes", "{absolute}"])
def test_the_images_may_lie_elsewhere(data_folder, tmp_path, path):
    root = data_folder / "scenes"
    yolo_spec(root)
    (tmp_path / "mine.yaml").write_text(
        f"path: {path.format(absolute=root)}\ntrain: images/train\nval: [images/val, images/test]\n{NAMES}"
    )

    assert len(load_task(yolo_spec(root, yaml=str(tmp_path / "mine.yaml"))).validation) == 11


def test_splits_share_no_image(folder):
    file = folder / "shared.yaml"
    file.write_text(f"train: [images/train, images/val]\nval: images/val\n{NAMES}")

    with pytest.raises(InputError, match=r"train and validation share 00\.png"):
        load_task(yolo_spec(folder, yaml=str(file)))


def test_a_missing_file_is_not_looked_for_in_the_network(folder):
    with pytest.raises(DataError, match=r"task.data.yaml: no file or folder 'coco8.yaml'.*nothing is downloaded"):
        load_task(yolo_spec(folder, yaml="coco8.yaml"))


def test_an_image_that_vanishes_is_named(folder, tmp_path):
    task = load_task(yolo_spec(tmp_path))
    (tmp_path / "images" / "val" / "03.png").unlink()

    with pytest.raises(DataError, match=r"item 3 of the validation data \(.*03\.png\): FileNotFoundError"):
        list(task.validation.batches(torch.arange(4), 4))
