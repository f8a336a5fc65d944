"""One timing at a time on a device: those who time beside each other measure each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone_on(device: str) -> Iterator[None]:
    """Within it no other process of this user on this machine is in here with the same device.

    It waits for its turn. The lock is the kernel's, on an open file: whoever dies lets go of it.
    """
    with _lock_file(device).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_file(device: str) -> Path:
    """On a machine that hides all GPUs but one from a process, `cuda:0` is not everybody's: its own name says which."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if device.startswith("cuda") else ""
    name = "-".join(part for part in (device.partition(":")[0], visible.replace(",", "-")) if part)
    return Path(tempfile.gettempdir()) / f"autoprune-{os.getuid()}-timing-{name}.lock"
