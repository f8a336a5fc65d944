"""What the number that a model is judged by means: its name, its direction, its range, its unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.errors import InputError
from autoprune.schema import choices, read, to_plain

#: What a metric cannot be called: logs, tables and `study.yaml` have these words beside its name.
RESERVED = frozenset(
    (
        *("activations", "activations_ratio", "ancestor_images", "ancestors", "control", "dense", "duration", "ended"),
        *("error", "eta", "event", "expected", "finished", "flops", "flops_ratio", "id", "images", "latency"),
        *(
            "latency_high",
            "latency_low",
            "latency_ms",
            "latency_ratio",
            "legs",
            "member",
            "method",
            "ms",
            "notes",
            "on_front",
            "params",
        ),
        *("params_ratio", "recipe", "rungs", "running", "seconds", "seed", "share", "started", "status", "stage"),
        *("gpus", "node", "test_metric", "trial", "widths", "worker"),
    )
)


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric as a study has to know it, without the code that computes it.

    Fields:
        name: as logs, tables and axes call it: letters, digits and `_.@-`.
        direction: whether larger values are better (`maximize`) or smaller ones (`minimize`).
        best, worst: the ends of its range; None where there is no end. At least one is known.
        unit: shown behind a value; `%` shows values times 100.
        scale: of a metric with one end only, the distance from that end at which a model is worth a half; None = that
            of the dense model, which a search measures before its first trial.
    """

    name: str = "accuracy"
    direction: str = field(default="maximize", metadata=choices("maximize", "minimize"))
    best: float | None = 1.0
    worst: float | None = 0.0
    unit: str = ""
    scale: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][\w.@-]*", self.name, re.ASCII) or self.name in RESERVED:
            allowed = f"a letter, then letters, digits and _.@-; none of {', '.join(sorted(RESERVED))}"
            raise InputError(f"a metric cannot be called {self.name!r}", allowed=allowed)
        if self.best is None and self.worst is None:
            raise InputError(f"metric {self.name!r} has a range without ends", allowed="a value for best or worst")
        if self.best is not None and self.worst is not None and not self.better(self.best, self.worst):
            allowed = "best above worst to maximize, below it to minimize"
            raise InputError(f"metric {self.name!r} goes from {self.worst:g} to {self.best:g}", allowed=allowed)
        if self.scale is not None and not self.scale > 0:
            raise InputError(f"metric {self.name!r} has scale {self.scale:g}", allowed="a number above 0")

    @property
    def _low_and_high(self) -> tuple[float | None, float | None]:
        return (self.worst, self.best) if self.direction == "maximize" else (self.best, self.worst)

    @property
    def bounded(self) -> bool:
        """Whether both ends of the range are known, so that `height` needs no scale."""
        return self.best is not None and self.worst is not None

    def better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one, and not equal."""
        return value > other if self.direction == "maximize" else value < other

    def contains(self, value: float) -> bool:
        """Whether a value is finite and in the range, but for rounding."""
        ends = [end for end in (self.best, self.worst) if end is not None]
        slack = 1e-6 * max(1.0, *map(abs, ends), abs(value))
        low, high = self._low_and_high
        above, below = low is None or value >= low - slack, high is None or value <= high + slack
        return math.isfinite(value) and above and below

    def range_text(self) -> str:
        """Its range in words: `from 0 to 1`, `0 or more`."""
        low, high = self._low_and_high
        if low is not None and high is not None:
            return f"from {low:g} to {high:g}"
        return f"{low:g} or more" if low is not None else f"{high:g} or less"

    def reaches(self, value: float, limit: float) -> bool:
        """Whether a value is at least as good as a limit."""
        return not self.better(limit, value)

    def distance(self, value: float) -> float:
        """How far a value is from the end that is known: from the worst if there is one, else from the best.

        What lies beyond the end, as a wish may, is at it.
        """
        end = self.worst if self.worst is not None else self.best
        assert end is not None, "the constructor refuses a range without ends"
        above = end == self._low_and_high[0]
        return max(value - end if above else end - value, 0.0)

    def height(self, value: float) -> float:
        """How good a value is, from 0 to 1, whatever the metric: what fronts, hypervolumes and samplers compare.

        Between two ends it is the share of the way from worst to best. With one end a model at `scale` from it has 1/2:
        d / (d + scale) for a distance d from the worst, scale / (d + scale) for one from the best.

        Raises:
            InputError: one end is not known, and no scale is.
        """
        if self.best is not None and self.worst is not None:
            return (value - self.worst) / (self.best - self.worst)
        if self.scale is None:
            raise InputError(f"metric {self.name!r} has one end and no scale", allowed="scale, or both best and worst")
        distance = self.distance(value)
        return (distance if self.best is None else self.scale) / (distance + self.scale)

    def at_height(self, height: float) -> float:
        """The inverse of `height`; for a metric without a best end no height reaches 1, without a worst one none 0."""
        if self.best is not None and self.worst is not None:
            return self.worst + height * (self.best - self.worst)
        if self.scale is None:
            raise InputError(f"metric {self.name!r} has one end and no scale", allowed="scale, or both best and worst")
        odds = height / (1 - height) if self.best is None else (1 - height) / height
        end = self.worst if self.best is None else self.best
        away = 1 if (self.direction == "maximize") == (self.best is None) else -1
        assert end is not None, "the constructor refuses a range without ends"
        return end + away * self.scale * odds

    def shown(self, value: float) -> str:
        """The value in words: `91.40 %`, `0.0731`, `28.41 dB`."""
        if self.unit == "%":
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip()

    def shown_difference(self, difference: float) -> str:
        """How far a value lies above another one, in words: `+2.6 points`, `-0.0731`, `+0.41 dB`."""
        if self.unit == "%":
            return f"{100 * difference:+.1f} points"
        return f"{difference:+.3g} {self.unit}".rstrip()

    def worse_by(self, value: float, points: float) -> float:
        """What still reaches a value that is worse by so many points; see `points_text`.

        Args:
            value: in its own unit.
            points: hundredths of a metric whose unit is `%`, else in its own unit.
        """
        lost = points / 100 if self.unit == "%" else points
        slack = 1e-9 * max(1.0, abs(value))  # 0.97 - 0.01 is above 0.96
        return value - lost - slack if self.direction == "maximize" else value + lost + slack

    def points_text(self, points: float) -> str:
        """So many points in words: `1 point`, `0.5 points`, `0.3 cm`."""
        if self.unit == "%":
            return f"{points:g} point{'' if points == 1 else 's'}"
        return f"{points:g} {self.unit}".rstrip()

    def wish(self, limit: float) -> str:
        """What reaches a limit: `accuracy >= 0.9`, `rmse <= 1.5`."""
        return f"{self.name} {'>=' if self.direction == 'maximize' else '<='} {limit:g}"


#: The share of images that are right: the metric of every study that names none.
ACCURACY = MetricSpec(unit="%")


def read_metric(given: Mapping[str, Any], where: str, task: MetricSpec = ACCURACY) -> MetricSpec:
    """The metric of a task, with what a space file says of it; a study that says nothing is of accuracy."""
    try:
        return read(MetricSpec, {**to_plain(task), **given}, where)
    except InputError as error:
        raise error if error.where else InputError(error.what, where=where, allowed=error.allowed) from None
