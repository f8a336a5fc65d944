"""Seconds since the study began, the same in every process."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class StudyClock:
    """Seconds since the study began, whatever happens to the time of day; time between a crash and the resume does not
    count.

    Fields:
        origin: when the study began on `time.monotonic`, which all processes of one machine share, and no others.
    """

    origin: float

    @classmethod
    def at(cls, now: float) -> StudyClock:
        """A clock of this machine that shows so many seconds now."""
        return cls(time.monotonic() - now)

    def now(self) -> float:
        """Seconds since the study began."""
        return time.monotonic() - self.origin
