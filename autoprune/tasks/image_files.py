"""Image files that cannot be read, found before anything is trained: every file is decoded once, and that is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from autoprune.errors import DataError, first_line
from autoprune.files import written_whole
from autoprune.tasks.user_code import data_folder

T = TypeVar("T")

#: JPEGs are decoded to a part of their size: as much of the file is read, in a third of the time.
_SMALL = (64, 64)


def readable(files: Sequence[T], paths_of: Callable[[T], Sequence[str]], *, on_error: str, where: str) -> list[T]:
    """The images of a part that can be read, in their order.

    Args:
        files: the images, each with what belongs to it.
        paths_of: gives the files of one.
        on_error: `raise`, or `skip` for leaving out what cannot be read.
        where: the folder, for errors.

    Raises:
        DataError: a file cannot be read, and `on_error` is `raise`; or none can.
    """
    broken = unreadable([path for file in files for path in paths_of(file)])
    if broken and on_error == "raise":
        path, reason = next(iter(broken.items()))
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        allowed = "images that can be read, or `on_error: skip`"
        raise DataError(f"cannot be read: {reason}{more}", where=path, allowed=allowed)
    left = [file for file in files if not any(path in broken for path in paths_of(file))]
    if not left:
        raise DataError(f"none of {len(files)} images can be read", where=where, allowed="one or more")
    return left


def unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Path -> why it cannot be read.

    What was found is kept under $AUTOPRUNE_DATA/checked until a file has another size or time: workers of a search and
    later searches do not decode them again.
    """
    kept = data_folder() / "checked" / f"{_listing_key(paths)}.json"
    with contextlib.suppress(OSError, ValueError):
        found: Mapping[str, str] = json.loads(kept.read_text(encoding="utf-8"))
        return dict(found)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow decodes beside Python
        broken = {path: reason for path, reason in zip(paths, pool.map(_fault_of, paths), strict=True) if reason}
    with contextlib.suppress(OSError):  # where nothing can be kept, every process decodes them again
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(kept) as beside:
            beside.write_text(json.dumps(broken), encoding="utf-8")
    return broken


def _listing_key(paths: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(OSError):
            known = Path(path).stat()
            digest.update(f"{path}\0{known.st_size}\0{known.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _fault_of(path: str) -> str | None:
    """Why an image cannot be decoded, None if it can."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # of odd metadata, which do not matter
            image.draft("RGB", _SMALL)
            image.load()
    except Exception as error:  # noqa: BLE001 - image libraries may raise anything on a torn file
        return _reason(path, error)
    return None


def _reason(path: str, error: Exception) -> str:
    """What is wrong with a file in words; Pillow says a long path again."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is empty" if Path(path).stat().st_size == 0 else "it is no image"
    return first_line(error)
