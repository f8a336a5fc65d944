"""Seconds since the study began, the same in every process."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class StudyClock:
    """Seconds since the study began, the same in every process; time between a crash and the resume does not count."""

    origin: float

    def now(self) -> float:
        """Seconds since the study began."""
        return time.time() - self.origin
