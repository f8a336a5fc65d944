"""What docstrings of dataclasses say: their introduction, and a meaning for each field; as text for Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

_ENTRY = re.compile(r"^    ([a-z]\w*(?:, [a-z]\w*)*): (.*)$")


def introduction(cls: type) -> str:
    """The paragraphs of a class's own docstring above its fields."""
    return _parted(cls)[0].strip()


def meanings(cls: type) -> Mapping[tuple[str, ...], str]:
    """Fields that are explained together -> their meaning, those of base classes last."""
    found: dict[tuple[str, ...], str] = {}
    for kind in cls.__mro__:
        known = {name for names in found for name in names}
        found |= {names: text for names, text in _entries(_parted(kind)[1]) if not known & set(names)}
    return found


def _parted(cls: type) -> tuple[str, str]:
    """A docstring above and below its `Fields:`."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    above, _, below = text.partition("\nFields:\n")
    return above, below


def _entries(text: str) -> list[tuple[tuple[str, ...], str]]:
    """(names, meaning) of each entry, up to the first line that is not indented."""
    entries: list[tuple[tuple[str, ...], list[str]]] = []
    for line in text.splitlines():
        if line and not line.startswith("    "):
            break
        if begun := _ENTRY.match(line):
            entries.append((tuple(begun[1].split(", ")), [begun[2]]))
        elif entries and line:
            entries[-1][1].append(line.strip())
    return [(names, " ".join(lines)) for names, lines in entries]


def markdown(text: str) -> str:
    """Text that Markdown shows as it stands: outside of code and of indented lines, stars and bars mean themselves."""
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([*<>|])", r"\\\1", part) for part in parts)


def cell(text: str) -> str:
    """The same for a cell of a table, where a bar would end the cell in code as well."""
    return re.sub(r"(?<!\\)\|", r"\\|", markdown(text)).replace("\n", " ")
