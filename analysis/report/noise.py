"""How far a metric can be trusted: what the number of images behind it allows, and what seeds differ by."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from autoprune.study import finalists
from autoprune.study.folder import Study
from autoprune.study.metric import ACCURACY

#: Standard deviations to either side of 95 % of a normal distribution.
_SIDES = 1.96


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What chance does to the metric of one training.

    Fields:
        images: of the validation split, if the metric is the share of them that is right; None = not known.
        seeds: standard deviation between trainings of one recipe, pooled over all finalists; None = not known.
    """

    images: int | None
    seeds: float | None

    def interval(self, value: float) -> tuple[float, float] | None:
        """Where the metric lies on other images of the kind, by 95 % (Wilson's interval); None if that is not known."""
        if self.images is None:
            return None
        share = _SIDES**2 / self.images
        middle = (value + share / 2) / (1 + share)
        # Rounding may put what is under the root below 0 at either end.
        half = math.sqrt(max(0.0, share * value * (1 - value) + share**2 / 4)) / (1 + share)
        return max(0.0, middle - half), min(1.0, middle + half)

    def of_difference(self, one: float, other: float) -> float | None:
        """What two trainings must differ by to differ by more than chance; None if nothing is known of chance.

        Images are taken as drawn anew for each. All models see the same ones, so this asks for a little too much.
        """
        if self.images is None and self.seeds is None:
            return None
        drawn = 0.0 if self.images is None else (one * (1 - one) + other * (1 - other)) / self.images
        return _SIDES * math.sqrt(max(0.0, drawn) + 2 * (self.seeds or 0.0) ** 2)


def noise_of(study: Study) -> Noise:
    """What is known of the noise in a study: `dense.images` of its `study.yaml`, and its finalists."""
    images = (study.config.get("dense") or {}).get("images")
    counted = isinstance(images, int) and images > 0 and study.metric.name == ACCURACY.name
    return Noise(images=images if counted else None, seeds=_pooled_deviation(study))


def _pooled_deviation(study: Study) -> float | None:
    members = finalists.by_member(study.finalists, study.metric)
    spreads = [one.validation.std**2 for one in members if one.validation.std is not None]
    return math.sqrt(statistics.fmean(spreads)) if spreads else None
