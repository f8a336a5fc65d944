"""Detectors as ONNX: images of any size, compared with the model whatever the order of what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cards import programs_of, run_program
from export_info import info
from scene_tasks import RETINANET
from torch import Tensor, nn

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ExportError
from autoprune.export import formats
from autoprune.export.detectors import detections_apart, takes_images
from autoprune.tasks import load_task
from autoprune.tasks.detection.task import Detection

#: Finds a few things in every image, and nothing by a tie.
TRAINED: dict[str, Any] = {
    **RETINANET,
    "model": {
        **RETINANET["model"],
        "arguments": {**RETINANET["model"]["arguments"], "score_thresh": 0.02},
        "train": {"images": 480, "batch_size": 8, "lr": 0.05},
    },
}


def found(*objects: tuple[list[float], float, int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in objects]).reshape(-1, 4),
        "scores": torch.tensor([score for _, score, _ in objects]),
        "labels": torch.tensor([label for _, _, label in objects], dtype=torch.int64),
    }


ONE, TWO = [1.0, 2.0, 30.0, 40.0], [5.0, 5.0, 9.0, 9.0]


@pytest.mark.parametrize(
    ("actual", "apart"),
    [
        (found((ONE, 0.9, 1), (TWO, 0.5, 2), (ONE, 0.1, 1)), 0),
        (found((TWO, 0.5, 2), (ONE, 0.9, 1), (ONE, 0.1, 1)), 0),  # another order
        (found((ONE, 0.9, 1), (TWO, 0.5, 2)), 0),  # the least sure one is at the border of being found
        (found((ONE, 0.9, 1), ([5, 5, 9, 13], 0.5, 2), (ONE, 0.1, 1)), 4 / 40),
        (found((ONE, 0.7, 1), (TWO, 0.5, 2), (ONE, 0.1, 1)), 0.2),
        (found((ONE, 0.9, 1), (TWO, 0.5, 3), (ONE, 0.1, 1)), 1),  # another class
        (found((ONE, 0.9, 1), (ONE, 0.1, 1)), 1),
        (found((ONE, 0.9, 1), (TWO, float("nan"), 2), (ONE, 0.1, 1)), float("inf")),
    ],
)
def test_how_far_detections_are_apart(actual: dict[str, Tensor], apart: float) -> None:
    expected = found((ONE, 0.9, 1), (TWO, 0.5, 2), (ONE, 0.1, 1))

    assert detections_apart(actual, expected, 40) == pytest.approx(apart, abs=1e-6)


def test_what_is_found_beside_what_is_expected_counts_too() -> None:
    assert detections_apart(found((ONE, 0.9, 1), (TWO, 0.8, 2), (ONE, 0.1, 1)), found((ONE, 0.9, 1)), 40) == 1
    assert detections_apart(found(), found(), 40) == 0


def test_a_list_of_images_is_what_detectors_take() -> None:
    assert takes_images(([torch.zeros(1, 3, 3)],))
    assert not takes_images((torch.zeros(1, 1, 3, 3),))
    assert not takes_images((torch.zeros(1, 1, 3, 3), torch.zeros(1)))


@pytest.fixture(scope="module")
def task() -> Detection:
    loaded = load_task(TRAINED)
    assert isinstance(loaded, Detection)
    return loaded


def save_pruned(task: Detection, folder: Path) -> nn.Module:
    model = task.model()
    graph = trace(model, task.example())
    keep = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    pruned = prune(model, graph, keep)
    artifact.save(folder, pruned, graph, keep, info={"flops": cost(graph, keep).flops})
    return pruned.eval()


@pytest.fixture(scope="module")
def exported(task: Detection, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    folder = tmp_path_factory.mktemp("export")
    pruned = save_pruned(task, folder / "artefact")
    facts = {**info(), "task": TRAINED, "pixels": task.input_facts()}
    formats.export(folder / "artefact", task.build, task.example(), folder / "out", info=facts)
    return folder / "out", pruned


def test_there_is_an_onnx_file_and_no_program_and_the_record_says_why(exported: tuple[Path, nn.Module]) -> None:
    record = formats.read_record(exported[0])

    assert {file.suffix for file in exported[0].iterdir()} == {".safetensors", ".json", ".onnx", ".md"}
    assert set(record["relative_error"]) == {"artefact", "onnx"} == set(record["files"])
    assert record["relative_error"]["onnx"] < formats.TOLERANCE
    assert "torch.export records no detector" in record["not_written"]["pt2"]
    assert record["input"] == [1, 32, 32]


@pytest.mark.parametrize("shape", [(32, 32), (32, 24), (48, 64)])
def test_the_file_finds_what_the_model_finds_in_images_of_any_size(
    exported: tuple[Path, nn.Module], task: Detection, shape: tuple[int, int]
) -> None:
    folder, model = exported
    run = formats._load_runners(folder, task.build, {"onnx": ["model.onnx"]})["onnx"]
    image = torch.zeros(1, *shape)
    image[:, :32, :24] = task.example()[0][0][:, :, :24]

    with torch.inference_mode():
        actual, expected = run([image, image])[1], model([image])[0]

    assert len(expected["scores"]) > 0
    assert detections_apart(actual, expected, max(shape)) < formats.TOLERANCE


def test_the_card_has_what_runs_and_no_program(exported: tuple[Path, nn.Module]) -> None:
    folder, model = exported
    card = (folder / "README.md").read_text()
    image = load_task(TRAINED).example()[0][0]
    np.save(folder / "image.npy", image.numpy())

    programs = programs_of(card)
    printed = run_program(programs["onnxruntime"], folder, image='np.load("image.npy")')
    (folder / "image.npy").unlink()

    assert set(programs) == {"autoprune", "onnxruntime"}
    assert "pt2 was not written: torch.export records no detector" in card
    assert "(1, height, width), one image of any size, from 0 to 1" in card
    assert len(printed) == len(model([image])[0]["boxes"]) > 0


def test_verify_measures_what_there_is(exported: tuple[Path, nn.Module], task: Detection) -> None:
    measured = formats.verify(exported[0], task)

    assert set(measured) == {"artefact", "onnx"}
    assert measured["artefact"] == pytest.approx(measured["onnx"], abs=1e-6)


def test_a_detector_that_torch_cannot_write_is_exported_without(
    task: Detection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise RuntimeError("no such operator\nand much more")

    save_pruned(task, tmp_path / "artefact")
    monkeypatch.setattr(torch.onnx, "export", refuse)

    formats.export(tmp_path / "artefact", task.build, task.example(), tmp_path / "out", info={})

    record = formats.read_record(tmp_path / "out")
    assert record["not_written"]["onnx"] == "torch.onnx: no such operator"
    assert list(record["files"]) == ["artefact"]
    assert list(formats.verify(tmp_path / "out", task)) == ["artefact"]
    assert "onnx was not written: torch.onnx: no such operator." in (tmp_path / "out" / "README.md").read_text()


def test_a_detector_that_finds_nothing_has_no_file_that_nobody_could_check(task: Detection, tmp_path: Path) -> None:
    save_pruned(task, tmp_path / "artefact")

    def sure() -> nn.Module:
        model = task.build()
        model.score_thresh = 1.0
        return model

    formats.export(tmp_path / "artefact", sure, task.example(), tmp_path / "out", info={})

    assert "finds nothing in its example image" in formats.read_record(tmp_path / "out")["not_written"]["onnx"]
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_file_of_another_detector_is_an_error(
    task: Detection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pruned(task, tmp_path / "artefact")
    write = formats.detectors.write_onnx

    def write_another(model: nn.Module, example: tuple[list[Tensor]], path: Path) -> None:
        with torch.no_grad():
            model.head.classification_head.cls_logits.bias += 0.1
        write(model, example, path)
        with torch.no_grad():
            model.head.classification_head.cls_logits.bias -= 0.1

    monkeypatch.setattr(formats.detectors, "write_onnx", write_another)

    with pytest.raises(ExportError, match="onnx: differs from the model"):
        formats.export(tmp_path / "artefact", task.build, task.example(), tmp_path / "out", info={})
