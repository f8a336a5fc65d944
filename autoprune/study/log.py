"""JSON lines that are appended, forced to the disk, and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprune.errors import InputError


def append_line(path: Path, line: str) -> None:
    """Append one line and force it to the disk before returning; only the driver of a search calls this."""
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The complete lines of a log with their numbers from 1; a last line torn by a crash is left out."""
    if not path.exists():
        return
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        yield number, line.decode()


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
