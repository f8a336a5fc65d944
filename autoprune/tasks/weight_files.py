"""Weights from a file into a model: every tensor checked by name, shape and value before one is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.errors import InputError, ModelError
from autoprune.files import written_whole
from autoprune.tasks.user_code import data_folder


def find(path: str, where: str) -> Path:
    """The checkpoint file: as given, or inside the data folder.

    Raises:
        ModelError: there is no such file.
    """
    for candidate in (Path(path).expanduser(), data_folder() / path):
        if candidate.is_file():
            return candidate
    places = f"a file here or in {data_folder()} ($AUTOPRUNE_DATA)"
    raise ModelError(f"no checkpoint {path!r}", where=where, allowed=places)


def load_weights(model: nn.Module, file: Path) -> None:
    """Fill `model` from a safetensors file, or a torch file: tensors by name, or such under `state_dict` or `model`.

    A leading `module.` or `_orig_mod.` (DataParallel, torch.compile) is dropped; `num_batches_tracked` may be missing.

    Raises:
        ModelError: the file is unreadable, or a tensor is missing, unknown, of another shape or not finite.
    """
    given, wanted = _read_tensors(file), model.state_dict()
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted]
    if missing:
        near = f"; it has {', '.join(map(repr, unknown[:3]))} instead" if unknown else ""
        raise ModelError(
            f"no tensor {missing[0]!r} ({len(missing)} of {len(wanted)} are missing{near})", where=str(file)
        )
    if unknown:
        raise ModelError(f"tensor {unknown[0]!r} is not in the model ({len(unknown)} such)", where=str(file))
    for name, tensor in given.items():
        _check_tensor(name, tensor, wanted[name], str(file))
    model.load_state_dict({**wanted, **given})


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the model's tensors as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(file) as beside:
        save_file(state, beside)


def check_writable(folder: Path, where: str) -> None:
    """Make `folder` if it is not there; raise `InputError` if nothing can be written into it."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"cannot write to {str(folder)!r}: {error.strerror}"
        raise InputError(message, where=where, allowed="a writable folder by $AUTOPRUNE_DATA") from error


def _check_tensor(name: str, tensor: Tensor, wanted: Tensor, where: str) -> None:
    if tensor.shape != wanted.shape:
        raise ModelError(
            f"tensor {name!r} is {tuple(tensor.shape)}, the model needs {tuple(wanted.shape)}", where=where
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ModelError(f"tensor {name!r} holds NaN or infinity", where=where)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        data = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError) as error:
        raise ModelError(f"not a readable checkpoint: {error}", where=str(file)) from error
    except Exception as error:  # torch.load: zip, pickle and unsafe-global errors have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        allowed = "safetensors, or a torch file that weights_only=True reads"
        raise ModelError(f"not a readable checkpoint: {reason}", where=str(file), allowed=allowed) from error
    return {_plain_name(name): tensor for name, tensor in _find_mapping(data, file).items()}


def _find_mapping(data: Any, file: Path) -> Mapping[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    tensors = isinstance(data, Mapping) and data and all(isinstance(tensor, Tensor) for tensor in data.values())
    if not tensors:
        raise ModelError(
            "the file holds no mapping of tensors",
            where=str(file),
            allowed="NAME: tensor, or it under `state_dict` or `model`",
        )
    return data


def _plain_name(name: str) -> str:
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name
