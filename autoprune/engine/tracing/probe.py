"""Cut one unit of every group at once, run again, and freeze the groups that the model's code does not let go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import nn

from autoprune.engine.graph import ChannelGraph, Group, Ints, Scale
from autoprune.engine.labels.flow import Flow
from autoprune.engine.surgery.prune import sizes_after, sync_sizes
from autoprune.engine.surgery.tensors import AllKept, all_kept, copy_with, cut_tensor
from autoprune.engine.tracing.build_graph import Run, build_graph, components
from autoprune.engine.tracing.forward import run_labelled
from autoprune.engine.tracing.width_scales import ScaleError, changed_scales
from autoprune.errors import first_line


@dataclass(frozen=True, eq=False)
class _Probe:
    """What groups are tried on: a copy of the dense model, its run, and which heads are linked to their streams."""

    model: nn.Module
    dense: Run
    links: frozenset[int] = frozenset()

    def run(self, model: nn.Module) -> Run:
        """A labelled forward pass, with the links that this probe has."""
        run = run_labelled(model, self.dense.specs, self.dense.flow.ways)
        run.flow.ties.extend(link for i, link in enumerate(_links(run.flow)) if i in self.links)
        return run

    def with_links(self, links: Iterable[int]) -> _Probe:
        """The same with other links, in the run of the dense model too."""
        probe = replace(self, links=frozenset(links))
        return replace(probe, dense=probe.run(self.model))


def _probed(probe: _Probe) -> ChannelGraph:
    """Cut something out of every group at once and run again; on failure freeze the groups to blame, repeat."""
    graph, blamed = build_graph(probe.dense, {}), dict[int, str]()
    verdict = _try(probe, graph, graph.prunable)
    if verdict.failure:
        probe, graph = _linked(probe, graph)
        verdict = _try(probe, graph, graph.prunable)
    while verdict.failure:
        check = partial(_failure, probe, graph)
        for group in _guilty([group for group in graph.prunable if group.size > 1], check):
            reason = check([group]) or verdict.failure
            blamed |= dict.fromkeys(group.units.tolist(), reason)
        graph = build_graph(probe.dense, blamed)
        verdict = _try(probe, graph, graph.prunable)
    return replace(graph, scales=verdict.scales) if verdict.scales else graph


def _linked(probe: _Probe, graph: ChannelGraph) -> tuple[_Probe, ChannelGraph]:
    """Attention code often takes the width of a head from that of the stream: head = stream // heads.

    Then neither can be cut alone. Where a stream of h d channels goes into a layer whose outputs are split into heads
    of d, the stream is taken as h heads as well, and offset i of every head becomes one unit with them. This makes
    units coarse, so it is done only where the groups in question fail alone and do not fail linked.
    """
    links = _links(probe.dense.flow)
    touched = np.unique(np.concatenate([link.ravel() for link in links] or [np.zeros(0, np.int64)]))
    if not _failure(probe, graph, _owners(graph, probe.dense, touched)):
        return probe, graph
    linked = probe.with_links(range(len(links)))
    joint = build_graph(linked.dense, {})
    owners = _owners(joint, linked.dense, touched)
    if _failure(linked, joint, owners):
        fit = {group.id for group in owners if not _failure(linked, joint, [group])}
        own = [{group.id for group in _owners(joint, linked.dense, link.ravel())} for link in links]
        linked = probe.with_links(i for i, ids in enumerate(own) if ids and ids <= fit)
    return linked, build_graph(linked.dense, {})


def _links(flow: Flow) -> list[Ints]:
    """Pairs of labels, shape (2, n): stream and heads of every layer whose outputs are split into heads."""
    source = {int(op.out_dims[0].flat[0]): op.inputs for op in flow.ops if op.out_dims and op.inputs is not None}
    links = []
    for _, rows in flow.splits:
        stream, width = source.get(int(rows.flat[0])), rows.shape[-1]
        if stream is not None and stream.size % width == 0 and stream.all() and rows.all():
            heads = stream.reshape(-1, width)
            links.append(np.stack([heads.ravel(), np.broadcast_to(rows[0], heads.shape).ravel()]))
    return links


def _owners(graph: ChannelGraph, run: Run, labels: Ints) -> list[Group]:
    """The prunable groups whose units own some of the labels."""
    owned = set(_origin(graph, run, all_kept(graph, np.ones(graph.unit_count, dtype=bool)))[labels].tolist())
    return [group for group in graph.prunable if not owned.isdisjoint(group.units.tolist())]


def _guilty(groups: list[Group], check: Callable[[list[Group]], str | None]) -> list[Group]:
    """The groups that fail when cut without the others; if no half fails alone, the first half."""
    if len(groups) == 1:
        return groups
    half = len(groups) // 2
    parts = [part for part in (groups[:half], groups[half:]) if check(part)]
    return [group for part in parts for group in _guilty(part, check)] or groups[:half]


@dataclass(frozen=True)
class _Verdict:
    """Why the model breaks, or mixes up channels, when groups are cut; else the numbers that surgery must take back."""

    failure: str | None = None
    scales: tuple[Scale, ...] = ()


def _failure(probe: _Probe, graph: ChannelGraph, groups: Sequence[Group]) -> str | None:
    return _try(probe, graph, groups).failure


def _try(probe: _Probe, graph: ChannelGraph, groups: Sequence[Group]) -> _Verdict:
    """Every probe must pass. A number shows only in those that cut the width it comes from, so all are asked."""
    scales: dict[tuple[str, int, bytes], Scale] = {}
    for stays in _probe_masks(graph, [group for group in groups if group.size > 1], probe.dense.flow):
        verdict = _tried(probe, graph, stays)
        if verdict.failure:
            return verdict
        scales |= {(scale.tensor, scale.dim, scale.entries.tobytes()): scale for scale in verdict.scales}
    return _Verdict(None, tuple(scales.values()))


def _tried(probe: _Probe, graph: ChannelGraph, stays: np.ndarray) -> _Verdict:
    kept = all_kept(graph, stays)
    cuts = kept.cuts(graph)
    small = copy_with(probe.model, lambda name, tensor: cut_tensor(tensor, cuts.get(name, ())))
    sync_sizes(small, sizes_after(graph, stays))
    try:
        run = probe.run(small)
        probe.dense.flow.numbered |= run.flow.numbered  # a slice of all channels shows only once there are fewer
        misaligned = _misaligned(graph, stays, kept, run)
        if misaligned:
            return _Verdict(misaligned)
        everything = np.ones_like(stays)
        scales = changed_scales(probe.dense, run, lambda: _origin(graph, probe.dense, all_kept(graph, everything)))
        return _Verdict(None, scales)
    except ScaleError as error:
        return _Verdict(str(error))
    except NameError:  # a mistake in someone's code, no size written into it
        raise
    except Exception as error:  # noqa: BLE001 - hard-coded sizes fail in as many ways as there are operations
        return _Verdict(f"the model's code fixes its size: {first_line(error)}")


def _probe_masks(graph: ChannelGraph, groups: Sequence[Group], flow: Flow) -> Iterator[np.ndarray]:
    """Which units stay: not the first of even groups and the last of odd ones, so that a shift between two shows.

    Code that takes channels by number can be right by luck, when all groups lose equally or only their ends: then also
    the other way round, random halves of every other group, and random shares of all.
    """

    def without(gone: Iterable[Ints]) -> np.ndarray:
        stays = np.ones(graph.unit_count, dtype=bool)
        stays[np.concatenate([*gone])] = False
        return stays

    def ends(first: int) -> Iterator[Ints]:
        return (g.units[:1] if i % 2 == first else g.units[-1:] for i, g in enumerate(groups))

    if groups:
        yield without(ends(0))
    if not groups or not flow.numbered:
        return
    yield without(ends(1))
    random = np.random.default_rng(0)
    for half in (groups[0::2], groups[1::2]):
        if half:
            yield without(random.permutation(g.units)[(g.size + 1) // 2 :] for g in half)
    yield without(
        random.permutation(g.units)[random.integers((g.size + 1) // 2, g.size, endpoint=True) :] for g in groups
    )


def _misaligned(graph: ChannelGraph, stays: np.ndarray, kept: AllKept, run: Run) -> str | None:
    """Two units of the dense graph that meet in the cut model: some index in the model's code did not move along."""
    origin = _origin(graph, run, kept)
    known = origin >= 0
    component, unit = components(run)[known], origin[known]
    if not _determines(component, unit):
        return "after a cut other channels would meet: the model's code fixes an index or a padding"
    alone = _alone(graph, kept)
    whole = ~alone[unit]
    if not _determines(unit[whole], component[whole]):
        return "after a cut channels that belong together would part: the model's code fixes an index"
    if not _same_mixers(graph, stays & ~alone, run, origin):
        return "after a cut other channels would be mixed: the model's code fixes an index"
    return None


def _alone(graph: ChannelGraph, kept: AllKept) -> np.ndarray:
    """Units left alone in some dimension: what is of size 1 has no label, so nothing shows what belongs together."""
    first, last = (end.reduceat(kept.units, kept.ends[:-1]) for end in (np.minimum, np.maximum))
    alone = graph.per_unit(False)
    alone[first[first == last]] = True
    return alone[:-1]


def _determines(a: Ints, b: Ints) -> bool:
    """Whether equal entries of `a` have equal partners in `b`; sorting the pairs took a third of the probe."""
    partner = np.zeros(a.max(initial=-1) + 1, dtype=np.int64)
    partner[a] = b
    return bool((partner[a] == b).all())


def _origin(graph: ChannelGraph, run: Run, kept: AllKept) -> Ints:
    """The unit of the dense graph behind every label of a run of the cut model, or -1; shape (labels,)."""
    at = {(slot.tensor, slot.dim): slot.first for slot in run.slots}
    first = np.array([at.get((slot.tensor, slot.dim), -1) for slot in graph.slots], dtype=np.int64)
    sizes = np.diff(kept.ends)
    labels = np.repeat(first - kept.ends[:-1], sizes) + np.arange(len(kept.units))
    labelled = np.repeat(first >= 0, sizes)
    origin = np.full(run.labels, -1)
    origin[labels[labelled]] = kept.units[labelled]
    return origin


def _same_mixers(graph: ChannelGraph, seen: np.ndarray, run: Run, origin: Ints) -> bool:
    """Whether every mixing call of the cut model works with the same units as before, of those that are `seen`."""
    after = {(m.name, m.index): _distinct((origin[labels] for _, labels in m.blocks), seen) for m in run.flow.mixers}
    return all(
        _distinct((units for _, units in m.blocks), seen) == after.get((m.name, m.index), set()) for m in graph.mixers
    )


def _distinct(arrays: Iterable[Ints], wanted: np.ndarray) -> set[int]:
    return {int(unit) for array in arrays for unit in np.unique(array) if unit >= 0 and wanted[unit]}
