"""Files and folders that are written whole or not at all: beside their place first, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoprune.errors import InputError


def write_atomically(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        InputError: the folder is missing or cannot be written to.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise _cannot_write(target, error) from None
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        part.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        part.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _cannot_write(target: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"cannot write: {reason}", where=str(target), allowed="a file in an existing, writable folder")


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that gets its name `out` only when the block ends well; otherwise nothing of it stays.

    Raises:
        InputError: `out` exists and is not an empty folder, or cannot be written.
    """
    check_new_folder(out)
    existing = next(path for path in out.absolute().parents if path.exists())
    beside = existing / f".{out.name}.{os.getpid()}.partial"
    try:
        beside.mkdir()
        yield beside
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.replace(out)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", where=str(out)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_new_folder(out: Path) -> None:
    """Raise `InputError` if `out` is taken by anything but an empty folder."""
    try:
        taken = any(out.iterdir()) if out.is_dir() else out.exists() or out.is_symlink()
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", where=str(out)) from None
    if taken:
        raise InputError("already exists", where=str(out), allowed="a new or empty folder")


def write_files(folder: Path, number: int, files: Mapping[str, bytes]) -> None:
    """Write `folder/<number>/`, whole or not at all; replaces what was there."""
    target, beside = folder / str(number), folder / f".{number}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    fill(beside, files)
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)


def read_files(folder: Path) -> dict[str, bytes]:
    """What `write_files` wrote: path inside the folder -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if it is new; names may hold folders."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
