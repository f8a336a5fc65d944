"""From a folder to a file that was verified, by commands alone: masks with a U-Net, boxes with a RetinaNet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from commands import Capture, fails, works
from pages import files_of
from scene_folders import write_coco, write_mask_folder
from scene_tasks import RETINANET, UNET

import autoprune as ap

SECTIONS = files_of(Path(__file__).parents[2] / "docs" / "your-task.md")

#: What makes a search small.
SMALL = (
    "space.method={choice: {l1: {}, taylor: {images: 8}, group_fisher: {images: 8}}}",
    "space.target.flops={float: [0.4, 0.8]}",
    "space.training={images: 16, batch_size: 8, lr: 0.02}",
    "budget={trials: 4}",
    "resources.cpus_per_trial=1",
    "task.data.workers=0",
)


def search(heading: str, folder: Path, *overrides: str) -> Path:
    """A study of four trials, the dense one included, of the page's section."""
    files = SECTIONS["Your model, data and task"] | SECTIONS[heading]
    assert set(files) == {"search.yaml", "mine.yaml"}
    for name, text in files.items():
        (folder / name).write_text(text)
    study = ap.search(folder / "mine.yaml", out=folder / "study", in_process=True, overrides=[*SMALL, *overrides])

    assert [outcome.status for outcome in study.outcomes] == ["completed"] * 4
    assert len(study.study.front) >= 2
    return folder / "study"


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    for part, count in (("train", 24), ("val", 5), ("test", 3)):
        write_mask_folder(folder / "data" / part, count)
    return search(
        "Masks from a folder",
        folder,
        f"task.data.path={folder / 'data'}",
        "task.data.classes=[background, '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']",
        "task.data.size=32",
        f"task.model.arguments={UNET['model']['arguments']}",
        "task.model.train.images=24",
    )


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    for part, count in (("train2017", 24), ("val2017", 5), ("test2017", 3)):
        write_coco(folder / "data", part, count)
    arguments = {**RETINANET["model"]["arguments"], "score_thresh": 0.005, "detections_per_img": 20}
    return search(
        "Boxes from COCO's format",
        folder,
        f"task.data.path={folder / 'data'}",
        f"task.model.arguments={arguments}",
        "task.model.train.images=160",
    )


def test_a_unet_from_a_folder_is_searched_reported_exported_and_verified(
    masks: Path, tmp_path: Path, capsys: Capture
) -> None:
    config = yaml.safe_load((masks / "study.yaml").read_text())
    works(capsys, "report", str(masks))
    exported = works(capsys, "export", str(masks), "--knee", "--to", str(tmp_path / "out"))
    verified = json.loads(works(capsys, "verify", str(tmp_path / "out"), "--json"))

    assert config["metric"]["name"] == "Dice"
    assert "Dice" in (masks / "report.html").read_text()
    assert "Dice" in exported
    assert set(verified["found"]) == {"artefact", "onnx", "pt2"}
    assert all(value == pytest.approx(verified["reported"], abs=1e-3) for value in verified["found"].values())
    assert "| Dice (validation) |" in (tmp_path / "out" / "README.md").read_text()


def test_a_retinanet_from_coco_files_is_searched_reported_exported_and_verified(
    boxes: Path, tmp_path: Path, capsys: Capture
) -> None:
    works(capsys, "report", str(boxes))
    exported = works(capsys, "export", str(boxes), "--knee", "--to", str(tmp_path / "out"))
    verified = json.loads(works(capsys, "verify", str(tmp_path / "out"), "--json"))

    assert "mAP50" in (boxes / "report.html").read_text()
    assert "mAP50" in exported
    assert "pt2 not written: torch.export records no detector" in exported
    assert set(verified["found"]) == {"artefact", "onnx"}
    assert all(value == pytest.approx(verified["reported"], abs=1e-3) for value in verified["found"].values())


def test_distillation_of_a_detector_is_refused_before_the_first_trial(
    boxes: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = fails(
        capsys,
        *("search", str(boxes.parent / "mine.yaml"), "--out", str(tmp_path / "study"), "--in-process"),
        *("--set", f"task.data.path={boxes.parent / 'data'}", "--set", "space.training.distill=0.5"),
        *("--set", "task.model.train.images=8"),
    )

    assert "detectors are not distilled" in line
    assert not (tmp_path / "study").exists()
