"""The ready spaces for detection and segmentation: as far as they can be tried without their data and their hours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Capture, works
from PIL import Image
from scene_folders import write_coco, write_voc_masks, write_yolo
from yolo_tasks import needs_ultralytics

import autoprune as ap
from autoprune import methods
from autoprune.engine.allocation.allocate import check_prunable
from autoprune.engine.tracing.trace import trace
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task

#: The searches of the scenes' spaces, small enough for a test: the same methods, allocations and metrics.
SMALL = ["task.data.arguments={size: 32, most: 2, train: 64, validation: 10, test: 10}", "space.training.images=32"]
SMALL += ["space.training.batch_size=8", "sampler.startup=8", "budget={trials: 13}"]


def task_of(space: str, *overrides: str) -> Any:
    return load_task(load_space(space, check_method=methods.build, find_method=methods.find, overrides=overrides).task)


def methods_of(space: str) -> set[str]:
    return set(load_space(space, check_method=methods.build, find_method=methods.find).space.methods())


UNET = "task.model={name: unet, arguments: {widths: [7, 11]}, train: {images: 256, batch_size: 8, lr: 0.1}}"
RETINANET = (
    "task.model={name: small_retinanet, train: {images: 160, batch_size: 8, lr: 0.05}, "
    "arguments: {widths: [7, 11], pyramid: 13, depth: 1, anchors: [10, 18], score_thresh: 0.005}}"
)


@pytest.mark.parametrize(
    ("space", "model"),
    [("digit_scenes_unet", UNET), pytest.param("digit_scenes_retinanet", RETINANET, marks=pytest.mark.long)],
)
@pytest.mark.slow
def test_a_space_of_scenes_gives_a_front_of_many_methods_a_report_and_files(
    space: str, model: str, tmp_path: Path, capsys: Capture
) -> None:
    assert {"l1", "taylor", "group_fisher", "bn_scale", "fuzzy"} <= methods_of(space)

    study = ap.search(space, out=tmp_path / "study", overrides=[*SMALL, model], in_process=True)
    works(capsys, "report", str(tmp_path / "study"))
    works(capsys, "export", str(tmp_path / "study"), "--knee", "--to", str(tmp_path / "out"))

    assert {outcome.status for outcome in study.outcomes} <= {"completed", "stopped", "failed"}
    unmet = [outcome.error for outcome in study.outcomes if outcome.status == "failed"]
    assert all("cannot be reached" in (error or "") for error in unmet)  # bn_scale, where heads have no norm
    assert len({outcome.recipe.method.name for outcome in study.outcomes if outcome.completed}) >= 5
    assert study.study.front
    assert all(outcome.completed for outcome in study.study.front)
    works(capsys, "verify", str(tmp_path / "out"))


def test_voc_deeplab_reads_vocs_layout_and_asks_for_its_classes(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(9)]
    write_voc_masks(tmp_path, {"train": names[:6], "val": names[6:]})

    task = task_of(
        "voc_deeplab",
        f"task.data.path={tmp_path}",
        "task.data.splits={train: 'train[:-2]', validation: 'train[-2:]', test: val}",
        "task.data.size=33",
    )

    assert [len(split) for split in (task.train, task.validation, task.test)] == [4, 2, 3]
    assert len(task.classes) == 21
    assert task.dense.spec.arguments == {"weights": "COCO_WITH_VOC_LABELS_V1"}
    assert task.metric_spec.name == "mIoU"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for part, count in (("train2017", 5), ("val2017", 2)):
        write_coco(tmp_path, part, count)
        for file in (tmp_path / part).iterdir():
            Image.open(file).convert("RGB").save(file)
    return tmp_path


def coco_task(folder: Path, arguments: str) -> Any:
    return task_of(
        "coco_retinanet_r50",
        f"task.data.path={folder}",
        "task.data.splits={train: 'train[:-2]', validation: 'train[-2:]', test: val}",
        "task.data.workers=0",
        f"task.model={{name: torchvision/retinanet_resnet50_fpn, train: {{images: 0}}, arguments: {arguments}}}",
    )


def test_coco_retinanet_counts_labels_as_torchvisions_weights_do(coco: Path) -> None:
    task = coco_task(coco, "{}")
    (_, (target, *_)), *_ = task.test.batches(torch.arange(1), 1)

    assert len(task.classes) == 30  # the categories of the test's files are 3, 6, ..., 30
    assert set(target["labels"].tolist()) <= set(range(3, 31, 3))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [3, 2, 2]


@needs_ultralytics
def test_ultralytics_yolov8n_reads_a_data_file_and_prunes_the_network(tmp_path: Path) -> None:
    task = task_of(
        "ultralytics_yolov8n",
        f"task.data={{yaml: {write_yolo(tmp_path, {'train': 3, 'val': 2})}, size: 64, workers: 0}}",
        "task.model={name: yolov8n.yaml, train: {images: 0}}",
    )
    graph = trace(task.build(), task.example())

    check_prunable(graph)
    assert len(graph.prunable) > 30
    assert (task.settings.mosaic, task.metric_spec.name, task.test) == (0.0, "mAP", None)


@pytest.mark.slow
def test_the_networks_of_the_spaces_are_pruned(coco: Path, tmp_path: Path) -> None:
    detector = coco_task(coco, "{min_size: [64], max_size: 64, score_thresh: 0.0}")
    shutil.rmtree(tmp_path / "voc", ignore_errors=True)
    write_voc_masks(tmp_path / "voc", {"train": [str(number) for number in range(6)], "val": ["6"]})
    network = task_of(
        "voc_deeplab",
        f"task.data.path={tmp_path / 'voc'}",
        "task.data.splits={train: 'train[:-2]', validation: 'train[-2:]', test: val}",
        "task.data.size=33",
        "task.data.workers=0",
        "task.model={name: torchvision/deeplabv3_resnet50, arguments: {weights: null}}",
    )

    for task in (detector, network):
        graph = trace(task.build(), task.example())
        check_prunable(graph)
        assert len(graph.prunable) > 30
