"""The findings of a study in words and numbers: the headline of a report, its key facts, one row per method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from autoprune.analysis.report import facts, trust
from autoprune.analysis.report.contest import best_of
from autoprune.analysis.report.headline import BUDGET, headline_model, headline_sentence, verdict
from autoprune.analysis.report.looks import ALWAYS
from autoprune.analysis.report.metric_words import difference_text, over_seeds, reference_text, value_text
from autoprune.analysis.report.retrained import with_finalists
from autoprune.analysis.report.time_fact import time_fact
from autoprune.analysis.report.words import cost_text, duration, percent, plural
from autoprune.study import finalists, pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome, RunInterval

#: How far below the dense model still counts as near, by height: of accuracy one percentage point.
NEAR_DENSE = 0.01


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The findings in words.

    Fields:
        headline: one sentence.
        verdict: whether the method earned it; empty without a front.
        facts: further sentences, most important first.
    """

    headline: str
    verdict: str
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """How one method did, by the metric; None where no trial of the method completed (under the budget).

    Where recipes go on from others, the metric is the parent's as much as the method's. `over_expected` compares like
    with like: the median of how far trials lay, by height, above what was expected of any recipe from there to that
    target.
    """

    name: str
    counts: Mapping[str, int]
    on_front: int
    best: float | None
    best_in_budget: float | None
    median: float | None
    over_expected: float | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """How one worker spent the seconds between the start of its first trial and the end of its last.

    A trial that paused counts once for every segment that the worker ran.
    """

    worker: str
    trials: int
    inside: float
    span: float

    @property
    def outside(self) -> float:
        """The share of the span that no trial filled, in [0, 1]."""
        return 1 - self.inside / self.span if self.span else 0.0


def summarise(study: Study, shown: Study | None = None) -> Summary:
    """The headline and the facts of a study in any state, an empty one included.

    Args:
        study: as the search left it.
        shown: with its finalists in the place of members, if that is known already.
    """
    shown = shown or with_finalists(study)
    model = headline_model(shown)
    models = (_finalists_fact(study), _near_dense_fact(shown), _knee_fact(shown), time_fact(shown))
    found = (*models, _counts_fact(study), _halving_fact(study), _hypervolume_fact(study))
    headline, earned = headline_sentence(study, model), verdict(study, model)
    return Summary(headline=headline, verdict=earned, facts=tuple(fact for fact in found if fact))


def title(study: Study) -> str:
    """Model and data as the user named them: `resnet20 on cifar10`."""
    task = study.config.get("task")
    entries = task if isinstance(task, Mapping) else {}
    return f"{_given_name(entries.get('model'), 'model')} on {_given_name(entries.get('data'), 'data')}"


def method_rows(study: Study) -> list[MethodRow]:
    """One row per method that was tried, best under the budget first; the controls come last and are always there."""
    own: dict[str, list[Outcome]] = {name: [] for name in reversed(ALWAYS)}
    for outcome in study.outcomes:
        own.setdefault(outcome.recipe.method.name, []).append(outcome)
    rows = {name: _method_row(name, study, outcomes) for name, outcomes in own.items()}
    tried = [rows[name] for name in sorted(set(rows) - set(ALWAYS))]
    tried.sort(key=lambda row: [_height(value, study) for value in (row.best_in_budget, row.best)], reverse=True)
    return tried + [rows[name] for name in reversed(ALWAYS)]


def shares(study: Study) -> list[Share]:
    """One entry per worker, by name."""
    intervals = [interval for outcome in study.outcomes for interval in outcome.run_intervals]
    names = sorted({interval.worker for interval in intervals})
    return [_worker_share(name, [interval for interval in intervals if interval.worker == name]) for name in names]


def hypervolume(study: Study) -> float:
    """Of the front, in the study's objectives."""
    return pareto.hypervolume(pareto.points(study.front, study.tradeoff), pareto.reference(study.tradeoff))


def _describe_briefly(outcome: Outcome, study: Study) -> str:
    value = outcome.metric or 0.0
    against = difference_text(value - facts.dense_model(study).metric, study.metric)
    reached = f"{value_text(value, study.metric)} ({against})"
    return f"{reached} at {_costs_text(outcome, study)}, {_trial_and_method(outcome)}"


def _costs_text(outcome: Outcome, study: Study) -> str:
    """The objectives of the study: `49.3 % FLOPs and 61.0 % latency (3.2 ms)`."""
    return " and ".join(cost_text(name, outcome) for name in study.tradeoff.costs)


def _trial_and_method(outcome: Outcome) -> str:
    return f"trial {outcome.id}, method {outcome.recipe.method.name}"


def _counts_fact(study: Study) -> str:
    if not study.outcomes:
        return _unfinished_fact(study)
    counts = Counter(outcome.status for outcome in study.outcomes)
    ended = f"{plural(counts['completed'], 'trial')} completed, {counts['stopped']:,} stopped early"
    elapsed = duration(max(outcome.finished for outcome in study.outcomes))
    controls = sum(outcome.control for outcome in study.outcomes)
    among = f" ({plural(controls, 'control')} among them)" if controls else ""
    broken = sum(outcome.infeasible for outcome in study.outcomes)
    ended += f" ({broken:,} of them by a constraint)" if broken else ""
    missing = sum(study.tradeoff.misses(outcome) for outcome in study.outcomes)
    ended += f" ({missing:,} without {_limit_text(study)})" if missing else ""
    return " ".join(f"{ended}, {counts['failed']:,} failed in {elapsed}{among}. {_unfinished_fact(study)}".split())


def _limit_text(study: Study) -> str:
    """What a model must have to be on the front, in a study that has such a limit."""
    limit = study.tradeoff.limit
    return "" if limit is None else study.metric.wish(limit)


def _unfinished_fact(study: Study) -> str:
    count = len(study.unfinished())
    return f"{plural(count, 'trial')} had begun and not ended when this page was written." if count else ""


def _knee_fact(study: Study) -> str:
    members = study.front
    if len(members) < 3:
        return ""
    knee = pareto.knee(members, study.tradeoff)
    # A front without a bend has its knee at an end, and that is no news.
    if len(study.tradeoff.costs) == 1 and knee in (members[0], members[-1]):
        return ""
    return f"Knee of the front, where a further cut begins to cost most: {_describe_briefly(knee, study)}."


def _near_dense_fact(study: Study) -> str:
    members = study.front
    if not members:
        return ""
    metric = study.metric
    least = max(metric.height(facts.dense_model(study).metric) - NEAR_DENSE, 1e-9)  # no worst end has the height 0
    near = [member for member in members if _height(member.metric, study) >= least]
    wanted = f"within 1 point of the dense {metric.name}"
    if metric.unit != "%":
        wanted = f"near the dense model, that is with {metric.wish(metric.at_height(least))}"
    if not near:
        return f"No pruned model came {wanted}." if metric.unit == "%" else f"No pruned model is {wanted}."
    return f"Cheapest model {wanted}: {_describe_briefly(near[0], study)}."


def _finalists_fact(study: Study) -> str:
    """The finalist under the budget that is best on the validation split, with its metric on the test split."""
    found = finalists.by_member(study.finalists, study.metric)
    members = [one for one in found if not one.dense]
    affordable = [one for one in members if one.flops_ratio <= BUDGET] or members
    if not affordable:
        return ""
    best, metric = max(affordable, key=lambda one: _height(one.validation.mean, study)), study.metric
    dense = next((f" (dense {over_seeds(one.test, metric)})" for one in found if one.dense), "")
    reached = f"{over_seeds(best.test, metric)}{dense}"
    trained = f"Trained again with {plural(len(best.runs), 'seed')}, on the test split: {reached}"
    return f"{trained} at {percent(best.flops_ratio)} FLOPs, trial {best.member}, method {best.method}."


def _halving_fact(study: Study) -> str:
    """The savings of ending recipes early, and how far their rungs can be trusted."""
    saved = trust.saved(study)
    if saved is None:
        return ""
    gpus = float(study.config.get("resources", {}).get("gpus_per_trial") or 0)
    hours = f"{saved.hours * gpus:.2g} GPU-hours" if gpus else f"{saved.hours:.2g} hours of a worker"
    text = f"Ending {plural(saved.recipes, 'recipe')} early saved {percent(saved.share, 0)} of the training, {hours}."
    ranks = [
        f"{percent(one.share, 0)} to {percent(one.after, 0)}: {one.correlation:+.2f} of {one.recipes}"
        for one in trust.trust(study)
    ]
    trusted = f"rank correlation of {study.metric.name} at equal FLOPs from one rung to the next (trust)"
    return f"{text} {trusted[0].upper()}{trusted[1:]}: {'; '.join(ranks)}." if ranks else text


def _hypervolume_fact(study: Study) -> str:
    value, costs = hypervolume(study), [facts.COST_NAMES[name] for name in study.tradeoff.costs]
    against = f"{' and '.join(costs)} ratio{'s' * (len(costs) > 1)} 1"
    return f"Hypervolume {value:.4f} against {reference_text(study.metric)} and {against}." if value else ""


def _method_row(name: str, study: Study, own: Sequence[Outcome]) -> MethodRow:
    members = {outcome.id for outcome in study.front}
    done = [outcome for outcome in own if outcome.completed and outcome.metric is not None]
    found = [outcome.metric for outcome in done if outcome.metric is not None]
    best = best_of(done, study)
    cheap = best_of((outcome for outcome in done if (facts.cost_ratio(study, outcome) or 1.0) <= BUDGET), study)
    return MethodRow(
        name=name,
        counts=Counter(outcome.status for outcome in own),
        on_front=sum(outcome.id in members for outcome in own),
        best=None if best is None else best.metric,
        best_in_budget=None if cheap is None else cheap.metric,
        median=median(found) if found else None,
        over_expected=_median_over_expected(study, done),
    )


def _median_over_expected(study: Study, done: Sequence[Outcome]) -> float | None:
    expected = {proposal.id: proposal.expected for proposal in study.proposals if proposal.distributions}
    known = [(_height(outcome.metric, study), expected.get(outcome.id)) for outcome in done]
    found = [height - before for height, before in known if before is not None]
    return median(found) if found else None


def _height(value: float | None, study: Study) -> float:
    """How good a metric is; below everything where there is none."""
    return -1.0 if value is None else study.metric.height(value)


def _worker_share(worker: str, intervals: Sequence[RunInterval]) -> Share:
    begin, end = min(interval.started for interval in intervals), max(interval.finished for interval in intervals)
    inside, reached = 0.0, begin
    # A worker may run trials side by side: seconds that several trials share are counted once.
    for interval in sorted(intervals, key=lambda one: one.started):
        inside += max(0.0, interval.finished - max(interval.started, reached))
        reached = max(reached, interval.finished)
    return Share(worker=worker, trials=len(intervals), inside=inside, span=end - begin)


def _given_name(entry: object, kind: str) -> str:
    """A model or data set as a space holds it: a name, the function that makes it, or a text that is either."""
    if isinstance(entry, Mapping):
        return str(entry.get("name") or entry.get("factory") or f"own {kind}")
    return str(entry or f"own {kind}")
