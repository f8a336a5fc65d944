"""The dense control: nothing is pruned, everything else of the trial is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Context, Method, Scores, Selection
from autoprune.recipe import Allocation, Target


@dataclass(frozen=True, kw_only=True)
class Dense(Method):
    """What the same training does to the unpruned model: the reference every accuracy is read against."""

    name: ClassVar[str] = "dense"
    source: ClassVar[str] = "control"
    summary: ClassVar[str] = "no pruning, the same training"
    is_dense: ClassVar[bool] = True

    def groups(self, context: Context) -> tuple[str, ...]:
        """None."""
        return ()

    def score(self, context: Context) -> Scores:
        """No group is offered for pruning."""
        return {}

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """Everything stays, whatever the target says."""
        return Selection(Keep.all())
