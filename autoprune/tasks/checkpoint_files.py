"""What a checkpoint file holds: tensors by name, or why it holds none, said by its first bytes."""

from __future__ import annotations

import argparse
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autoprune.errors import ModelError, first_line

ALLOWED = "safetensors, or a torch file with a state dict: torch.save(model.state_dict(), FILE)"

#: What training scripts put beside weights, and what runs no code when it is read.
_HARMLESS = [
    *(argparse.Namespace, pathlib.PosixPath, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType),
    *(np.dtypes.Int64DType, np.dtypes.BoolDType, np.float64(0).__reduce__()[0]),
]

#: How files of other kinds begin, and what to say of them.
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "the file that `git lfs pull` brings"),
    (b"\x89HDF", "an HDF5 file, of Keras for instance", ALLOWED),
    (b"<", "a web page or XML, no checkpoint: the download went wrong", ALLOWED),
    (b"\x1f\x8b", "compressed by gzip", "the file that it was made of"),
    (b"BZh", "compressed by bzip2", "the file that it was made of"),
    (b"TFL3", "a model of TensorFlow Lite", ALLOWED),
)

#: Levels of mappings in which tensors are looked for.
_DEPTH = 4

Keys = tuple[str, ...]


def read_tensors(file: Path) -> dict[Keys, Mapping[str, Tensor]]:
    """All mappings of tensors by name in a file, by the keys that lead to them; () = the file is one.

    Raises:
        ModelError: it holds none, cannot be read, or only by running code that it names.
    """
    data = _read(file)
    found = dict(_mappings(data, ()))
    if found:
        return found
    what = f"a {type(data).__name__} and no tensors by name"
    if isinstance(data, Mapping):
        what = "the state of an optimiser and no weights" if "param_groups" in data else "a mapping without tensors"
        what += f" (keys {', '.join(map(str, list(data)[:5]))})" if data else ""
    raise ModelError(f"the file holds {what}", where=str(file), allowed=ALLOWED)


def _mappings(data: Any, path: Keys) -> Iterator[tuple[Keys, Mapping[str, Tensor]]]:
    if not isinstance(data, Mapping) or not data or len(path) > _DEPTH or not all(isinstance(key, str) for key in data):
        return
    if all(isinstance(tensor, Tensor) for tensor in data.values()):
        yield path, data
        return
    for key, item in data.items():
        yield from _mappings(item, (*path, key))


def _read(file: Path) -> Any:
    with file.open("rb") as opened:
        start = opened.read(64)
    _check_beginning(start, file)
    try:
        if _is_safetensors(start, file):
            return load_file(file)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        what = f"it is cut short or damaged ({first_line(error)})"
        raise ModelError(f"not readable as safetensors: {what}", where=str(file), allowed=ALLOWED) from error
    except Exception as error:  # torch.load: zip, pickle and unsafe-global errors have no common base
        raise ModelError(_why_unreadable(file, error), where=str(file), allowed=ALLOWED) from error


def _is_safetensors(start: bytes, file: Path) -> bool:
    return file.suffix == ".safetensors" or start[8:9] == b"{"


def _check_beginning(start: bytes, file: Path) -> None:
    """Raise `ModelError` for a file of another kind."""
    if not start:
        raise ModelError("the file is empty", where=str(file), allowed=ALLOWED)
    for beginning, what, allowed in _BEGINNINGS:
        if start.startswith(beginning):
            raise ModelError(f"the file is {what}", where=str(file), allowed=allowed)
    if file.suffix == ".onnx":
        raise ModelError("the file is an ONNX model, whose weights have other names", where=str(file), allowed=ALLOWED)
    if zipfile.is_zipfile(file):
        _check_zip(file)


def _check_zip(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    what, allowed = "", ALLOWED
    if any("/code/" in name for name in names):
        what, allowed = "a TorchScript archive", "the weights in it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
    elif any(name.endswith("archive_format") for name in names):
        what = "an exported program of torch.export"
    elif any(name.endswith(".npy") for name in names):
        what = "an archive of NumPy arrays"
    elif not any(name.endswith("data.pkl") for name in names):
        what = "a zip file of something else"
    if what:
        raise ModelError(f"the file is {what}", where=str(file), allowed=allowed)


def _why_unreadable(file: Path, error: Exception) -> str:
    """What torch's error means for the user; its own advice is to run the code that a file names."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named is not None:
        network = " (a network of Ultralytics is read by `kind: ultralytics`)" if "ultralytics" in named[1] else ""
        return f"it holds a pickled {named[1]}, which would run code{network}"
    if "central directory" in str(error) or isinstance(error, (EOFError, zipfile.BadZipFile)):
        return "not a readable checkpoint: it is cut short or damaged"
    if type(error).__name__ == "UnpicklingError" or "weights_only" in str(error):
        return "not a readable checkpoint: it is no file of torch"
    return f"not a readable checkpoint: {first_line(error)}"
