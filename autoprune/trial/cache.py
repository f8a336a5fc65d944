"""What several trials of a study need is found once: by a key that says everything it depends on."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from autoprune.files import written_whole

if TYPE_CHECKING:
    from autoprune.training.processes import Processes  # torch, which the study actor does without

#: Numbers per unit, or one number, of each group.
Numbers = dict[str, NDArray[np.float64]]

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


@dataclass(frozen=True)
class AgreedStore:
    """A store from one of several processes: the first asks for all, so that all find the same or nothing."""

    store: Store
    processes: Processes

    def get(self, key: str) -> bytes | None:
        """What the first process finds under the key."""
        return self.processes.agree(self.store.get(key) if self.processes.leads else None)

    def put(self, key: str, content: bytes) -> None:
        """Keep it for those who come later; the first process does so."""
        if self.processes.leads:
            self.store.put(key, content)


class StudyCache:
    """Numbers and files of trials, found by this process or, as the store knows, by another one.

    Args:
        store: what all processes of the study share; None = this process is alone.
        share: False = every trial finds everything itself, to measure what sharing is worth.
    """

    def __init__(self, store: Store | None = None, *, share: bool = True) -> None:
        self.share, self.store = share, store if share else None
        self._found: dict[str, Numbers] = {}

    def numbers(self, key: str, groups: Sequence[str], find: Callable[[], Numbers]) -> Numbers:
        """The numbers of that key for those of the groups that have some, in this order; at first what `find` gives."""
        if not self.share:
            return find()
        if key not in self._found:
            self._found[key] = self._load_numbers(key, groups) or self._save_numbers(key, find())
        return self._found[key]

    @contextmanager
    def file(self, key: str, file: Path | None) -> Iterator[Path | None]:
        """A file that the block fills or goes on from; of a store it has what another process put there.

        Args:
            file: where it lies; None = nowhere, unless there is a store.
        """
        if self.store is None:
            yield file
            return
        with tempfile.TemporaryDirectory(prefix="autoprune-stage-") as folder:
            place = file or Path(folder) / key
            known = self.store.get(key)
            if known is not None and not place.exists():
                place.write_bytes(known)
            yield place
            if known is None and place.exists():  # of several processes the first alone has written one
                self.store.put(key, place.read_bytes())

    def _load_numbers(self, key: str, groups: Sequence[str]) -> Numbers | None:
        known = self.store.get(key) if self.store is not None else None
        if known is None:
            return None
        with np.load(io.BytesIO(known), allow_pickle=False) as arrays:
            return {group: arrays[group] for group in groups if group in arrays}

    def _save_numbers(self, key: str, found: Numbers) -> Numbers:
        if self.store is not None:
            content = io.BytesIO()
            np.savez(content, **{group: np.asarray(values) for group, values in found.items()})
            self.store.put(key, content.getvalue())
        return found
