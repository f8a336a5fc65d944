"""Cut a few units of every group at once, run again, and freeze the groups that the model's code does not let go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from autoprune.engine.graph import ChannelGraph, Group, Ints, Scale
from autoprune.engine.labels.ties import Ties
from autoprune.engine.surgery.prune import sizes_after, sync_sizes
from autoprune.engine.surgery.tensors import AllKept, all_kept, copy_with, cut_tensor
from autoprune.engine.tracing.alignment import dense_units, misalignment
from autoprune.engine.tracing.build_graph import build_graph
from autoprune.engine.tracing.forward import run_labelled
from autoprune.engine.tracing.head_links import head_links
from autoprune.engine.tracing.labelled_run import LabelledRun
from autoprune.engine.tracing.probe_masks import first_masks, further_masks
from autoprune.engine.tracing.width_scales import ScaleError, changed_scales
from autoprune.errors import first_line


@dataclass(frozen=True)
class Verdict:
    """What cuts of some groups have shown.

    Fields:
        failure: why the model breaks, or mixes up channels; None if it does not.
        scales: the numbers that surgery must take back.
        takes_by_number: whether the cut model's code takes channels by number: a slice of all channels shows only once
            there are fewer.
    """

    failure: str | None = None
    scales: tuple[Scale, ...] = ()
    takes_by_number: bool = False


class Probe:
    """A copy of the dense model to cut groups from, its run, and what the cuts so far have shown.

    Args:
        model: the copy.
        dense: its run.
        links: places of the heads, in `head_links`, that are taken as linked to their streams.
    """

    def __init__(self, model: nn.Module, dense: LabelledRun, links: frozenset[int] = frozenset()) -> None:
        self.model, self.dense, self.links = model, dense, links
        self.takes_by_number = dense.evidence.takes_by_number

    def run(self, model: nn.Module) -> LabelledRun:
        """A labelled forward pass, with the links that this probe has."""
        return _linked_run(model, self.dense, self.links)

    def with_links(self, links: Iterable[int]) -> Probe:
        """A new probe of the same model with other links, in the run of the dense model too."""
        links = frozenset(links)
        return Probe(self.model, _linked_run(self.model, self.dense, links), links)

    def try_groups(self, graph: ChannelGraph, groups: Iterable[Group]) -> Verdict:
        """Cut these groups together, several times if channels are taken by number, until a cut fails.

        A scale shows only in cuts of the width it comes from, so the scales of all cuts are collected.
        """
        scales: dict[tuple[str, int, bytes], Scale] = {}
        for stays in self._cut_masks(graph, [group for group in groups if group.size > 1]):
            verdict = _try_cut(self, graph, stays)
            self.takes_by_number |= verdict.takes_by_number
            if verdict.failure:
                return verdict
            scales |= {(scale.tensor, scale.dim, scale.entries.tobytes()): scale for scale in verdict.scales}
        return Verdict(None, tuple(scales.values()), self.takes_by_number)

    def failure(self, graph: ChannelGraph, groups: Iterable[Group]) -> str | None:
        """Why the model does not work without some units of these groups; None if it does."""
        return self.try_groups(graph, groups).failure

    def _cut_masks(self, graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
        """Which units stay: all but a few of each group; more cuts if channels turn out to be taken by number."""
        if groups:
            yield from first_masks(graph, groups)
        if groups and self.takes_by_number:
            yield from further_masks(graph, groups)


def probed_graph(probe: Probe) -> ChannelGraph:
    """The graph of the dense model, in which the groups that the model's code does not let go are frozen."""
    graph, reasons = build_graph(probe.dense, {}), dict[int, str]()
    verdict = probe.try_groups(graph, graph.prunable)
    if verdict.failure:
        probe, graph = _linked_where_needed(probe, graph)
        verdict = probe.try_groups(graph, graph.prunable)
    while verdict.failure:
        for group, reason in _find_culprits(probe, graph, verdict.failure):
            reasons |= dict.fromkeys(group.units.tolist(), reason)
        graph = build_graph(probe.dense, reasons)
        verdict = probe.try_groups(graph, graph.prunable)
    return replace(graph, scales=verdict.scales) if verdict.scales else graph


# ---- which groups fail -----------------------------------------------------------------------------------------------


def _find_culprits(probe: Probe, graph: ChannelGraph, failure: str) -> Iterator[tuple[Group, str]]:
    """The groups to freeze, and why: what each does alone, or what all do together."""
    suspects = [group for group in graph.prunable if group.size > 1]
    for group in _bisect_failures(suspects, lambda part: probe.failure(graph, part)):
        yield group, probe.failure(graph, [group]) or failure


def _bisect_failures(groups: list[Group], failure: Callable[[list[Group]], str | None]) -> list[Group]:
    """The groups that fail when cut without the others; if no half fails alone, the first half."""
    if len(groups) == 1:
        return groups
    half = len(groups) // 2
    parts = [part for part in (groups[:half], groups[half:]) if failure(part)]
    return [group for part in parts for group in _bisect_failures(part, failure)] or groups[:half]


# ---- heads and streams -----------------------------------------------------------------------------------------------


def _linked_run(model: nn.Module, dense: LabelledRun, links: frozenset[int]) -> LabelledRun:
    """A run of the dense model or of a cut copy, in the dense model's mode, with these heads tied to their streams."""
    run = run_labelled(model, dense.specs, dense.mode)
    chosen = [link for place, link in enumerate(head_links(run.evidence)) if place in links] if links else []
    return replace(run, ties=run.ties.joined(Ties(chosen))) if chosen else run


def _linked_where_needed(probe: Probe, graph: ChannelGraph) -> tuple[Probe, ChannelGraph]:
    """With heads linked to their streams, where the groups in question fail as they are and do not fail linked."""
    links = head_links(probe.dense.evidence)
    touched = np.unique(np.concatenate([link.ravel() for link in links] or [np.zeros(0, np.int64)]))
    if not probe.failure(graph, _owning_groups(graph, probe.dense, touched)):
        return probe, graph
    linked = probe.with_links(range(len(links)))
    joint = build_graph(linked.dense, {})
    owners = _owning_groups(joint, linked.dense, touched)
    if linked.failure(joint, owners):
        fit = {group.id for group in owners if not linked.failure(joint, [group])}
        own = [{group.id for group in _owning_groups(joint, linked.dense, link.ravel())} for link in links]
        linked = probe.with_links(place for place, ids in enumerate(own) if ids and ids <= fit)
    return linked, build_graph(linked.dense, {})


def _owning_groups(graph: ChannelGraph, run: LabelledRun, labels: Ints) -> list[Group]:
    """The prunable groups whose units own some of the labels."""
    owned = set(dense_units(graph, run)[labels].tolist())
    return [group for group in graph.prunable if not owned.isdisjoint(group.units.tolist())]


# ---- one cut ---------------------------------------------------------------------------------------------------------


def _try_cut(probe: Probe, graph: ChannelGraph, stays: np.ndarray) -> Verdict:
    """The model cut to the units that stay, bool (units,), is run and held against the dense one."""
    kept = all_kept(graph, stays)
    small = _cut_copy(probe.model, graph, kept, stays)
    by_number = False
    try:
        run = probe.run(small)
        by_number = run.evidence.takes_by_number
        failure = misalignment(graph, stays, kept, probe.dense, run)
        scales = () if failure else changed_scales(probe.dense, run, lambda: dense_units(graph, probe.dense))
        return Verdict(failure, scales, by_number)
    except ScaleError as error:
        return Verdict(str(error), takes_by_number=by_number)
    except NameError:  # a mistake in someone's code, no size written into it
        raise
    except Exception as error:  # noqa: BLE001 - hard-coded sizes fail in as many ways as there are operations
        return Verdict(f"the model's code fixes its size: {first_line(error)}", takes_by_number=by_number)


def _cut_copy(model: nn.Module, graph: ChannelGraph, kept: AllKept, stays: np.ndarray) -> nn.Module:
    cuts = kept.cuts(graph)
    small = copy_with(model, lambda name, tensor: cut_tensor(tensor, cuts.get(name, ())))
    sync_sizes(small, sizes_after(graph, stays))
    return small
