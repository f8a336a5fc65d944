"""What the number that a model is judged by means: its name, its direction, its range, its unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoprune.errors import InputError
from autoprune.schema import choices


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric as a study has to know it, without the code that computes it.

    Fields:
        name: as logs, tables and axes call it.
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
        if self.best is None and self.worst is None:
            raise InputError(f"metric {self.name!r} has a range without ends", allowed="a value for best or worst")
        if self.best is not None and self.worst is not None and not self.better(self.best, self.worst):
            allowed = "best above worst to maximize, below it to minimize"
            raise InputError(f"metric {self.name!r} goes from {self.worst:g} to {self.best:g}", allowed=allowed)
        if self.scale is not None and not self.scale > 0:
            raise InputError(f"metric {self.name!r} has scale {self.scale:g}", allowed="a number above 0")

    @property
    def bounded(self) -> bool:
        """Whether both ends of the range are known, so that `height` needs no scale."""
        return self.best is not None and self.worst is not None

    def better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one, and not equal."""
        return value > other if self.direction == "maximize" else value < other

    def distance(self, value: float) -> float:
        """How far a value is from the end that is known: from the worst if there is one, else from the best."""
        end = self.worst if self.worst is not None else self.best
        assert end is not None, "the constructor refuses a range without ends"
        return abs(value - end)

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

    def shown(self, value: float) -> str:
        """The value in words: `91.40 %`, `0.0731`, `28.41 dB`."""
        if self.unit == "%":
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip()


#: The share of images that are right: the metric of every study that names none.
ACCURACY = MetricSpec(unit="%")
