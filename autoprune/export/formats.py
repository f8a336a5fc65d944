"""A pruned model as files that load elsewhere: the artefact, ONNX, torch.export, and a model card.

Every file is read back and run on two batch sizes before the folder appears under its name; a file that computes
something else than the model is an error and leaves nothing behind.
"""

from __future__ import annotations

import importlib.util
import io
import json
import platform
import shutil
from collections.abc import Callable, Container, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.engine.surgery import artifact
from autoprune.errors import ArtifactError, ExportError, InputError, first_line
from autoprune.export import detectors
from autoprune.export.model_card import model_card
from autoprune.files import file_trouble, new_folder
from autoprune.timing.muted import exporters_muted

if TYPE_CHECKING:
    from autoprune.tasks import Task

Runner = Callable[..., Any]


ONNX, PROGRAM, MODEL_CARD, RECORD = "model.onnx", "model.pt2", "README.md", "export.json"

#: Largest difference allowed between a file's outputs and the model's, relative to the largest output. Float32
#: kernels of PyTorch and onnxruntime add in another order and differ by 1e-7 to 1e-5.
TOLERANCE = 1e-4

#: Largest batch of an exported program.
MOST_IMAGES = 2**31 - 1


def export(
    artifact_folder: str | Path,
    factory: Callable[[], nn.Module],
    example: tuple[Any, ...],
    out: str | Path,
    *,
    info: Mapping[str, Any],
) -> list[Path]:
    """Write the model of an artefact in every format to the new folder `out`.

    Args:
        artifact_folder: written by `artifact.save`.
        factory: builds the dense architecture.
        example: the inputs of a forward pass on one image, tensors or one list of images; see `Task.example`.
        out: a folder that does not exist, or is empty.
        info: plain data for the model card: `task` (its spec), `outcome` (an Outcome), `metric` (its
            spec), `dense` (metric, flops, params), each optional. Kept in `export.json`.

    Returns:
        The files written: artefact, `model.onnx`, `model.pt2`, `export.json`, `README.md`. Of a detector there is no
        `model.pt2`, and no `model.onnx` where torch cannot write one; `export.json` says why.

    Raises:
        InputError: `out` is taken or cannot be written, an optional package is missing, the artefact does not load.
        ExportError: the model cannot be exported, or a file disagrees with it by more than `TOLERANCE`.
    """
    require_onnx()
    with new_folder(Path(out)) as folder:
        model = artifact.load(artifact_folder, model=factory).eval()
        copied = _copy_artifact(Path(artifact_folder), folder)
        missing = _write_formats(model, example, folder)
        runners = _load_runners(folder, factory, missing)
        errors = {name: _worst_error(run, model, example) for name, run in runners.items()}
        _check_errors(errors)
        record = _export_record(info, errors, example, copied, missing)
        (folder / RECORD).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        (folder / MODEL_CARD).write_text(model_card(record))
        names = sorted(path.name for path in folder.iterdir())
    return [Path(out) / name for name in names]


def verify(out: str | Path, task: Task) -> dict[str, float]:
    """Score every file of an exported folder on the task's validation split.

    Returns:
        The task's metric of `artefact`, `onnx` and `pt2`, each loaded from its file and run in float32.

    Raises:
        InputError: this is not an exported folder, or an optional package is missing.
    """
    from autoprune.training.evaluate import evaluate
    from autoprune.training.runtime import Runtime

    require_onnx()
    missing = read_record(out).get("not_written") or {}
    runtime = Runtime(
        device="cpu", precision="fp32", channels_last=False, compile=False, threads=torch.get_num_threads()
    )
    runners = _load_runners(Path(out), task.build, missing)
    return {name: evaluate(_AsModule(run), task.validation, task, runtime) for name, run in runners.items()}


def read_record(out: str | Path) -> dict[str, Any]:
    """The `export.json` of an exported folder; raises `InputError` where there is none."""
    path = Path(out) / RECORD
    try:
        record = json.loads(path.read_text())
    except OSError:
        raise InputError(f"no exported model in {str(out)!r}", allowed=f"a folder with {RECORD} inside") from None
    except ValueError as error:
        raise ArtifactError(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(record, dict):
        raise ArtifactError("expected an object", where=str(path))
    return record


def require_onnx() -> None:
    """Raise `InputError` unless the packages of the `onnx` extra are installed."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed; run: pip install 'autoprune[onnx]'", where="export")


def _copy_artifact(source: Path, folder: Path) -> list[str]:
    files = [path for path in sorted(source.iterdir()) if path.suffix in {".safetensors", ".json"}]
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in files]


def _write_formats(model: nn.Module, example: tuple[Any, ...], folder: Path) -> dict[str, str]:
    """Write what can be written beside the artefact; of what cannot, by name, why."""
    if not detectors.takes_images(example):
        _write_program(model, example, folder / PROGRAM)
        _write_onnx(folder / PROGRAM, folder / ONNX, _output_names(model, example))
        return {}
    missing = {"pt2": detectors.NO_PROGRAM}
    try:
        detectors.write_onnx(model, example, folder / ONNX)
    except ExportError as error:
        missing["onnx"] = error.what
    return missing


def _write_program(model: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    # Two images at least: torch.export takes a size of 1 for a constant.
    batch = _example_batch(example, 2)
    # torch 2.6 holds 2^63 - 1, its word for "no end", against a size without an end, and gives up.
    dynamic = ({0: torch.export.Dim("batch", max=MOST_IMAGES)},) * len(batch)
    try:
        with exporters_muted():
            written = io.BytesIO()  # torch ends the whole process where its own writer meets a full disk
            torch.export.save(torch.export.export(model, batch, dynamic_shapes=dynamic), written)
    except Exception as error:  # torch.export raises some twenty unrelated types
        raise ExportError(f"torch.export: {first_line(error, 200)}", where=path.name) from error
    path.write_bytes(written.getbuffer())


def _write_onnx(program: Path, path: Path, output_names: list[str]) -> None:
    try:
        with exporters_muted():
            exported = torch.export.load(program)
            torch.onnx.export(
                exported,
                (),
                path,
                input_names=_input_names(exported),
                output_names=output_names,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the same, and onnxscript's own
        if file_trouble(error) is not None:
            raise
        raise ExportError(f"torch.onnx: {first_line(error, 200)}", where=path.name) from error


def _input_names(program: torch.export.ExportedProgram) -> list[str]:
    """`images` for one input, else the names of the arguments of the model's `forward`."""
    names = list(program.graph_signature.user_inputs)
    return ["images"] if len(names) == 1 else [str(name) for name in names]


def _output_names(model: nn.Module, example: tuple[Tensor, ...]) -> list[str]:
    """`logits` of one tensor, the keys of a mapping, `output_0`, `output_1`, ... of a sequence."""
    with torch.inference_mode():
        outputs = model(*example)
    if isinstance(outputs, Mapping):
        return [str(name) for name in outputs]
    return ["logits"] if isinstance(outputs, Tensor) else [f"output_{place}" for place in range(len(outputs))]


def _structured(names: list[str], values: list[Tensor]) -> Any:
    """What a model gives whose outputs have these names; see `_output_names`."""
    if names == ["logits"]:
        return values[0]
    is_sequence = names == [f"output_{place}" for place in range(len(names))]
    return tuple(values) if is_sequence else dict(zip(names, values, strict=True))


def _load_runners(folder: Path, factory: Callable[[], nn.Module], missing: Container[str] = ()) -> dict[str, Runner]:
    """One function per file, each loaded from the file alone: the inputs of the model to its outputs.

    Args:
        missing: formats that the model was not written in.
    """
    readers: dict[str, Callable[[], Runner]] = {
        "artefact": lambda: artifact.load(folder, model=factory).eval(),
        "onnx": lambda: _onnx_runner(folder / ONNX),
        "pt2": lambda: _program_runner(folder / PROGRAM),
    }
    return {name: read() for name, read in readers.items() if name not in missing}


def _onnx_runner(path: Path) -> Runner:
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
        return _structured(outputs, [torch.from_numpy(found) for found in session.run(None, given)])

    return run


def _program_runner(path: Path) -> Runner:
    try:
        with exporters_muted():
            return torch.export.load(path).module()
    except Exception as error:  # a torn zip raises RuntimeError, a missing file OSError, an old schema others
        raise ArtifactError(f"torch.export: {first_line(error, 200)}", where=str(path)) from error


def _worst_error(run: Runner, model: nn.Module, example: tuple[Any, ...]) -> float:
    """Largest |file - model| over batches of 1 and 3 images, relative to the model's largest output.

    Of detectors, see `detectors.worst_error`.
    """
    if detectors.takes_images(example):
        return detectors.worst_error(run, model, example)
    worst = 0.0
    for size in (1, 3):
        inputs = _example_batch(example, size)
        with torch.inference_mode():
            expected, actual = tree_leaves(model(*inputs)), tree_leaves(run(*inputs))
        shapes = [[tuple(output.shape) for output in outputs] for outputs in (actual, expected)]
        if shapes[0] != shapes[1]:
            raise ExportError(f"a batch of {size} gives {shapes[0]}, the model {shapes[1]}")
        worst = max(worst, *map(_relative_error, actual, expected))
    return worst


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    error = (actual - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float(error) if torch.isfinite(error) else float("inf")


def _check_errors(errors: Mapping[str, float]) -> None:
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise ExportError(f"differs from the model by {error:.1e} of its largest output", where=name)


def _example_batch(example: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    """`size` different images made from the first: a file that mixes up its batch would show."""
    return tuple(
        torch.cat([first[:1].roll(shift, dims=-1) * (1 + shift / 8) for shift in range(size)]) for first in example
    )


def _export_record(
    info: Mapping[str, Any],
    errors: Mapping[str, float],
    example: tuple[Any, ...],
    copied: list[str],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    packages = ("autoprune", "torch", "onnx", "onnxruntime")
    files = {"artefact": copied, "onnx": [ONNX], "pt2": [PROGRAM]}
    one_by_one = detectors.takes_images(example)
    return {
        **info,
        "input": list(example[0][0].shape if one_by_one else example[0].shape[1:]),
        "files": {name: files[name] for name in errors},
        **({"not_written": dict(missing), "one_by_one": True} if one_by_one else {}),
        "relative_error": dict(errors),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


class _AsModule(nn.Module):
    """A loaded file as something `evaluate` can run; the file's own module stays out of train/eval switching."""

    def __init__(self, run: Runner) -> None:
        super().__init__()
        object.__setattr__(self, "run", run)

    def forward(self, *inputs: Any) -> Any:
        return self.run(*inputs)
