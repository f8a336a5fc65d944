"""Templates, and files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from autoprune.errors import InputError


def templates() -> Environment:
    """The templates of this package; what is put into them is escaped, and a missing name is an error."""
    return Environment(
        loader=PackageLoader("autoprune.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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
