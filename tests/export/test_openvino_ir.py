"""OpenVINO's files compute what the model computes, where OpenVINO is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from disks import full_disk
from torch import nn

from autoprune.errors import ArtifactError, ExportError, InputError
from autoprune.export import formats, openvino_ir, torch_files

IMAGES = torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    pytest.importorskip("openvino")
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("openvino")
    model = nn.Sequential(nn.Conv2d(3, 13, 3), nn.ReLU(), nn.Flatten(), nn.Linear(637, 7)).eval()
    torch_files.write_program(model, (IMAGES[:1],), folder / "model.pt2")
    torch_files.write_onnx(folder / "model.pt2", folder / "model.onnx", ["logits"])
    openvino_ir.write_ir(folder / "model.onnx", folder / "model.xml", folder / "model.bin")
    return folder, model


@pytest.mark.parametrize("size", [1, 2, 5])
def test_it_computes_what_the_model_computes(written: tuple[Path, nn.Module], size: int) -> None:
    folder, model = written

    with torch.inference_mode():
        actual = openvino_ir.ir_runner(folder / "model.xml")(IMAGES[:size])
        torch.testing.assert_close(actual, model(IMAGES[:size]), rtol=1e-4, atol=1e-5)


def test_a_full_disk_is_one_line_and_leaves_nothing(written: tuple[Path, nn.Module], tmp_path: Path) -> None:
    said = r"model\.xml: OpenVINO's writer gave up, .*; allowed: a disk with room"
    with pytest.raises(InputError, match=said), full_disk(3000):
        openvino_ir.write_ir(written[0] / "model.onnx", tmp_path / "model.xml", tmp_path / "model.bin")

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_one_line(written: tuple[Path, nn.Module], tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes((written[0] / "model.xml").read_bytes()[:300])

    with pytest.raises(ArtifactError, match=r"model\.xml: OpenVINO: "):
        openvino_ir.ir_runner(tmp_path / "model.xml")
    with pytest.raises(ExportError, match=r"other\.xml: OpenVINO: "):
        openvino_ir.write_ir(tmp_path / "model.xml", tmp_path / "other.xml", tmp_path / "other.bin")


def test_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))

    with pytest.raises(InputError, match=r"openvino not installed; run: pip install 'autoprune\[openvino\]'"):
        formats.require_packages(["openvino"])
    formats.require_packages(["int8"])
