"""What no pruned model of a study may exceed, and how its latency is measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.errors import InputError, check_name
from autoprune.schema import brief, choices, within
from autoprune.study.metric import MetricSpec

AUTO = "auto"
#: What may run a model whose time is measured; a user's own is `module:function`.
RUNTIMES = (AUTO, "eager", "graph", "compile", "onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How the latency of a pruned model is measured, where it is an objective or a constraint; see `timing.pairs`.

    Fields:
        batch: images of a forward pass.
        runtime: what runs the model: `eager` PyTorch, layer by layer; `graph`, the whole pass captured and replayed as
            one CUDA graph; `compile`, by torch.compile; `onnxruntime` or `openvino`, on the CPU; or a function of your
            own, `module:function`. `auto`: `graph` on a GPU, else `eager`.
        dtype: of weights and images; `auto`: bfloat16 in a `graph`, else float32.
        threads: of the CPU; by default as many as a trial has.
    """

    batch: int = field(default=1, metadata=within(1, 4096))
    runtime: str = field(default=AUTO, metadata=brief())
    dtype: str = field(default=AUTO, metadata=brief(choices(AUTO, "float32", "bfloat16", "float16")))
    threads: int | None = field(default=None, metadata=brief(within(1, 4096)))

    def __post_init__(self) -> None:
        if ":" not in self.runtime:
            check_name(self.runtime, (*RUNTIMES, "module:function"), kind="value", where="latency.runtime")
        if self.runtime in ("onnxruntime", "openvino") and self.dtype not in (AUTO, "float32"):
            raise InputError(f"{self.runtime} is timed in float32", where="latency.dtype", allowed="auto, float32")


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What no pruned model of a study may exceed: a recipe that does ends right after its cut.

    Fields:
        flops, params, activations, latency: relative to the dense model.
        latency_ms: milliseconds of a forward pass, on the device that trains.
        metric: what a model's metric must reach to be on a front, a number or text (`">= 0.9"`, `"<= 1.5"`); at least
            that where larger is better, at most that where smaller is. It ends no recipe: it is known at the end only.
    """

    flops: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    params: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    activations: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency_ms: float | None = field(default=None, metadata=within(0, 10**6, open_low=True))
    metric: Any = None

    def limits(self) -> dict[str, float]:
        """The limits on costs that were set, by the name of the cost."""
        return {name: limit for name, limit in vars(self).items() if limit is not None and name != "metric"}

    def metric_limit(self, metric: MetricSpec) -> float | None:
        """What the metric must reach; None = nothing.

        Raises:
            InputError: it is no limit, or it is on the wrong side of the metric.
        """
        sign = ">=" if metric.direction == "maximize" else "<="
        if self.metric is None:
            return None
        if isinstance(self.metric, (int, float)) and not isinstance(self.metric, bool) and math.isfinite(self.metric):
            return float(self.metric)
        found = re.fullmatch(r"\s*(>=|<=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", str(self.metric))
        if found is None or found[1] != sign:
            better = "larger" if metric.direction == "maximize" else "smaller"
            allowed = f'a number or "{sign} 0.9": of {metric.name} {better} is better'
            raise InputError(f"{self.metric!r} is no limit", where="constraints.metric", allowed=allowed)
        return float(found[2])

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
