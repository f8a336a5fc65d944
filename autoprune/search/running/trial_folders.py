"""Trial folders: one folder per trial, named by its number, for models and for what paused trials go on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.files import read_files, write_files


@dataclass(frozen=True)
class TrialFolders:
    """Folders by number of their trial, each written whole or not at all; `path` need not be there yet."""

    path: Path

    def write(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write the folder of a trial; replaces what was there."""
        write_files(self.path, number, files)

    def read(self, number: int) -> dict[str, bytes]:
        """The files of a trial by name."""
        return read_files(self.path / str(number))

    def __contains__(self, number: int) -> bool:
        return (self.path / str(number)).is_dir()

    def numbers(self) -> set[int]:
        """The trials that have a folder."""
        return {int(folder.name) for folder in self.path.glob("[0-9]*")}

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove the folders of these trials, which are there."""
        for number in numbers:
            shutil.rmtree(self.path / str(number))

    def discard(self, number: int) -> None:
        """Remove the folder of a trial, if it is there and can be removed."""
        shutil.rmtree(self.path / str(number), ignore_errors=True)

    def remove_torn(self) -> None:
        """Remove what a killed process had not written whole."""
        for torn in self.path.glob(".*"):
            shutil.rmtree(torn)
