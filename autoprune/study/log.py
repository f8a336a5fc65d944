"""JSON lines that are appended, forced to the disk, and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from autoprune.errors import InputError, brief_repr, first_line

T = TypeVar("T")


class _Numbered(Protocol):
    """Has the number of a trial."""

    @property
    def id(self) -> int: ...


E = TypeVar("E", bound=_Numbered)


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
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise InputError(what, where=str(path), allowed="a file that you may read") from None
    for number, line in enumerate(lines, 1):
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            what = f"not UTF-8: {error.reason} at byte {error.start}"
            raise InputError(what, where=f"{path}:{number}", allowed="one JSON object a line") from None


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
    """One JSON object; raises `InputError` when the line holds something else, or NaN and infinity."""
    try:
        data = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InputError(f"not JSON: {first_line(error)}", where=where, allowed="one JSON object a line") from None
    except RecursionError:
        raise InputError("nested too deeply", where=where, allowed="one JSON object a line") from None
    if not isinstance(data, dict):
        found = brief_repr(line, 40)
        raise InputError(f"expected an object, found {found}", where=where, allowed="one JSON object a line")
    return data


def unique_by_number(entries: Iterable[tuple[int, E]], log: Path) -> tuple[E, ...]:
    """The entries of a log that has one for each trial; raises `InputError` if one has two.

    Args:
        entries: with the numbers of their lines.
    """
    lines: dict[int, int] = {}
    found = []
    for number, entry in entries:
        if (first := lines.setdefault(entry.id, number)) != number:
            what = f"trial {entry.id} stands in line {first} already"
            raise InputError(what, where=f"{log}:{number}", allowed="one line for each trial")
        found.append(entry)
    return tuple(found)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
