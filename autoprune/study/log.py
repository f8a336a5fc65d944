"""JSON lines that are appended, forced to the disk, and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from autoprune.errors import InputError

T = TypeVar("T")


def append_line(path: Path, line: str) -> None:
    """Append one line and force it to the disk before returning; only the driver of a search calls this.

    Raises:
        OSError: it cannot be written, and nothing of it is in the log.
    """
    with path.open("ab", buffering=0) as file:
        before, left = file.tell(), memoryview(line.encode() + b"\n")
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The complete lines of a log with their numbers from 1; a last line torn by a crash is left out."""
    if not path.exists():
        return
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        yield number, line.decode()


class LogFollower(Generic[T]):
    """Reads a log from where the last look ended.

    Args:
        path: of the log; there may be none yet.
        parse: one line, and the place where it stands, to an entry.
    """

    def __init__(self, path: Path, parse: Callable[[str, str], T]) -> None:
        self._path, self._parse = path, parse
        self._bytes = self._lines = 0

    def skip(self, lines: int) -> None:
        """Pass over so many lines from the start of the log, which somebody has read already."""
        if lines:
            passed = self._path.read_bytes().split(b"\n", lines)[:lines]
            self._lines, self._bytes = lines, sum(len(line) + 1 for line in passed)

    def new_entries(self) -> list[T]:
        """The entries since the last look that went well; a line that is being written waits for the next one.

        Raises:
            OSError, InputError: the log cannot be read, or holds something else; the next look tries again.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._bytes)
                whole, newline, _torn = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        lines = whole.decode().split("\n") if newline else []
        found = [self._parse(line, f"{self._path}:{number}") for number, line in enumerate(lines, self._lines + 1)]
        self._bytes, self._lines = self._bytes + len(whole) + len(newline), self._lines + len(lines)
        return found


def repair_tail(path: Path) -> None:
    """Cut a torn last line off a log, so that the next `append_line` starts on a line of its own."""
    if path.exists():
        whole = path.read_bytes()
        keep = whole.rfind(b"\n") + 1
        if keep != len(whole):
            with path.open("r+b") as file:
                file.truncate(keep)


def parse_line(line: str, where: str) -> dict[str, Any]:
    """One JSON object; raises `InputError` when the line holds something else."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise InputError(f"expected an object, found {line[:40]!r}", where=where)
    return data
