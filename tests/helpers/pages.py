"""The code that pages for users show, by heading and by file."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"^```(python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files_of(page: Path) -> dict[str, dict[str, str]]:
    """Heading -> name of a file -> what a block puts into it; a block's first line is a comment with the name."""
    sections = re.split(r"^#{1,2} (?!\S+\.\w+$)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = ((text.partition("\n")[0], text) for text in sections if text)
    return {heading: {name: code for _, name, code in _BLOCK.findall(text)} for heading, text in named}


def lines_of(code: str) -> int:
    """Lines that say something."""
    return sum(bool(line.strip()) for line in code.splitlines())
