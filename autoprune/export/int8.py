"""Static INT8: an ONNX file with weights and activations of eight bits, made and run by onnxruntime.

Weights have a scale per channel; the ranges of activations are those that training images show. The form is QDQ, which
onnxruntime and other engines read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ExportError, first_line
from autoprune.files import file_trouble
from autoprune.tasks import Task
from autoprune.timing.muted import exporters_muted
from autoprune.training.seeds import random_stream

#: Training images that ranges of activations are taken from, and how many of them at a time.
IMAGES, AT_A_TIME = 512, 64

Inputs = tuple[Tensor, ...]


def calibration_inputs(model: nn.Module, task: Task, images: int = IMAGES) -> list[Inputs]:
    """What the model is given for so many training images, drawn at random, as they are: never a test image."""
    taken: list[Inputs] = []

    def take(*inputs: Tensor) -> Any:
        taken.append(tuple(tensor.detach().cpu() for tensor in inputs))
        return model(*inputs)

    order = torch.randperm(len(task.train), generator=random_stream(0, 0))[:images]
    with torch.inference_mode():
        for batch in task.train.batches(order, min(AT_A_TIME, task.images_per_pass)):
            task.predict(take, batch)
    return taken


def write_int8(onnx_file: Path, path: Path, inputs: list[Inputs]) -> None:
    """Quantise an ONNX file to `path`.

    Args:
        onnx_file: in float32.
        path: of the new file.
        inputs: of the model, batch by batch.

    Raises:
        ExportError: onnxruntime cannot.
    """
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        with tempfile.TemporaryDirectory(prefix="autoprune-") as scratch, exporters_muted():
            prepared, made = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
            # Symbolic shapes serve transformers; they cannot read some operations, and nothing here needs them.
            quant_pre_process(str(onnx_file), str(prepared), skip_symbolic_shape=True)
            quantize_static(prepared, made, _reader(onnx_file, inputs), per_channel=True)
            written = made.read_bytes()
    except Exception as error:  # onnxruntime's exceptions share no public base class
        if file_trouble(error) is not None:
            raise
        raise ExportError(f"onnxruntime.quantization: {first_line(error, 200)}", where=path.name) from error
    path.write_bytes(written)


def _reader(onnx_file: Path, inputs: list[Inputs]) -> Any:
    """The inputs as onnxruntime asks for them."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    names = [given.name for given in onnx.load(onnx_file, load_external_data=False).graph.input]
    batches: Iterator[dict[str, Any]] = (
        {name: tensor.contiguous().numpy() for name, tensor in zip(names, batch, strict=True)} for batch in inputs
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """Hands out batch after batch, then None."""

        def get_next(self) -> Any:
            return next(batches, None)

    return Reader()
