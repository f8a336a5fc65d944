"""How a study stands beside its peers, in numbers and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.analysis.report import facts
from autoprune.analysis.report.headline import BUDGET
from autoprune.analysis.report.metric_words import difference_text, value_text
from autoprune.analysis.report.noise import noise_of
from autoprune.analysis.report.peers import Peer, PeerPoint, best_within, study_points
from autoprune.analysis.report.words import duration
from autoprune.study import pareto
from autoprune.study.folder import Study


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A study or a table in one row.

    Fields:
        name: of the peer; of the study itself `this study`.
        trials, elapsed, hypervolume: of a study; empty or None of a table.
        best: the best model at half the cost, if there is one.
        near: the cheapest model within a point of the dense one, by height; None if there is none, or no dense model.
    """

    name: str
    trials: int | None
    elapsed: str
    hypervolume: float | None
    best: PeerPoint | None
    near: PeerPoint | None


def standings(shown: Study, peers: tuple[Peer, ...]) -> list[Standing]:
    """One row for the study, then one per peer."""
    own = Peer(name="this study", points=study_points(shown), study=shown)
    return [_standing(peer, shown) for peer in (own, *peers)]


def verdicts(shown: Study, peers: tuple[Peer, ...]) -> list[str]:
    """For every peer a sentence: which of the two is better at half the cost, and whether by more than noise."""
    return [_verdict(shown, peer) for peer in peers]


def _standing(peer: Peer, shown: Study) -> Standing:
    study, cost = peer.study, facts.main_cost(shown)
    return Standing(
        name=peer.name,
        trials=None if study is None else len(study.outcomes),
        elapsed="" if study is None else duration(max((one.finished for one in study.outcomes), default=0.0)),
        hypervolume=None if study is None else _hypervolume(study, shown),
        best=best_within(peer.points, cost, BUDGET, shown.metric),
        near=None if study is None else _near_dense(peer, study, cost),
    )


def _hypervolume(study: Study, shown: Study) -> float:
    """Of the peer's front, in the objectives of the study it is laid beside."""
    members = pareto.front(study.outcomes, shown.tradeoff)
    return pareto.hypervolume(pareto.points(members, shown.tradeoff), pareto.reference(shown.tradeoff))


def _near_dense(peer: Peer, study: Study, cost: str) -> PeerPoint | None:
    metric = study.metric
    least = metric.height(facts.dense_model(study).metric) - 0.01
    near = [point for point in peer.points if metric.height(point.metric) >= least and cost in point.costs]
    return min(near, key=lambda point: point.costs[cost], default=None)


def _verdict(shown: Study, peer: Peer) -> str:
    metric, cost = shown.metric, facts.main_cost(shown)
    own, other = (best_within(points, cost, BUDGET, metric) for points in (study_points(shown), peer.points))
    half = f"half the {facts.COST_NAMES[cost]}"
    if own is None or other is None:
        lacking = "this study" if own is None else peer.name
        return f"Beside {peer.name}: {lacking} has no model of at most {half}."
    better = metric.better(own.metric, other.metric)
    apart = difference_text(abs(own.metric - other.metric), metric).lstrip("+±")
    noise = noise_of(shown).of_difference(own.metric, other.metric)
    both = f"{value_text(own.metric, metric)} ({own.name}) against {value_text(other.metric, metric)} ({other.name})"
    if own.metric == other.metric:
        return f"At {half} this study and {peer.name} are equal: {both}."
    known = "how much of that is noise is not known"
    if noise is not None:
        more = "more than noise" if abs(own.metric - other.metric) > noise else "within noise"
        known = f"{more} (±{difference_text(noise, metric).lstrip('+±')})"
    first = "this study is better than" if better else "this study is worse than"
    return f"At {half} {first} {peer.name} by {apart}, {known}: {both}."
