"""Whether a cut model still exports, for models of any inputs and outputs: with torch.export, and as ONNX."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.analysis.benchmarks.zoo_checks import CheckError, Numbers, difference, run, tensors
from autoprune.analysis.benchmarks.zoo_models import Entry
from autoprune.errors import first_line
from autoprune.export.formats import TOLERANCE

REASON_LENGTH = 160


def as_dense(error_of: Callable[[nn.Module], float], cut: nn.Module, entry: Entry) -> Numbers:
    """The error of the exported cut model.

    Where the export fails, or what was exported computes something else, the dense model is tried: if it fares no
    better, that is the finding, `not_dense`.

    Raises:
        CheckError: the dense model exports and the cut one does not, or what was exported computes something else.
    """
    try:
        error = error_of(cut.eval())
    except Exception as broken:  # exporters raise some twenty unrelated types
        why = f"{type(broken).__name__}: {first_line(broken, REASON_LENGTH)}"
        if _exports(error_of, entry.build().eval()):
            raise CheckError(f"the dense model exports, the cut one does not: {why}") from broken
        return {"not_dense": why}
    if error <= TOLERANCE:
        return {"error": error}
    dense = error_of(entry.build().eval())
    if dense <= TOLERANCE:
        raise CheckError(f"what was exported differs by {error:.1e}, of the dense model by {dense:.1e}", error=error)
    return {"not_dense": f"what is exported of the dense model differs by {dense:.1e}"}


def _exports(error_of: Callable[[nn.Module], float], model: nn.Module) -> bool:
    try:
        error_of(model)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def program_error(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Relative difference between the model and what torch.export makes of it."""
    expected = run(model, inputs)
    return difference(expected, run(torch.export.export(copy.deepcopy(model), inputs).module(), inputs))


def onnx_error(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Relative difference between the model and its ONNX file in onnxruntime."""
    import onnxruntime

    expected = tensors(run(model, inputs))  # before: what a model keeps of its inputs is symbolic after an export
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(copy.deepcopy(model), inputs, path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        taken = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
        found = [torch.as_tensor(array) for array in session.run(None, taken)]
    return difference(expected, found)
