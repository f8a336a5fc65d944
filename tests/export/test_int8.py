"""INT8: made of training images, scored, and never held to what the model computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from commands import DIGITS_DATA
from disks import full_disk
from torch import Tensor

from autoprune.errors import ExportError, InputError
from autoprune.export import formats, int8, torch_files
from autoprune.tasks import Task, load_task
from autoprune.tasks.base import Split

TRAINED = {
    "kind": "classification",
    "data": DIGITS_DATA,
    "model": {"name": "digits_net", "train": {"images": 2000, "batch_size": 32}},
}


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(TRAINED)


@pytest.fixture(scope="module")
def written(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.onnx` in float32 and `int8.onnx`."""
    folder, model = tmp_path_factory.mktemp("int8"), task.model()
    torch_files.write_program(model, task.example(), folder / "model.pt2")
    torch_files.write_onnx(folder / "model.pt2", folder / "model.onnx", ["logits"])
    int8.write_int8(folder / "model.onnx", folder / "int8.onnx", int8.calibration_inputs(model, task))
    return folder


def test_it_is_smaller_and_as_good_but_for_little(written: Path, task: Task) -> None:
    runners = {name: torch_files.onnx_runner(written / f"{name}.onnx") for name in ("model", "int8")}
    scores = formats._scores(runners, task)

    assert (written / "int8.onnx").stat().st_size < 0.5 * (written / "model.onnx").stat().st_size
    assert scores["model"] > 0.9
    assert abs(scores["int8"] - scores["model"]) <= 0.02
    assert not torch.equal(*(run(task.example()[0]) for run in runners.values()))


def test_weights_have_a_scale_per_channel_and_batches_any_size(written: Path) -> None:
    proto = onnx.load(written / "int8.onnx")
    used = {node.op_type for node in proto.graph.node}
    scales = [len(one.float_data) or len(one.raw_data) // 4 for one in proto.graph.initializer if "scale" in one.name]

    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= used
    assert max(scales) > 8
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class Watched(Split):
    """A split that may be used only where a test says so."""

    def __init__(self, split: Split, allowed: bool) -> None:
        self.split, self.allowed, self.images = split, allowed, 0

    def __len__(self) -> int:
        return len(self.split)

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Any]:
        assert self.allowed, "another split than that of training was read"
        assert seed is None, "images are taken as they are"
        self.images += len(order)
        return self.split.batches(order, batch_size, device=device, seed=seed, start=start)

    def to(self, device: str) -> Split:
        return self

    def fingerprint(self) -> str:
        return self.split.fingerprint()


def test_ranges_are_of_training_images_alone(task: Task) -> None:
    assert task.test is not None
    parts: dict[str, Any] = {
        "train": Watched(task.train, True),
        "validation": Watched(task.validation, False),
        "test": Watched(task.test, False),
    }
    inputs = int8.calibration_inputs(task.model(), replace(task, **parts), images=70)

    assert [tuple(batch[0].shape) for batch in inputs] == [(64, 1, 8, 8), (6, 1, 8, 8)]
    assert parts["train"].images == 70


def test_what_cannot_be_quantised_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no such thing")

    with pytest.raises(ExportError, match=r"int8\.onnx: onnxruntime\.quantization: "):
        int8.write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", [])
    assert not (tmp_path / "int8.onnx").exists()


def test_a_full_disk_leaves_nothing(written: Path, task: Task, tmp_path: Path) -> None:
    inputs = int8.calibration_inputs(task.model(), task, images=7)
    with pytest.raises(OSError, match="File too large"), full_disk(30_000):
        int8.write_int8(written / "model.onnx", tmp_path / "int8.onnx", inputs)

    assert list(tmp_path.iterdir()) == []


def test_it_needs_a_task_and_is_not_for_detectors(task: Task) -> None:
    images = torch.zeros(1, 3, 9, 9)

    with pytest.raises(InputError, match="export: int8 needs training images; allowed: a task beside it"):
        formats.check_demands(["int8"], (images,), None)
    with pytest.raises(InputError, match="export: a detector is not written as int8; allowed: ONNX of one image"):
        formats.check_demands(["int8"], (list(images),), task)
    with pytest.raises(InputError, match="export: unknown format 'int4'"):
        formats.check_demands(["int4"], (images,), task)
