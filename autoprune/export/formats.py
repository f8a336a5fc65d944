"""A pruned model as files that load elsewhere: the artefact, ONNX, torch.export, and a model card.

Every file is read back and run on two batch sizes before the folder appears under its name; a file that computes
something else than the model is an error and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autoprune.engine.surgery import artifact
from autoprune.errors import ArtifactError, ExportError, InputError, first_line
from autoprune.export.model_card import model_card
from autoprune.files import new_folder

if TYPE_CHECKING:
    from autoprune.tasks import Task

Runner = Callable[..., Tensor]


ONNX, PROGRAM, MODEL_CARD, RECORD = "model.onnx", "model.pt2", "README.md", "export.json"

#: Largest difference allowed between a file's outputs and the model's, relative to the largest output. Float32
#: kernels of PyTorch and onnxruntime add in another order and differ by 1e-7 to 1e-5.
TOLERANCE = 1e-4


def export(
    artifact_folder: str | Path,
    factory: Callable[[], nn.Module],
    example: tuple[Tensor, ...],
    out: str | Path,
    *,
    info: Mapping[str, Any],
) -> list[Path]:
    """Write the model of an artefact in every format to the new folder `out`.

    Args:
        artifact_folder: written by `artifact.save`.
        factory: builds the dense architecture.
        example: the inputs of a forward pass on one image, tensors; see `Task.example`.
        out: a folder that does not exist, or is empty.
        info: plain data for the model card: `task` (its spec), `outcome` (an Outcome), `metric` (its
            spec), `dense` (metric, flops, params), each optional. Kept in `export.json`.

    Returns:
        The files written: artefact, `model.onnx`, `model.pt2`, `export.json`, `README.md`.

    Raises:
        InputError: `out` is taken or cannot be written, an optional package is missing, the artefact does not load.
        ExportError: the model cannot be exported, or a file disagrees with it by more than `TOLERANCE`.
    """
    require_onnx()
    with new_folder(Path(out)) as folder:
        model = artifact.load(artifact_folder, model=factory).eval()
        copied = _copy_artifact(Path(artifact_folder), folder)
        _write_program(model, example, folder / PROGRAM)
        _write_onnx(folder / PROGRAM, folder / ONNX)
        errors = {name: _worst_error(run, model, example) for name, run in _load_runners(folder, factory).items()}
        _check_errors(errors)
        record = _export_record(info, errors, example, copied)
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
    read_record(out)
    runtime = Runtime(
        device="cpu", precision="fp32", channels_last=False, compile=False, threads=torch.get_num_threads()
    )
    runners = _load_runners(Path(out), task.build)
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


def _write_program(model: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    # Two images at least: torch.export takes a size of 1 for a constant.
    batch = _example_batch(example, 2)
    dynamic = ({0: torch.export.Dim("batch")},) * len(batch)
    try:
        with _exporters_muted():
            torch.export.save(torch.export.export(model, batch, dynamic_shapes=dynamic), path)
    except Exception as error:  # torch.export raises some twenty unrelated types
        raise ExportError(f"torch.export: {first_line(error, 200)}", where=path.name) from error


def _write_onnx(program: Path, path: Path) -> None:
    try:
        with _exporters_muted():
            exported = torch.export.load(program)
            torch.onnx.export(
                exported,
                (),
                path,
                input_names=_input_names(exported),
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the same, and onnxscript's own
        raise ExportError(f"torch.onnx: {first_line(error, 200)}", where=path.name) from error


def _input_names(program: torch.export.ExportedProgram) -> list[str]:
    """`images` for one input, else the names of the arguments of the model's `forward`."""
    names = list(program.graph_signature.user_inputs)
    return ["images"] if len(names) == 1 else [str(name) for name in names]


def _load_runners(folder: Path, factory: Callable[[], nn.Module]) -> dict[str, Runner]:
    """One function per file, each loaded from the file alone: images (N, C, H, W) to outputs."""
    model = artifact.load(folder, model=factory).eval()
    return {"artefact": model, "onnx": _onnx_runner(folder / ONNX), "pt2": _program_runner(folder / PROGRAM)}


def _onnx_runner(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ArtifactError(f"onnxruntime: {first_line(error, 200)}", where=str(path)) from error
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: tensor.contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _program_runner(path: Path) -> Runner:
    try:
        with _exporters_muted():
            return torch.export.load(path).module()
    except Exception as error:  # a torn zip raises RuntimeError, a missing file OSError, an old schema others
        raise ArtifactError(f"torch.export: {first_line(error, 200)}", where=str(path)) from error


def _worst_error(run: Runner, model: nn.Module, example: tuple[Tensor, ...]) -> float:
    """Largest |file - model| over batches of 1 and 3 images, relative to the model's largest output."""
    worst = 0.0
    for size in (1, 3):
        inputs = _example_batch(example, size)
        with torch.inference_mode():
            expected, actual = model(*inputs), run(*inputs)
        if actual.shape != expected.shape:
            raise ExportError(f"a batch of {size} gives {tuple(actual.shape)}, the model {tuple(expected.shape)}")
        error = (actual - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        worst = max(worst, float(error)) if torch.isfinite(error) else float("inf")
    return worst


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
    info: Mapping[str, Any], errors: Mapping[str, float], example: tuple[Tensor, ...], copied: list[str]
) -> dict[str, Any]:
    packages = ("autoprune", "torch", "onnx", "onnxruntime")
    return {
        **info,
        "input": list(example[0].shape[1:]),
        "files": {"artefact": copied, "onnx": [ONNX], "pt2": [PROGRAM]},
        "relative_error": dict(errors),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


@contextlib.contextmanager
def _exporters_muted() -> Iterator[None]:
    """Hold back warnings and logs of torch's exporters: none of them concerns the user of an exported model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _AsModule(nn.Module):
    """A loaded file as something `evaluate` can run; the file's own module stays out of train/eval switching."""

    def __init__(self, run: Runner) -> None:
        super().__init__()
        object.__setattr__(self, "run", run)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(*inputs)
