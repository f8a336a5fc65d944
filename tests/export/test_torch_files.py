"""ONNX as it is handed over: simplified, with names, valid."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from autoprune.errors import ArtifactError
from autoprune.export import torch_files

EXAMPLE = (torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(5)),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("onnx")
    block = [nn.Conv2d(3, 13, 3), nn.BatchNorm2d(13), nn.ReLU(), nn.Dropout(), nn.Identity()]
    model = nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 7)).eval()
    torch_files.write_program(model, EXAMPLE, place / "model.pt2")
    torch_files.write_onnx(place / "model.pt2", place / "model.onnx", ["logits"])
    return place


def test_norms_are_in_convolutions_and_nothing_idle_is_left(folder: Path) -> None:
    used = Counter(node.op_type for node in onnx.load(folder / "model.onnx").graph.node)

    assert used["Conv"] == used["Gemm"] == used["Relu"] == 1
    assert not set(used) & {"BatchNormalization", "Dropout", "Identity", "Constant"}


def test_inputs_and_outputs_have_names_and_any_number_of_images(folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx").graph
    named = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }

    assert named == {"images": ["batch", 3, 9, 9], "logits": ["batch", 7]}


@pytest.mark.parametrize("kept", [0, 1, 97, -97])
@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_torn_file_is_one_line(folder: Path, tmp_path: Path, name: str, kept: int) -> None:
    (tmp_path / name).write_bytes((folder / name).read_bytes()[:kept])
    read = torch_files.onnx_runner if name == "model.onnx" else torch_files.program_runner

    with pytest.raises(ArtifactError, match=name) as found:
        read(tmp_path / name)
    assert len(found.value.line().splitlines()) == 1
