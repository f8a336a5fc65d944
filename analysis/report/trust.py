"""The savings of ending recipes early, and its reliability: whether a rung ranks recipes as the next one does."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autoprune.study.folder import Study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome, Rung

#: Recipes that must have been measured at both of two rungs before a correlation is given.
FEWEST = 5

#: Rank correlations from which a rung is trusted, and trusted a little.
_HIGH, _SOME = 0.7, 0.4


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How well a rung tells the next one.

    Fields:
        share, after: the two rungs, as shares of the training images.
        recipes: measured at both.
        correlation: Spearman's, of the heights of recipes of equal FLOPs and of parents of equal height: ranks by both
            are partialled out, since height rises with both at every rung and would make any rung look trustworthy.
        best_kept: of the best quarter at the later rung, by the same ranks, the share that is in the better half at the
            earlier one: what stopping half there would have kept.
    """

    share: float
    after: float
    recipes: int
    correlation: float
    best_kept: float

    @property
    def words(self) -> str:
        """What that means for ending recipes there."""
        if self.correlation >= _HIGH:
            return "yes: what is ahead here stays ahead"
        if self.correlation >= _SOME:
            return "partly: stop the worst, keep more than half"
        return "no: the order here says little of the later one"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Training that recipes ended early did not use: images, and hours of a worker at the study's speed."""

    recipes: int
    images: int
    hours: float
    share: float


def trust(study: Study) -> list[Trust]:
    """Every rung with the next; pairs with fewer than `FEWEST` recipes measured at both are left out."""
    searched = [outcome for outcome in study.outcomes if not outcome.control and outcome.flops_ratio is not None]
    shares = sorted({rung.share for outcome in searched for rung in outcome.rungs if rung.comparable})
    parents = {outcome.id: study.tradeoff.height(outcome) or 0.0 for outcome in study.outcomes}
    found = (_trust_between(searched, parents, one, two, study.metric) for one, two in pairwise(shares))
    return [known for known in found if known is not None]


def saved(study: Study) -> Saved | None:
    """The savings of ending early; None if no recipe was ended because others were better."""
    ended = [outcome for outcome in study.outcomes if outcome.status == "stopped" and outcome.error is None]
    speeds = [seconds for outcome in study.outcomes for seconds in _seconds_per_image(outcome)]
    if not ended or not speeds:
        return None
    images = sum(outcome.recipe.training.images - outcome.rungs[-1].images for outcome in ended)
    used = sum(outcome.rungs[-1].images for outcome in study.outcomes if outcome.rungs)
    hours = images * statistics.median(speeds) / 3600
    return Saved(recipes=len(ended), images=images, hours=hours, share=images / (images + used))


def _trust_between(
    outcomes: Sequence[Outcome], parents: Mapping[int | None, float], share: float, after: float, metric: MetricSpec
) -> Trust | None:
    rows = [
        (one, two, outcome.flops_ratio, parents.get(outcome.recipe.parent, 1.0))
        for outcome in outcomes
        if (one := _height_at(outcome, share, metric)) is not None
        and (two := _height_at(outcome, after, metric)) is not None
    ]
    if len(rows) < FEWEST:
        return None
    before, then = _residual_ranks(*np.array(rows, dtype=float).T)
    return Trust(
        share=share,
        after=after,
        recipes=len(rows),
        correlation=_correlation(before, then),
        best_kept=_best_kept(before, then),
    )


def _best_kept(before: np.ndarray, after: np.ndarray) -> float:
    """The share of the best quarter afterwards that was in the better half before."""
    best = np.argsort(-after, kind="stable")[: max(1, len(after) // 4)]
    return float(np.mean(before[best] >= np.median(before)))


def _height_at(outcome: Outcome, share: float, metric: MetricSpec) -> float | None:
    found = (metric.height(rung.metric) for rung in outcome.rungs if rung.share == share and rung.comparable)
    return next(found, None)


def _residual_ranks(x: np.ndarray, y: np.ndarray, *given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of x and of y, each less what the ranks of all of `given` lead to expect."""
    x, y, *columns = [mean_ranks(values) - (len(values) + 1) / 2 for values in (x, y, *given)]
    fixed = np.stack(columns, axis=1)
    left, right = (ranks - fixed @ np.linalg.lstsq(fixed, ranks, rcond=None)[0] for ranks in (x, y))
    return left, right


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Of values around 0; 0 where one does not vary."""
    scale = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / scale) if scale > 1e-9 else 0.0


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs. As scipy's `rankdata`, which takes a second to import."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _seconds_per_image(outcome: Outcome) -> Iterator[float]:
    """Seconds an image between neighbouring rungs."""
    before = Rung(share=0.0, images=0, metric=0.0, seconds=0.0)
    for rung in outcome.rungs:
        if rung.images > before.images:
            yield (rung.seconds - before.seconds) / (rung.images - before.images)
        before = rung
