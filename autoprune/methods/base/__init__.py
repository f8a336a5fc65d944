"""What methods build on: what a method is, and the units, layer pairs, stages and searches that they share."""

from autoprune.methods.base.method import (
    Context,
    Method,
    Note,
    Scores,
    Selection,
    Stage,
    per_group,
    rows,
    sum_over_slots,
)

__all__ = ["Context", "Method", "Note", "Scores", "Selection", "Stage", "per_group", "rows", "sum_over_slots"]
