"""Workers that have died: why, and whether what they ran is tried once more."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from autoprune.search.on_ray.settings import ATTEMPTS, LOST_NODES

#: What Ray says of an actor whose node has gone, at once that it cannot be reached, and once it has found out why; and
#: what a worker says of a GPU that cannot be used from the start.
_NODE_HAS_GONE = re.compile(r"^The actor \w+ is unavailable|node has died|^(?:\w+\.)*UnusableGpuError: ", re.MULTILINE)

_UNKNOWN = "it crashed, was killed for lack of memory, or its node went away"


@dataclass(frozen=True)
class Death:
    """How a worker came to its end.

    Fields:
        with_node: its whole node has gone, or the way to it, or the node's GPU, which says nothing of what it ran.
    """

    reason: str
    with_node: bool = False


def explain_death(error_file: str) -> Death:
    """The exception that ended a worker, as far as Ray knows: one that could not start says why, a crash does not."""
    text = Path(error_file).read_text(encoding="utf-8", errors="replace")
    exceptions = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return Death(exceptions[-1][:300] if exceptions else _UNKNOWN, with_node=_NODE_HAS_GONE.search(text) is not None)


class Attempts:
    """Counts the workers that trial segments have cost."""

    def __init__(self) -> None:
        self._crashed: Counter[int] = Counter()
        self._with_node: Counter[int] = Counter()

    def count(self, number: int, death: Death) -> str:
        """Take note that a worker has died that ran a segment of this trial.

        Returns:
            Why it is not tried again; empty if it is.
        """
        counter, most = (self._with_node, LOST_NODES) if death.with_node else (self._crashed, ATTEMPTS)
        counter[number] += 1
        if counter[number] < most:
            return ""
        what = "the node or the GPU of its worker went away" if death.with_node else "the worker process died"
        return f"{what} {most} times: {death.reason}"

    def end(self, number: int) -> None:
        """A segment of this trial has come to its end: the next one begins anew."""
        self._crashed.pop(number, None)
        self._with_node.pop(number, None)
