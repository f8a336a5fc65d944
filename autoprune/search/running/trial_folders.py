"""Trial folders: one folder per trial, named by its number, for models and for what paused trials go on from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.files import read_files, write_files

#: The file of checksums in a sealed folder.
SEAL = "checksums.json"


@dataclass(frozen=True)
class TrialFolders:
    """Folders by number of their trial, each written whole or not at all.

    Fields:
        path: need not be there yet.
        sealed: with every folder go checksums, and one whose files are not what was written reads as empty. Files that
            are written whole may still be lost on the disk, by a power cut for one.
    """

    path: Path
    sealed: bool = False

    def write(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write the folder of a trial; replaces what was there."""
        write_files(self.path, number, {**files, SEAL: _checksums(files)} if self.sealed else files)

    def read(self, number: int) -> dict[str, bytes]:
        """The files of a trial by name."""
        files = read_files(self.path / str(number))
        seal = files.pop(SEAL, None)
        return files if seal is None or seal == _checksums(files) else {}

    def __contains__(self, number: int) -> bool:
        return (self.path / str(number)).is_dir()

    def numbers(self) -> set[int]:
        """The trials that have a folder; none where it cannot be looked into now."""
        try:
            return {int(folder.name) for folder in self.path.glob("[0-9]*")}
        except OSError:
            return set()

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove the folders of these trials; one that cannot be removed now is left."""
        for number in numbers:
            self.discard(number)

    def discard(self, number: int) -> None:
        """Remove the folder of a trial, if it is there and can be removed."""
        shutil.rmtree(self.path / str(number), ignore_errors=True)

    def remove_torn(self) -> None:
        """Remove what a killed process had not written whole."""
        for torn in self.path.glob(".*"):
            shutil.rmtree(torn)


def _checksums(files: Mapping[str, bytes]) -> bytes:
    return json.dumps({name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}).encode()
