"""Which method won, band of cost by band of cost, and whether by more than noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from autoprune.analysis.report import facts
from autoprune.analysis.report.noise import Noise, noise_of
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import RANDOM, Outcome

#: Edges of the cost ratios that methods are compared in; a band holds its upper edge, not its lower one.
BINS = tuple(round(0.1 * i, 1) for i in range(11))

#: A random model must cost at least so much of what the best one may, to be compared with it.
_NEAR = 0.8


@dataclass(frozen=True, kw_only=True)
class Lead:
    """How far the best model lies above another one.

    Fields:
        other: the model that it is compared with, the best one of another method.
        ahead: by how much, in the metric's own unit; above 0 is better, whatever the metric's direction.
        noise: what two trainings differ by through chance; None = not known.
    """

    other: Outcome
    ahead: float
    noise: float | None

    @property
    def certain(self) -> bool:
        """Whether it is more than noise."""
        return self.noise is not None and self.ahead > self.noise


@dataclass(frozen=True, kw_only=True)
class Band:
    """The contest among models of like cost.

    Fields:
        low, high: what they cost, relative to the dense model.
        best: the best of them by any method but `random`.
        counts: completed trials of each method in the band.
        over_random: how far it lies above the best random one of the band; None if there is none.
        over_next: the same for the best one of the next best method.
        equals: other methods whose best cannot be told from it.
    """

    low: float
    high: float
    best: Outcome
    counts: dict[str, int]
    over_random: Lead | None
    over_next: Lead | None
    equals: tuple[str, ...]


def bands(study: Study) -> list[Band]:
    """The bands in which anything but `random` was completed, cheapest first."""
    noise, pool = noise_of(study), pareto.candidates(study.outcomes, study.tradeoff)
    found = (_band(study, pool, low, high, noise) for low, high in pairwise(BINS))
    return [band for band in found if band is not None]


def best_of(outcomes: Iterable[Outcome], study: Study) -> Outcome | None:
    """The outcome with the best metric, the first of equal ones; None of none."""
    heights = ((study.tradeoff.height(one), one) for one in outcomes)
    return max(heights, key=lambda pair: -1.0 if pair[0] is None else pair[0], default=(0.0, None))[1]


def lead(study: Study, best: Outcome, other: Outcome | None, noise: Noise) -> Lead | None:
    """How far one lies above the other; None without another."""
    if other is None or best.metric is None or other.metric is None:
        return None
    sign = 1 if study.metric.direction == "maximize" else -1
    ahead = sign * (best.metric - other.metric)
    return Lead(other=other, ahead=ahead, noise=noise.of_difference(best.metric, other.metric))


def lead_over_random(study: Study, best: Outcome, budget: float) -> Lead | None:
    """How far a model lies above the best random one that costs no more than the budget and not much less.

    Args:
        budget: what both may cost; one that is 2 % over still meets it, as targets are met within 1 %.
    """
    near = [
        one
        for one in pareto.candidates(study.outcomes, study.tradeoff)
        if one.recipe.method.name == RANDOM and _NEAR * budget <= (facts.cost_ratio(study, one) or 0.0) <= 1.02 * budget
    ]
    return lead(study, best, best_of(near, study), noise_of(study))


def _band(study: Study, pool: Sequence[Outcome], low: float, high: float, noise: Noise) -> Band | None:
    by_method: dict[str, list[Outcome]] = {}
    for one in pool:
        if low < (facts.cost_ratio(study, one) or 0.0) <= high:
            by_method.setdefault(one.recipe.method.name, []).append(one)
    bests = {name: best_of(own, study) for name, own in by_method.items()}
    best = best_of((one for name, one in bests.items() if name != RANDOM and one is not None), study)
    if best is None:
        return None
    others = [one for name, one in bests.items() if one is not None and name not in (RANDOM, best.recipe.method.name)]
    leads = [one for one in (lead(study, best, other, noise) for other in others) if one is not None]
    return Band(
        low=low,
        high=high,
        best=best,
        counts={name: len(own) for name, own in by_method.items()},
        over_random=lead(study, best, bests.get(RANDOM), noise),
        over_next=min(leads, key=lambda one: one.ahead, default=None),
        equals=_method_names(one.other for one in leads if not one.certain),
    )


def _method_names(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    names: Sequence[str] = sorted({one.recipe.method.name for one in outcomes})
    return tuple(names)
