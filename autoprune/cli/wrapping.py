"""Sentences on a terminal, which by itself breaks lines inside words."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO


def wrapped(text: str, stream: TextIO) -> str:
    """The text with line breaks between words if `stream` is a terminal, which breaks lines inside them; else as it is.

    A word that is longer than a line, such as a path, stays whole.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines = (textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n"))
    return "\n".join(lines)


def say(text: str) -> None:
    """Print sentences on stdout."""
    print(wrapped(text, sys.stdout))
