"""What no pruned model of a study may exceed, and how its latency is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.schema import within


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How the latency of a pruned model is measured, where it is an objective or a constraint; see `latency.measure`.

    Fields:
        batch: images of a forward pass.
    """

    batch: int = field(default=1, metadata=within(1, 4096))


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What no pruned model of a study may exceed: a recipe that does ends right after its cut.

    Fields:
        flops, params, activations, latency: relative to the dense model.
        latency_ms: milliseconds of a forward pass, on the device that trains.
    """

    flops: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    params: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    activations: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency_ms: float | None = field(default=None, metadata=within(0, 10**6, open_low=True))

    def limits(self) -> dict[str, float]:
        """The limits that were set, by the name of the cost."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def excess(self, costs: Mapping[str, float | None]) -> dict[str, float]:
        """By what share of its limit each known cost exceeds it; 0 and below is allowed."""
        known = {name: value for name, value in costs.items() if value is not None}
        return {name: known[name] / limit - 1 for name, limit in self.limits().items() if name in known}

    def broken(self, costs: Mapping[str, float | None]) -> str:
        """The limit that is exceeded most, in words (`latency_ms 7.31 > 5`); empty if all are kept."""
        over = {name: share for name, share in self.excess(costs).items() if share > 0}
        if not over:
            return ""
        worst = max(over, key=lambda name: over[name])
        return f"{worst} {costs[worst]:.4g} > {self.limits()[worst]:g}"
