"""What can be done about a model that fails cut, short of freezing the groups that fail: see `links`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from autoprune.engine.graph import ChannelGraph, Ints
from autoprune.engine.tracing.alignment import dense_units
from autoprune.engine.tracing.build_graph import build_graph
from autoprune.engine.tracing.links import (
    Link,
    attribute_links,
    head_links,
    slice_links,
    sliced_dimensions,
    width_links,
)
from autoprune.engine.tracing.probe import Probe, Verdict, owning_groups
from autoprune.engine.tracing.size_attributes import doubtful_names

#: How often attributes are linked before groups are frozen.
_MOST_LINKS = 4

_PADDED = "meets padding, and the model's code fixes how much of it there is"


class Trial(NamedTuple):
    """A probe, its graph, what a cut shows, and the units that were not cut, with the reasons why they must stay."""

    probe: Probe
    graph: ChannelGraph
    verdict: Verdict
    reasons: Mapping[int, str]


def tried(probe: Probe, reasons: Mapping[int, str] | None = None) -> Trial:
    """All groups are cut but those that have a reason to stay."""
    graph = build_graph(probe.dense, reasons or {})
    return Trial(probe, graph, probe.try_groups(graph, graph.prunable), reasons or {})


def _tried_linked(trial: Trial, links: Sequence[Link]) -> Trial:
    """The same with these labels tied."""
    linked = tried(trial.probe.with_shared([*trial.probe.shared, *links]))
    trial.probe.passes = linked.probe.passes
    return linked


def forget_attributes(trial: Trial) -> Trial:
    """Without the attributes that are as large as a width by chance, if the model then fails elsewhere, or not."""
    names = doubtful_names(trial.probe.dense.attributes(), trial.graph.attributes)
    if not names:
        return trial
    other = tried(trial.probe.without_attributes(names), trial.reasons)
    return trial if other.verdict.failure == trial.verdict.failure else other


def split_by_rows(trial: Trial) -> Trial:
    """With dimensions split as for maps and not as for heads: those that the failure points at, or all if at none."""
    split = trial.probe.dense.evidence.split_calls
    met = [key for key, rows in split.items() if _points_at(trial, rows)]
    if not split:
        return trial
    other = tried(trial.probe.with_rows(met or split))
    trial.probe.passes = other.probe.passes
    still = any(_points_at(other, rows) for key, rows in other.probe.dense.evidence.split_calls.items() if key in met)
    return other if not other.verdict.failure or (met and not still) else trial


def link_attributes(trial: Trial) -> Trial:
    """With what one attribute counts tied, in the module that breaks and its kin, as long as that helps."""
    dense = trial.probe.dense
    links = attribute_links(dense.attributes(), dense.evidence, dense_units(trial.graph, dense))
    for _ in range(_MOST_LINKS):
        wanted = _links_of(links, trial.verdict.path)
        if not wanted or not trial.verdict.failure:
            break
        linked = _tried_linked(trial, wanted)
        if linked.verdict.failure and linked.verdict.path == trial.verdict.path:
            break
        trial = linked
    return trial


def _links_of(links: dict[tuple[str, str], Link], path: str | None) -> list[Link]:
    """The links of the attributes of a module and of its kin, of which there are then no more."""
    kin = {key for key in links if path is not None and _kind(key[0]) == _kind(path)}
    return [links.pop(key) for key in sorted(kin)]


def link_widths(trial: Trial) -> Trial:
    """With a length that the code of a module, and of its kin, splits by tied to another width in it, if that helps."""
    for _ in range(_MOST_LINKS):
        dense, path = trial.probe.dense, trial.verdict.path
        links = width_links(dense.evidence, dense_units(trial.graph, dense))
        here = [place for place, link in enumerate(links.get(path or "", ())) if _points_at(trial, link)]
        if not trial.verdict.failure or path is None or not here:
            break
        kin = [found for other, found in links.items() if _kind(other) == _kind(path)]
        alternatives = [[found[place] for found in kin if place < len(found)] for place in here[:_MOST_LINKS]]
        fitting = next((linked for linked in map(partial(_linked, trial), alternatives) if linked), None)
        if fitting is None:
            break
        trial = tried(fitting, trial.reasons)
    return trial


def _linked(trial: Trial, links: Sequence[Link]) -> Probe | None:
    """The probe with these labels tied, if what they belong to can then be cut."""
    probe = trial.probe.with_shared([*trial.probe.shared, *links])
    graph = build_graph(probe.dense, trial.reasons)
    owners = owning_groups(graph, dense_units(graph, probe.dense)[np.concatenate([link.ravel() for link in links])])
    failure = probe.failure(graph, owners)
    trial.probe.passes = probe.passes
    return None if failure else probe


def _kind(path: str) -> str:
    """The module's name, the same for modules of blocks that are alike."""
    return re.sub(r"\d+", "#", path)


def link_heads(trial: Trial) -> Trial:
    """With heads linked to their streams, where the groups in question fail as they are and do not fail linked."""
    probe, graph, verdict, _ = trial
    links = head_links(probe.dense.evidence)
    owned = [dense_units(graph, probe.dense)[link.ravel()] for link in links]
    if not links or (verdict.suspects.size and not np.isin(verdict.suspects, np.concatenate(owned)).any()):
        return trial
    linked = probe.with_heads(range(len(links)))
    whole = tried(linked)
    if not whole.verdict.failure:
        return whole
    joint, units = whole.graph, dense_units(whole.graph, linked.dense)
    owners = owning_groups(joint, np.concatenate([units[link.ravel()] for link in links]))
    if linked.failure(joint, owners):
        fit = {group.id for group in owners if not linked.failure(joint, [group])}
        own = [{group.id for group in owning_groups(joint, units[link.ravel()])} for link in links]
        whole = tried(linked.with_heads(place for place, ids in enumerate(own) if ids and ids <= fit))
    return whole


def link_slices(trial: Trial) -> Trial:
    """With slices that lose the same share, where channels that are sliced fail as they are and do not fail linked."""
    for finest in (True, False):
        links = slice_links(trial.probe.dense.evidence, finest)
        wanted = [link for link in links if _points_at(trial, link)]
        if not wanted or not trial.verdict.failure:
            break
        linked = _tried_linked(trial, wanted)
        if not any(_points_at(linked, link) for link in wanted):
            trial = linked
    return trial


def freeze_padded(trial: Trial) -> Trial:
    """Without what meets padding, if it is its number that the model's code fixes."""
    added = [labels for _, parts in trial.probe.dense.evidence.paddings for labels in parts if labels.any()]
    return _tried_frozen(trial, [(labels, labels) for labels in added], _PADDED)


def freeze_slices(trial: Trial) -> Trial:
    """Without the units of slices, so that these hold what they held, if the channels behind them can then be cut."""
    sliced = [(whole, whole[:count]) for whole, count in sliced_dimensions(trial.probe.dense.evidence)]
    return _tried_frozen(trial, sliced, str(trial.verdict.failure))


def _tried_frozen(trial: Trial, parts: Sequence[tuple[Ints, Ints]], reason: str) -> Trial:
    """Of pairs of labels: where a failure points at the first, the second stay; if it then points there no more."""
    met = [pair for pair in parts if _points_at(trial, pair[0])]
    held = np.concatenate([np.zeros(0, np.int64), *(labels for _, labels in met)])
    units = np.unique(dense_units(trial.graph, trial.probe.dense)[held])
    if not met:
        return trial
    frozen = tried(trial.probe, {**trial.reasons, **dict.fromkeys(units[units >= 0].tolist(), reason)})
    return trial if any(_points_at(frozen, labels) for labels, _ in met) else frozen


def _points_at(trial: Trial, labels: Ints) -> bool:
    """Whether these labels are among those that the failure points at, or may be."""
    units = dense_units(trial.graph, trial.probe.dense)[labels.ravel()]
    suspects = trial.verdict.suspects
    return bool(trial.verdict.failure) and (not suspects.size or bool(np.isin(units[units >= 0], suspects).any()))


#: Tried in this order while a cut fails.
REMEDIES: tuple[Callable[[Trial], Trial], ...] = (
    forget_attributes,
    split_by_rows,
    link_attributes,
    link_heads,
    link_widths,
    forget_attributes,  # once more: a failure earlier in the pass may have hidden what they do
    link_slices,
    freeze_padded,
    freeze_slices,
)
