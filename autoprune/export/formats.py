"""A pruned model as files that load elsewhere: the artefact, ONNX, torch.export, on demand INT8 and OpenVINO's IR; and
a model card.

Every file is read back and run on two batch sizes before the folder appears under its name; a file that computes
something else than the model is an error and leaves nothing behind. INT8 computes something else by design: it is
scored.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.engine.surgery import artifact
from autoprune.errors import ArtifactError, ExportError, InputError, check_name
from autoprune.export import detectors, hub, int8, openvino_ir, torch_files
from autoprune.export.layout import (
    ARTEFACT,
    FORMATS,
    HUB,
    INT8,
    MODEL_CARD,
    ON_DEMAND,
    ONNX,
    OPENVINO,
    PLAIN,
    PROGRAM,
    RECORD,
    Layout,
    files_of,
)
from autoprune.export.model_card import model_card
from autoprune.export.torch_files import Runner, example_batch
from autoprune.files import new_folder

if TYPE_CHECKING:
    from autoprune.tasks import Task

#: Largest difference allowed between a file's outputs and the model's, relative to the largest output. Float32
#: kernels of PyTorch and onnxruntime add in another order and differ by 1e-7 to 1e-5.
TOLERANCE = 1e-4


def export(
    artifact_folder: str | Path,
    factory: Callable[[], nn.Module],
    example: tuple[Any, ...],
    out: str | Path,
    *,
    info: Mapping[str, Any],
    also: Collection[str] = (),
    for_hub: bool = False,
    task: Task | None = None,
    scored: bool = True,
) -> list[Path]:
    """Write the model of an artefact in every format to the new folder `out`.

    Args:
        artifact_folder: written by `artifact.save`.
        factory: builds the dense architecture.
        example: the inputs of a forward pass on one image, tensors or one list of images; see `Task.example`.
        out: a folder that does not exist, or is empty.
        info: plain data for the model card: `task` (its spec), `outcome` (an Outcome), `metric` (its
            spec), `dense` (metric, flops, params), each optional. Kept in `export.json`.
        also: of `int8` and `openvino`; the first needs the task, for its training images.
        for_hub: laid out as the Hugging Face Hub wants it.
        task: whose validation split every file is scored on; None = none is.
        scored: whether it is, with a task.

    Returns:
        The files written: artefact, `model.onnx`, `model.pt2`, `export.json`, `README.md`, and what was asked for. Of a
        detector there is no `model.pt2`, and no `model.onnx` where torch cannot write one; `export.json` says why.

    Raises:
        InputError: `out` is taken or cannot be written, an optional package is missing, the artefact does not load, or
            a detector is to be quantised.
        ExportError: the model cannot be exported, or a file disagrees with it by more than `TOLERANCE`.
    """
    require_packages(also)
    check_demands(also, example, task)
    layout = HUB if for_hub else PLAIN
    with new_folder(Path(out)) as folder:
        model = artifact.load(artifact_folder, model=factory).eval()
        copied = _copy_artifact(Path(artifact_folder), folder)
        missing = _write_formats(model, example, folder, layout)
        _write_on_demand(model, folder, layout, also, task)
        files = {name: paths for name, paths in _paths(layout, copied, also).items() if name not in missing}
        runners = _load_runners(folder, factory, files)
        errors = {name: _worst_error(run, model, example) for name, run in runners.items()}
        _check_errors({name: error for name, error in errors.items() if name != INT8})
        scores = _scores(runners, task) if task is not None and scored else {}
        record = _export_record(info, errors, example, files, missing) | {
            "outputs": list(detectors.OUTPUTS) if missing else torch_files.output_names(model, example),
            "scores": scores,
            "sha256": {path: _sha256(folder / path) for paths in files.values() for path in paths},
            "run_from": os.path.relpath(Path.cwd(), Path(out).absolute()),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        (folder / MODEL_CARD).write_text((hub.front_matter(record) if for_hub else "") + model_card(record))
        if for_hub:
            hub.write_files(record, folder)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return [Path(out) / name for name in names]


def verify(out: str | Path, task: Task) -> dict[str, float]:
    """Score every file of an exported folder on the task's validation split.

    Returns:
        The task's metric by format, each loaded from its files and run in float32; `int8` as it is.

    Raises:
        InputError: this is not an exported folder, or an optional package is missing.
        ArtifactError: a file is not the one that was exported.
    """
    record = read_record(out)
    files = files_of(record, f"{out}/{RECORD}")
    require_packages(set(files) & set(ON_DEMAND))
    _check_files(Path(out), record, files)
    return _scores(_load_runners(Path(out), task.build, files), task)


@contextlib.contextmanager
def task_of(out: Path) -> Iterator[Task]:
    """The task that an export names, opened in the current folder or else in the one that the export was made in.

    A task may name modules and data by where they lie from there; within the block that is the current folder.

    Args:
        out: an absolute path: the current folder may be another one within the block.

    Raises:
        InputError: the task cannot be opened; what is said is of the current folder.
    """
    record = read_record(out)
    spec, made_in = record.get("task") or {}, record.get("run_from")
    try:
        task = _open_task(spec)
    except InputError as here:
        place = (out / made_in).resolve() if isinstance(made_in, str) else Path.cwd()
        if place == Path.cwd() or not place.is_dir():
            raise
        with contextlib.chdir(place):
            try:
                task = _open_task(spec)
            except InputError:
                raise here from None
            yield task
        return
    yield task


def _open_task(spec: Mapping[str, Any]) -> Task:
    """The task, whose network has been built once: some code looks for its files only then."""
    from autoprune.tasks import load_task

    task = load_task(spec)
    task.build()
    return task


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


def require_packages(also: Collection[str] = ()) -> None:
    """Raise `InputError` unless the packages of the extra `onnx`, and of what else is wanted, are installed."""
    for extra in ("onnx", *("openvino" for name in also if name == OPENVINO)):
        packages = ("onnx", "onnxruntime", "onnxscript") if extra == "onnx" else (extra,)
        if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
            what = f"{', '.join(missing)} not installed; run: pip install 'autoprune[{extra}]'"
            raise InputError(what, where="export")


def check_demands(also: Collection[str], example: tuple[Any, ...], task: Task | None) -> None:
    """Raise `InputError` for a format that this model does not have on demand."""
    for name in also:
        check_name(name, ON_DEMAND, kind="format", where="export")
        if detectors.takes_images(example):
            raise InputError(f"a detector is not written as {name}", where="export", allowed="ONNX of one image")
    if INT8 in also and task is None:
        raise InputError("int8 needs training images", where="export", allowed="a task beside it")


def _copy_artifact(source: Path, folder: Path) -> list[str]:
    files = [path for path in sorted(source.iterdir()) if path.suffix in {".safetensors", ".json"}]
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in files]


def _paths(layout: Layout, copied: list[str], also: Collection[str]) -> dict[str, list[str]]:
    """Format -> its files, of all that are wanted."""
    paths = {
        ARTEFACT: copied,
        ONNX: [layout.onnx],
        PROGRAM: [layout.program],
        INT8: [layout.int8],
        OPENVINO: [layout.openvino, layout.openvino_weights],
    }
    return {name: paths[name] for name in FORMATS if name not in ON_DEMAND or name in also}


def _write_formats(model: nn.Module, example: tuple[Any, ...], folder: Path, layout: Layout) -> dict[str, str]:
    """Write what can be written beside the artefact; of what cannot, by name, why."""
    (folder / layout.onnx).parent.mkdir(exist_ok=True)
    if not detectors.takes_images(example):
        torch_files.write_program(model, example, folder / layout.program)
        outputs = torch_files.output_names(model, example)
        torch_files.write_onnx(folder / layout.program, folder / layout.onnx, outputs)
        return {}
    missing = {PROGRAM: detectors.NO_PROGRAM}
    try:
        detectors.write_onnx(model, example, folder / layout.onnx)
    except ExportError as error:
        missing[ONNX] = error.what
    return missing


def _write_on_demand(model: nn.Module, folder: Path, layout: Layout, also: Collection[str], task: Task | None) -> None:
    if INT8 in also and task is not None:
        (folder / layout.int8).parent.mkdir(exist_ok=True)
        int8.write_int8(folder / layout.onnx, folder / layout.int8, int8.calibration_inputs(model, task))
    if OPENVINO in also:
        (folder / layout.openvino).parent.mkdir(exist_ok=True)
        openvino_ir.write_ir(folder / layout.onnx, folder / layout.openvino, folder / layout.openvino_weights)


def _load_runners(folder: Path, factory: Callable[[], nn.Module], files: Mapping[str, list[str]]) -> dict[str, Runner]:
    """One function per format, each loaded from its files alone: the inputs of the model to its outputs."""
    readers: dict[str, Callable[[str], Runner]] = {
        ARTEFACT: lambda _: artifact.load(folder, model=factory).eval(),
        ONNX: lambda path: torch_files.onnx_runner(folder / path),
        PROGRAM: lambda path: torch_files.program_runner(folder / path),
        INT8: lambda path: torch_files.onnx_runner(folder / path),
        OPENVINO: lambda path: openvino_ir.ir_runner(folder / path),
    }
    return {name: readers[name](paths[0]) for name, paths in files.items()}


def _scores(runners: Mapping[str, Runner], task: Task) -> dict[str, float]:
    """The task's metric on its validation split, by format."""
    from autoprune.training.evaluate import evaluate
    from autoprune.training.runtime import Runtime

    runtime = Runtime(device="cpu", precision="fp32", channels_last=False, threads=torch.get_num_threads())
    return {name: evaluate(_AsModule(run), task.validation, task, runtime) for name, run in runners.items()}


def _worst_error(run: Runner, model: nn.Module, example: tuple[Any, ...]) -> float:
    """Largest |file - model| over batches of 1 and 3 images, relative to the model's largest output.

    Of detectors, see `detectors.worst_error`.
    """
    if detectors.takes_images(example):
        return detectors.worst_error(run, model, example)
    worst = 0.0
    for size in (1, 3):
        inputs = example_batch(example, size)
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


def _check_files(out: Path, record: Mapping[str, Any], files: Mapping[str, list[str]]) -> None:
    """Raise `ArtifactError` for a file that is missing, or is another than was exported."""
    known = record.get("sha256") or {}  # exports of before have none
    for path in (path for paths in files.values() for path in paths):
        try:
            found = _sha256(out / path)
        except OSError as error:
            raise ArtifactError(f"cannot be read: {error.strerror}", where=str(out / path)) from error
        if path in known and known[path] != found:
            raise ArtifactError("not the file that was exported (checksum differs)", where=str(out / path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _export_record(
    info: Mapping[str, Any],
    errors: Mapping[str, float],
    example: tuple[Any, ...],
    files: Mapping[str, list[str]],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    packages = ("autoprune", "torch", "onnx", "onnxruntime", *((OPENVINO,) if OPENVINO in files else ()))
    one_by_one = detectors.takes_images(example)
    return {
        **info,
        "input": list(example[0][0].shape if one_by_one else example[0].shape[1:]),
        **({} if one_by_one else {"inputs": [list(given.shape[1:]) for given in example]}),
        "files": dict(files),
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
