"""What a report asks of a study: its dense model, its channel groups, costs and metrics. Without pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from autoprune.errors import InputError
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

#: What the costs that a study may trade off are called in sentences.
COST_NAMES = {"flops": "FLOPs", "params": "parameters", "activations": "activations", "latency": "latency"}

#: The same for those who do not know the words.
PLAIN_COSTS = {**COST_NAMES, "flops": "arithmetic (FLOPs)", "latency": "time"}


@dataclass(frozen=True, kw_only=True)
class DenseModel:
    """The unpruned model, as measured when the study began: the metric in its own unit, absolute cost."""

    metric: float
    flops: float
    params: float
    activations: float


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """A channel group of the dense model; `frozen` says why it was never pruned, or is None."""

    id: str
    size: int
    stage: int
    frozen: str | None


def dense_model(study: Study) -> DenseModel:
    """The dense model as `study.yaml` describes it; raises `InputError` if it does not."""
    names = {"metric": study.metric.name, "flops": "flops", "params": "params", "activations": "activations"}
    entries = _wanted_entries(study, study.config.get("dense"), names.values(), "dense")
    return DenseModel(**{field: entries[name] for field, name in names.items()})


def groups(study: Study) -> tuple[ChannelGroup, ...]:
    """The channel groups in `study.yaml`, frozen ones included; raises `InputError` if they are not there."""
    entries, names = study.config.get("groups"), [field.name for field in fields(ChannelGroup)]
    if not isinstance(entries, list):
        raise InputError("missing key 'groups'", where=str(study.folder.config), allowed="a file written by a search")
    return tuple(
        ChannelGroup(**_wanted_entries(study, entry, names, f"groups[{i}]")) for i, entry in enumerate(entries)
    )


def prunable_groups(study: Study) -> list[ChannelGroup]:
    """The groups that could be pruned, in the order of the forward pass."""
    return [group for group in groups(study) if group.frozen is None]


def kept_channels(outcome: Outcome, among: Iterable[ChannelGroup]) -> list[int]:
    """Kept channels of each group; a group without an entry in the outcome was left whole."""
    return [outcome.widths.get(group.id, group.size) for group in among]


def main_cost(study: Study) -> str:
    """The cost that the metric is drawn against: the first among the objectives."""
    return study.tradeoff.costs[0]


def cost_ratio(study: Study, outcome: Outcome) -> float | None:
    """The main cost of an outcome relative to the dense model; None if it was not measured."""
    return outcome.costs[main_cost(study)]


def last_metric(outcome: Outcome) -> float | None:
    """The metric of a completed trial; else the one measured last, which a stopped trial was judged by; else None."""
    if outcome.metric is not None:
        return outcome.metric
    return outcome.rungs[-1].metric if outcome.rungs else None


def _wanted_entries(study: Study, data: object, names: Iterable[str], where: str) -> dict[str, Any]:
    """The entries of `data` with these names; the search may write more beside them."""
    if not isinstance(data, Mapping) or any(name not in data for name in names):
        raise InputError(f"expected {', '.join(names)}, found {data!r}", where=f"{study.folder.config}: {where}")
    return {name: data[name] for name in names}
