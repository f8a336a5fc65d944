"""Which groups to freeze so that the model works cut: those that a failing cut points at, and bisection among them.

A model of many equal blocks fails in each of them. So what is found in one is tried in its kin at once: groups of
layers whose names differ in numbers only. After `MOST_PASSES` cuts all that is suspected, if it is not most of the
model, is frozen without looking closer: LeViT took 176 of them before, and 49 seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from autoprune.engine.graph import ChannelGraph, Group
from autoprune.engine.tracing.probe import Probe, Verdict, owning_groups
from autoprune.engine.tracing.probe_masks import channels
from autoprune.engine.tracing.remedies import REMEDIES, tried

MOST_PASSES = 12


def probed_graph(probe: Probe) -> ChannelGraph:
    """The graph of the dense model, in which the groups that the model's code does not let go are frozen."""
    trial = tried(probe)
    for remedy in REMEDIES:
        if trial.verdict.failure:
            trial = remedy(trial)
    while trial.verdict.failure:
        reasons = dict(trial.reasons)
        for group, reason in _find_culprits(trial.probe, trial.graph, trial.verdict):
            reasons |= dict.fromkeys(group.units.tolist(), reason)
        trial = tried(trial.probe, reasons)
    scales = trial.verdict.scales
    return replace(trial.graph, scales=scales) if scales else trial.graph


def _find_culprits(probe: Probe, graph: ChannelGraph, verdict: Verdict) -> Iterator[tuple[Group, str]]:
    """Groups to freeze, and why: suspects that fail alone, and their kin; or some of those that only fail together."""
    cut = _Cut(probe, graph, verdict)
    culprits = cut.bisect(next(suspects for suspects in _suspects(cut) if suspects and cut.failure(suspects)))
    kin = [group for group in cut.groups if group not in culprits and _name(group) in {_name(c) for c in culprits}]
    for group in (*culprits, *(cut.bisect(kin) if kin and cut.failure(kin) else ())):
        yield group, cut.reasons.get((group.id,)) or str(verdict.failure)


def _suspects(cut: _Cut) -> Iterator[list[Group]]:
    """Whom to suspect, the most likely first: who was met, who has layers in the module that broke, all."""
    yield cut.among(owning_groups(cut.graph, cut.verdict.suspects))
    path = cut.verdict.path
    while path:
        yield [group for group in cut.groups if any(f"{layer}.".startswith(f"{path}.") for layer in group.layers)]
        path = path.rpartition(".")[0]
    yield cut.groups


def _name(group: Group) -> str:
    """The name of the group, the same for groups of blocks that are alike."""
    return re.sub(r"\d+", "#", group.id)


class _Cut:
    """A cut that failed, to be repeated with fewer groups; `reasons` are the failures of these."""

    def __init__(self, probe: Probe, graph: ChannelGraph, verdict: Verdict) -> None:
        self.probe, self.graph, self.verdict = probe, graph, verdict
        self.gone = np.zeros(graph.unit_count, dtype=bool)
        self.gone[verdict.cut] = True
        self.groups = self.among(graph.prunable)
        self.reasons: dict[tuple[str, ...], str | None] = {tuple(g.id for g in self.groups): verdict.failure}

    def among(self, groups: Iterable[Group]) -> list[Group]:
        """Those of the groups that the cut takes units from."""
        return [group for group in groups if self.gone[group.units].any()]

    def failure(self, groups: Sequence[Group]) -> str | None:
        """Why the model does not work when only these lose what the cut takes; None if it does."""
        key = tuple(group.id for group in groups)
        if key not in self.reasons:
            gone = np.concatenate([group.units[self.gone[group.units]] for group in groups])
            self.reasons[key] = self.probe.try_cut(self.graph, gone).failure
        return self.reasons[key]

    def bisect(self, groups: list[Group]) -> list[Group]:
        """The groups that fail without the others, of groups that fail; if no half fails alone, see `_needed_half`."""
        spent = self.probe.passes >= MOST_PASSES and 2 * len(groups) <= len(self.groups)
        if len(groups) == 1 or spent:
            return groups
        half = len(groups) // 2
        failing = [part for part in (groups[:half], groups[half:]) if self.failure(part)]
        return [group for part in failing for group in self.bisect(part)] or self._needed_half(groups)

    def _needed_half(self, groups: list[Group]) -> list[Group]:
        """The first half of groups that only fail together, or that of the widest where the cut leaves them one width.

        Code that compares two widths does in all other cuts what it does now if the wider stays; were the narrower to
        stay, the wider could still be cut to its width.
        """
        half = len(groups) // 2
        halves = (groups[:half], groups[half:])
        if len({self._width_left(group) for group in groups}) > 1:
            return halves[0]
        return max(halves, key=lambda part: max(channels(self.graph, group) for group in part))

    def _width_left(self, group: Group) -> int:
        left = int((~self.gone[group.units]).sum())
        return left * (channels(self.graph, group) // group.size)
