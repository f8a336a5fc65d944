"""One process at a time works in a study folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.errors import InputError
from autoprune.study.folder import StudyFolder


@contextmanager
def lock(folder: StudyFolder) -> Iterator[None]:
    """Hold the study folder: two drivers would hand out the same numbers. The lock ends with its process.

    Raises:
        InputError: another process holds it.
    """
    handle = os.open(folder.path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("a search is running in this folder", where=str(folder.path)) from None
        yield
    finally:
        os.close(handle)
