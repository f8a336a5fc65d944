"""Files and folders that are written whole or not at all: beside their place first, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoprune.errors import AutopruneError, InputError

#: What is wrong with a disk or a path and not with us.
_OF_THE_USER = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
        *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    )
)

#: What a full disk needs.
ROOM = "a disk with room"

#: Those of them that are the disk's.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def file_trouble(error: BaseException) -> InputError | None:
    """What a failed read or write says to the user; None for an error of another kind.

    Libraries that write files wrap the system's error in one of their own, or tell its number in words alone.
    """
    found: BaseException | None = error
    while found is not None:
        number = _error_number(found)
        if number in _OF_THE_USER:
            name = getattr(found, "filename", None)
            allowed = ROOM if number in _FULL else "a file or folder that is there and that you may use"
            return InputError(os.strerror(number), where="" if name is None else str(name), allowed=allowed)
        found = found.__cause__ or found.__context__
    return None


def _error_number(error: BaseException) -> int:
    """The system's number of an error, 0 = none; safetensors and torch tell a full disk in words alone."""
    if isinstance(error, OSError):
        return error.errno or 0
    words = str(error)
    return next((number for number in _FULL if f"os error {number})" in words or os.strerror(number) in words), 0)


@contextlib.contextmanager
def written_whole(target: Path, *, within: Path | None = None) -> Iterator[Path]:
    """A hidden path for a new file or folder, which becomes `target` if the block ends well; else nothing of it stays.

    No two writers share such a path, and no glob of finished files sees it. A killed process may leave it behind.

    Args:
        target: replaced if it is a file or an empty folder.
        within: the folder of the hidden path, on the file system of `target`; by default the folder of `target`.
    """
    beside = (within or target.parent) / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        yield beside
        beside.replace(target)
    except BaseException:
        _remove_unfinished(beside)
        raise


def _remove_unfinished(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; raises `InputError` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8: {error.reason} at byte {error.start}"
        raise InputError(what, where=str(path), allowed="text in UTF-8") from None
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise InputError(what, where=str(path), allowed="a file that you may read") from None


def write_atomically(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        InputError: the folder is missing or cannot be written to.
    """
    target = Path(path)
    with writing(target, "a file in an existing, writable folder"), written_whole(target) as beside:
        beside.write_text(text, encoding="utf-8", newline="")
    return target


@contextlib.contextmanager
def writing(target: Path, allowed: str = "a folder that you may write to") -> Iterator[None]:
    """Whatever of a disk or a path keeps the block from writing `target` is an `InputError` that names it."""
    try:
        yield
    except AutopruneError:
        raise
    except Exception as error:
        known = file_trouble(error)
        if known is None and not isinstance(error, OSError):
            raise
        reason = str(error) if known is None else known.what
        full = known is not None and known.allowed == ROOM
        raise InputError(f"cannot write: {reason}", where=str(target), allowed=ROOM if full else allowed) from error


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that gets its name `out` only when the block ends well; otherwise nothing of it stays.

    Raises:
        InputError: `out` exists and is not an empty folder, or cannot be written.
    """
    check_new_folder(out)
    existing = next(path for path in out.absolute().parents if path.exists())
    with writing(out), written_whole(out, within=existing) as beside:
        beside.mkdir()
        yield beside
        out.parent.mkdir(parents=True, exist_ok=True)


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
    target = folder / str(number)
    with written_whole(target) as beside:
        fill(beside, files)
        shutil.rmtree(target, ignore_errors=True)


def read_files(folder: Path) -> dict[str, bytes]:
    """What `write_files` wrote: path inside the folder -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if it is new; names may hold folders."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def is_url(place: object) -> bool:
    """Whether something lies elsewhere than in a folder of this machine."""
    return isinstance(place, str) and "://" in place
