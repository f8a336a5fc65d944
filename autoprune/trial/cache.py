"""Store: results that several trials of a study need, by a key that says everything they depend on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from autoprune.files import written_whole

#: What a folder may hold; beyond, what was not used for longest goes.
LIMIT_BYTES = 8 * 2**30


class Store(Protocol):
    """Bytes by key. A key is a hash of all that the bytes depend on, so what is there is never replaced."""

    def get(self, key: str) -> bytes | None:
        """What was put under the key, if it is still there."""

    def put(self, key: str, content: bytes) -> None:
        """Keep it for those who come later; whoever is first wins."""


class FolderStore:
    """A file per key.

    Args:
        folder: made when something is put into it.
        limit: bytes that it may hold.
    """

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES) -> None:
        self.folder, self.limit = folder, limit

    def get(self, key: str) -> bytes | None:
        """The content; a file that was used counts as new."""
        file = self.folder / key
        try:
            content = file.read_bytes()
            os.utime(file)
        except FileNotFoundError:
            return None
        return content

    def put(self, key: str, content: bytes) -> None:
        """Write it whole or not at all; what is larger than the limit is left out."""
        if len(content) > self.limit or (self.folder / key).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.folder / key) as beside:
            beside.write_bytes(content)
            self._make_room(len(content))

    def _make_room(self, needed: int) -> None:
        known = [(file.stat().st_mtime_ns, file.stat().st_size, file) for file in self.folder.glob("[!.]*")]
        room = self.limit - needed - sum(size for _, size, _ in known)
        for _, size, file in sorted(known):
            if room >= 0:
                break
            file.unlink()
            room += size
