"""What a report opens with: the best model at half the cost in one sentence, and whether its method earned it."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.analysis.report import contest, facts
from autoprune.analysis.report.failures import failures_by_kind, first_line
from autoprune.analysis.report.metric_words import difference_text, over_seeds, value_text
from autoprune.analysis.report.noise import noise_of
from autoprune.analysis.report.words import milliseconds, percent, plural
from autoprune.study import finalists
from autoprune.study.finalists import Finalist
from autoprune.study.folder import Study
from autoprune.study.outcome import RANDOM, Outcome

#: The share of the dense model's cost, of its FLOPs if nothing else was asked for, that the headline is about.
BUDGET = 0.5


def headline_model(shown: Study) -> Outcome | None:
    """The model that the headline is about: the best under the budget, else the cheapest; None without a front.

    Where members under the budget were trained again it is the best of these.

    Args:
        shown: the study with its finalists in the place of members.
    """
    again = {one.member for one in finalists.by_member(shown.finalists, shown.metric)}
    affordable = [one for one in shown.front if (facts.cost_ratio(shown, one) or 0.0) <= BUDGET]
    trained_again = [one for one in affordable if one.id in again]
    return contest.best_of(trained_again or affordable or shown.front[:1], shown)


def headline_sentence(study: Study, model: Outcome | None) -> str:
    """One sentence that needs no expert, in any state of a study.

    Args:
        study: see above.
        model: its `headline_model`.
    """
    if model is None:
        return _without_front(study)
    cost = facts.COST_NAMES[facts.main_cost(study)]
    if (facts.cost_ratio(study, model) or 0.0) <= BUDGET:
        return f"A model with {_costs_of(model, study)} reaches {_reached(model, study)}."
    none = f"No model came down to half the {cost}"
    return f"{none}: the cheapest, with {_costs_of(model, study)}, reaches {_reached(model, study)}."


def verdict(study: Study, model: Outcome | None) -> str:
    """Whether the method of that model beat removing channels at random, by more than noise; empty without a model."""
    searched = next((one for one in study.outcomes if model is not None and one.id == model.id), None)
    if searched is None:
        return ""
    found = f"Trial {searched.id} found it, by the method {searched.recipe.method.name}."
    if searched.recipe.method.name == RANDOM:
        return f"Trial {searched.id} found it by removing channels at random: no method did better."
    budget = max(BUDGET, facts.cost_ratio(study, searched) or 0.0)
    return f"{found} {_against_random(study, contest.lead_over_random(study, searched, budget))}"


def _against_random(study: Study, lead: contest.Lead | None) -> str:
    if lead is None:
        return "Nothing was pruned at random at a like cost, so what the method adds is not known."
    apart = _distance(lead.ahead, study)
    if lead.noise is None:
        side = "better" if lead.ahead >= 0 else "worse"
        return f"It is {apart} {side} than removing channels at random; how much of that is noise is not known."
    noise = f"trainings differ by up to {_distance(lead.noise, study)} through chance"
    if lead.certain:
        return f"It is {apart} better than removing channels at random, which is more than noise: {noise}."
    if lead.ahead < 0:
        return f"No method beat removing channels at random, which is {apart} better; {noise}."
    return f"No method beat removing channels at random by more than noise: it is {apart} better, and {noise}."


def _distance(difference: float, study: Study) -> str:
    return difference_text(abs(difference), study.metric).lstrip("+±")


def _costs_of(model: Outcome, study: Study) -> str:
    """`49.3 % of the dense model's arithmetic (FLOPs) and 61.0 % of its time (3.2 ms)`."""
    owners = ["the dense model's", *["its"] * len(study.tradeoff.costs)]
    shares = [
        f"{percent(model.costs[name] or 0.0)} of {owner} {facts.PLAIN_COSTS[name]}{_time(name, model)}"
        for name, owner in zip(study.tradeoff.costs, owners, strict=False)
    ]
    return " and ".join(shares)


def _time(name: str, model: Outcome) -> str:
    timed = name == "latency" and model.latency_ms is not None
    return f" ({milliseconds(model.latency_ms or 0.0)})" if timed else ""


def _reached(model: Outcome, study: Study) -> str:
    """Its metric with what limits its precision, and how far that is from the dense model's."""
    found = finalists.by_member(study.finalists, study.metric)
    again = next((one for one in found if one.member == model.id), None)
    if again is not None:
        return _reached_again(again, found, study)
    metric, dense, value = study.metric, facts.dense_model(study).metric, model.metric or 0.0
    said = f"{value_text(value, metric)} {metric.name}{_interval_text(value, study)}"
    return f"{said}, {_below(value - dense, study)} the dense model's {value_text(dense, metric)}"


def _reached_again(again: Finalist, found: Sequence[Finalist], study: Study) -> str:
    metric = study.metric
    said = f"{over_seeds(again.test, metric)} {metric.name} on the test split ({plural(len(again.runs), 'training')})"
    dense = next((one.test for one in found if one.dense), None)
    if dense is None:
        return said
    return f"{said}, {_below(again.test.mean - dense.mean, study)} the dense model's {over_seeds(dense, metric)}"


def _interval_text(value: float, study: Study) -> str:
    noise = noise_of(study)
    ends = noise.interval(value)
    if ends is None or noise.images is None:
        return ""
    low, high = (value_text(end, study.metric) for end in ends)
    low = low.removesuffix("\N{NO-BREAK SPACE}%")
    return f" ({low} to {high}, as far as {noise.images:,} images can tell)"


def _below(difference: float, study: Study) -> str:
    if difference == 0:
        return "as good as"
    return f"{_distance(difference, study)} {'above' if difference > 0 else 'below'}"


def _without_front(study: Study) -> str:
    if not study.outcomes:
        return "No trial has ended yet."
    if all(outcome.status == "failed" for outcome in study.outcomes):
        most, *others = failures_by_kind(study).values()
        which = "most often with" if others else "all of them with"
        return f"All {plural(len(study.outcomes), 'trial')} failed, {which}: {first_line(most[0].error or '')}"
    if any(study.tradeoff.misses(outcome) for outcome in study.outcomes):
        limit = study.tradeoff.limit
        return f"No pruned model has {study.metric.wish(limit or 0.0)}, so there is no front."
    return "No pruned model was trained to its end, so there is no front."
