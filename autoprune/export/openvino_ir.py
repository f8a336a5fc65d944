"""OpenVINO's intermediate representation: a description and weights that its runtime reads, in float32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from autoprune.errors import ArtifactError, ExportError, InputError, first_line
from autoprune.export.torch_files import Runner, structured
from autoprune.files import ROOM, file_trouble


def write_ir(onnx_file: Path, path: Path, weights: Path) -> None:
    """Write an ONNX file as IR: the description to `path`, the weights beside it.

    Raises:
        ExportError: OpenVINO does not read the file.
        InputError: there is no room; its writer, which is C++, says nothing of the disk.
    """
    import openvino

    try:
        model = openvino.Core().read_model(onnx_file)
    except Exception as error:  # RuntimeErrors of all kinds
        raise ExportError(f"OpenVINO: {first_line(error, 200)}", where=path.name) from error
    with tempfile.TemporaryDirectory(prefix="autoprune-") as scratch:
        made = Path(scratch) / path.name
        try:
            openvino.save_model(model, made, compress_to_fp16=False)
        except Exception as error:
            what = "OpenVINO's writer gave up, as it does where there is no room"
            raise file_trouble(error) or InputError(what, where=path.name, allowed=ROOM) from error
        written, beside = made.read_bytes(), made.with_suffix(".bin").read_bytes()
    path.write_bytes(written)
    weights.write_bytes(beside)


def ir_runner(path: Path) -> Runner:
    """The files in OpenVINO's runtime, on the CPU in float32, called as the model is."""
    import openvino

    try:
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as error:
        raise ArtifactError(f"OpenVINO: {first_line(error, 200)}", where=str(path)) from error
    names = [output.get_any_name() for output in compiled.outputs]

    def run(*inputs: Tensor) -> object:
        found = compiled([tensor.contiguous().numpy() for tensor in inputs])
        return structured(names, [torch.from_numpy(found[output].copy()) for output in compiled.outputs])

    return run
