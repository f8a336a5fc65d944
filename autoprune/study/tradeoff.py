"""What a study trades off: a metric against one or two costs; and the limit below which a model is on no front."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.study.outcome import Outcome

#: The costs that may be traded off, each relative to the dense model.
COSTS = ("flops", "params", "activations", "latency")


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """What fronts, hypervolumes and picks compare outcomes by.

    Fields:
        metric: what models are judged by.
        costs: one or two of `COSTS`; the metric is drawn against the first.
        limit: what the metric of a model must reach to be on a front, in its own unit; None = nothing.
    """

    metric: MetricSpec = ACCURACY
    costs: tuple[str, ...] = ("flops",)
    limit: float | None = None

    def height(self, outcome: Outcome) -> float | None:
        """How good the model of an outcome is, in [0, 1]; None unless it was measured at the end."""
        return None if outcome.metric is None else self.metric.height(outcome.metric)

    def misses(self, outcome: Outcome) -> bool:
        """Whether a model that was measured at the end does not reach the limit."""
        if outcome.metric is None or self.limit is None:
            return False
        return not self.metric.reaches(outcome.metric, self.limit)


#: What a study trades off if it does not say.
ACCURACY_AND_FLOPS = Tradeoff()
