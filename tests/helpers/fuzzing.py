"""Draws faults into a file without one, for `tests/data/malformed_inputs.yaml`; the same seed draws the same."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

#: What stands in place of a piece of a file; each is wrong almost anywhere.
WRONG = (
    *("", "null", "-1", ".nan", "NaN", "[]", "{}", "'x'", "1e999", "]"),
    *("!!python/name:os.system", "*a", "\t", "\x00"),
)

_PIECES = re.compile(r"[\w.]+|[\[\]{}:,\"-]")


def faults(text: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(what stood there, what stands there now), each for the first place where that stood.

    A piece, a word or a sign, is replaced or left out, or a line stands twice or is cut short.
    """
    draw = random.Random(seed)
    pieces = [match.span() for match in _PIECES.finditer(text)]
    lines = text.splitlines(keepends=True)
    for _ in range(count):
        kind = draw.randrange(4)
        if kind == 3:
            line = draw.choice(lines)
            yield line, line * 2 if draw.random() < 0.5 else line[: draw.randrange(len(line))] + "\n"
            continue
        low, high = draw.choice(pieces)
        start = text.rfind("\n", 0, low) + 1
        end = text.find("\n", high) if "\n" in text[high:] else len(text)
        line = text[max(start, low - 40) : min(end, high + 40)]
        place = low - max(start, low - 40)
        yield line, line[:place] + draw.choice(WRONG) + line[place + high - low :]
