"""A model as an exported program of torch and as ONNX, and what runs these files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ArtifactError, ExportError, first_line
from autoprune.export import detectors
from autoprune.timing.muted import exporters_muted

Runner = Callable[..., Any]

#: Largest batch of an exported program.
MOST_IMAGES = 2**31 - 1

#: What the first dimension is called in an ONNX file.
BATCH = "batch"


def write_program(model: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Write what torch.export records, for any number of images."""
    # Two images at least: torch.export takes a size of 1 for a constant.
    batch = example_batch(example, 2)
    # torch 2.6 holds 2^63 - 1, its word for "no end", against a size without an end, and gives up.
    dynamic = ({0: torch.export.Dim(BATCH, max=MOST_IMAGES)},) * len(batch)
    try:
        with exporters_muted():
            written = io.BytesIO()  # torch ends the whole process where its own writer meets a full disk
            torch.export.save(torch.export.export(model, batch, dynamic_shapes=dynamic), written)
    except Exception as error:  # torch.export raises some twenty unrelated types
        raise ExportError(f"torch.export: {first_line(error, 200)}", where=path.name) from error
    path.write_bytes(written.getbuffer())


def write_onnx(program: Path, path: Path, outputs: list[str]) -> None:
    """Write a program as ONNX, simplified as torch's exporter does it: constants are folded, norms are in convolutions.

    Raises:
        ExportError: torch cannot, or what it has made is no valid ONNX.
    """
    import onnx

    try:
        with exporters_muted():
            exported = torch.export.load(program)
            names = _input_names(exported, outputs)
            made: Any = torch.onnx.export(
                exported, (), input_names=names, output_names=outputs, dynamo=True, verbose=False
            )
            proto = made.model_proto
        _name_batches(proto)
        onnx.checker.check_model(proto, full_check=True)
        written = proto.SerializeToString()
    except Exception as error:  # the same, and onnxscript's own
        raise ExportError(f"torch.onnx: {first_line(error, 200)}", where=path.name) from error
    path.write_bytes(written)


def _name_batches(proto: Any) -> None:
    """Call the first dimension of inputs and outputs what it is, where torch has a number for a name."""
    for value in (*proto.graph.input, *proto.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and dimensions[0].dim_param:
            dimensions[0].dim_param = BATCH


def _input_names(program: torch.export.ExportedProgram, outputs: list[str]) -> list[str]:
    """`images` for one input, else the names of the arguments of the model's `forward`.

    ONNX has one name for one value: an argument that is called like an output gets another one.
    """
    given = list(program.graph_signature.user_inputs)
    names = ["images"] if len(given) == 1 else [str(name) for name in given]
    return [f"input_{name}" if name in outputs else name for name in names]


def output_names(model: nn.Module, example: tuple[Tensor, ...]) -> list[str]:
    """`logits` of one tensor, the keys of a mapping, `output_0`, `output_1`, ... of a sequence."""
    with torch.inference_mode():
        outputs = model(*example)
    if isinstance(outputs, Mapping):
        return [str(name) for name in outputs]
    return ["logits"] if isinstance(outputs, Tensor) else [f"output_{place}" for place in range(len(outputs))]


def structured(names: list[str], values: list[Tensor]) -> Any:
    """What a model gives whose outputs have these names; see `output_names`."""
    if names == ["logits"]:
        return values[0]
    is_sequence = names == [f"output_{place}" for place in range(len(names))]
    return tuple(values) if is_sequence else dict(zip(names, values, strict=True))


def onnx_runner(path: Path) -> Runner:
    """An ONNX file in onnxruntime, called as the model is; raises `ArtifactError` if it is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ArtifactError(f"onnxruntime: {first_line(error, 200)}", where=str(path)) from error
    names = [given.name for given in session.get_inputs()]
    outputs = [given.name for given in session.get_outputs()]
    if tuple(outputs) == detectors.OUTPUTS:
        return detectors.onnx_detector(session)

    def run(*inputs: Tensor) -> Any:
        given = {name: tensor.contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
        return structured(outputs, [torch.from_numpy(found) for found in session.run(None, given)])

    return run


def program_runner(path: Path) -> Runner:
    """An exported program; raises `ArtifactError` if the file is none."""
    try:
        with exporters_muted():
            return torch.export.load(path).module()
    except Exception as error:  # a torn zip raises RuntimeError, a missing file OSError, an old schema others
        raise ArtifactError(f"torch.export: {first_line(error, 200)}", where=str(path)) from error


def example_batch(example: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    """`size` different images made from the first: a file that mixes up its batch would show."""
    return tuple(
        torch.cat([first[:1].roll(shift, dims=-1) * (1 + shift / 8) for shift in range(size)]) for first in example
    )
