"""A pruning method in a package of its own: what `pip install` adds to `autoprune methods`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from autoprune.methods import Context, Method, Scores
from autoprune.methods.base.method import sum_over_slots
from autoprune.schema import within


@dataclass(frozen=True, kw_only=True)
class Thinnest(Method):
    """Units whose filters have few large weights go first.

    Fields:
        threshold: weights above this share of their layer's largest are large.
    """

    name: ClassVar[str] = "thinnest"
    source: ClassVar[str] = "an example"
    summary: ClassVar[str] = "number of large weights"

    threshold: float = field(default=0.1, metadata=within(0, 1))

    def score(self, context: Context) -> Scores:
        """s(u) = large weights in the unit's filters."""
        return sum_over_slots(
            context.model, context.graph, ("out",), lambda rows: (rows.abs() > self.threshold * rows.abs().max()).sum(1)
        )
