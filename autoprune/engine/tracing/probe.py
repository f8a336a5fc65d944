"""Cut a few units of every group at once, run again, and freeze the groups that the model's code does not let go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from autoprune.engine.graph import ChannelGraph, Group, Ints, Scale
from autoprune.engine.labels.evidence import CallKey
from autoprune.engine.labels.ties import Ties
from autoprune.engine.surgery.prune import sizes_after, sync_sizes
from autoprune.engine.surgery.tensors import AllKept, all_kept, copy_with, cut_tensor
from autoprune.engine.tracing.alignment import dense_units, misalignment, units_of_labels
from autoprune.engine.tracing.code_places import place_in_code
from autoprune.engine.tracing.components import components
from autoprune.engine.tracing.forward import BrokenPassError, run_labelled
from autoprune.engine.tracing.labelled_run import LabelledRun
from autoprune.engine.tracing.links import Link, head_links
from autoprune.engine.tracing.probe_masks import channels, even_masks, first_masks, further_masks
from autoprune.engine.tracing.width_comparisons import compares_numbers
from autoprune.engine.tracing.width_scales import ScaleError, changed_scales
from autoprune.errors import first_line

#: A lone channel has no label, so what it meets does not show in labels.
OTHER_BRANCH = "the model's code compares widths: after a cut tensors meet that did not meet before"


def _no_units() -> Ints:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Verdict:
    """What cuts of some groups have shown.

    Fields:
        failure: why the model breaks, or mixes up channels; None if it does not.
        suspects: the units that the operation worked with that broke, or that were mixed up; none if that is not known.
        path: the module whose code broke; None if that is not known.
        cut: the units that were cut when it failed.
        scales: the numbers that surgery must take back.
        takes_by_number: whether the cut model's code takes channels by number: a slice of all channels shows only once
            there are fewer.
    """

    failure: str | None = None
    suspects: Ints = field(default_factory=_no_units)
    path: str | None = None
    cut: Ints = field(default_factory=_no_units)
    scales: tuple[Scale, ...] = ()
    takes_by_number: bool = False


class Probe:
    """A copy of the dense model to cut groups from, its run, and what the cuts so far have shown.

    Args:
        model: the copy.
        dense: its run.
        heads: places of the heads, in `head_links`, that are taken as linked to their streams.
        shared: labels that are taken as tied, since one attribute counts them.
        forgotten: names of attributes that are as large as a width by chance.
    """

    def __init__(
        self,
        model: nn.Module,
        dense: LabelledRun,
        heads: frozenset[int] = frozenset(),
        shared: Sequence[Link] = (),
        forgotten: frozenset[str] = frozenset(),
    ) -> None:
        self.model, self.dense, self.heads, self.shared = model, dense, heads, tuple(shared)
        self.forgotten = forgotten
        self.takes_by_number = dense.evidence.takes_by_number
        self.compares_widths = compares_numbers(model)
        self.passes = 0
        self._failed_mask = 0

    def run(self, graph: ChannelGraph, kept: AllKept, model: nn.Module) -> LabelledRun:
        """A labelled forward pass of a cut copy, with the links that this probe has."""
        self.passes += 1
        run = _with_heads(run_labelled(model, self.dense.specs, self.dense.mode), self.heads)
        if not self.shared:
            return run
        linked = np.zeros(graph.unit_count + 1, dtype=bool)
        linked[dense_units(graph, self.dense)[np.concatenate([link.ravel() for link in self.shared])]] = True
        linked[-1] = False
        origin = units_of_labels(graph, run, kept)
        labels = np.flatnonzero(linked[origin])
        labels = labels[np.argsort(origin[labels], kind="stable")]
        same = origin[labels[1:]] == origin[labels[:-1]]
        return _tied(run, [np.stack([labels[:-1][same], labels[1:][same]])])

    def with_heads(self, heads: Iterable[int]) -> Probe:
        """A new probe of the same model with other heads linked, in the run of the dense model too."""
        dense = run_labelled(self.model, self.dense.specs, self.dense.mode)
        return self._with(frozenset(heads), self.shared, dense)

    def with_shared(self, shared: Sequence[Link]) -> Probe:
        """A new probe of the same model with other labels tied."""
        return self._with(self.heads, shared, run_labelled(self.model, self.dense.specs, self.dense.mode))

    def with_rows(self, calls: Iterable[CallKey]) -> Probe:
        """A new probe of the same model in which these calls too split into whole rows; without links."""
        mode = replace(self.dense.mode, by_row=self.dense.mode.by_row | frozenset(calls))
        return self._with(frozenset(), (), run_labelled(self.model, self.dense.specs, mode))

    def without_attributes(self, names: frozenset[str]) -> Probe:
        """A new probe of the same model in which attributes of these names are no widths."""
        dense = run_labelled(self.model, self.dense.specs, self.dense.mode)
        return self._with(self.heads, self.shared, dense, self.forgotten | names)

    def _with(
        self,
        heads: frozenset[int],
        shared: Sequence[Link],
        dense: LabelledRun,
        forgotten: frozenset[str] | None = None,
    ) -> Probe:
        names = self.forgotten if forgotten is None else forgotten
        linked = _without_attributes(_tied(_with_heads(dense, heads), shared), names)
        new = Probe(self.model, linked, heads, shared, names)
        new.passes, new.takes_by_number = self.passes, self.takes_by_number
        return new

    def try_groups(self, graph: ChannelGraph, groups: Iterable[Group]) -> Verdict:
        """Cut these groups together, several times if channels are taken by number, until a cut fails.

        A scale shows only in cuts of the width it comes from, so the scales of all cuts are collected. What failed
        last time comes first.
        """
        groups = [group for group in groups if group.size > 1]
        scales: dict[tuple[str, int, bytes], Scale] = {}
        masks = dict(enumerate(self._masks(graph, groups)))
        count = len(masks)
        while masks:
            place = self._failed_mask if self._failed_mask in masks else min(masks)
            verdict = self.try_cut(graph, np.flatnonzero(~masks.pop(place)))
            if verdict.takes_by_number and not self.takes_by_number:
                self.takes_by_number = True
                masks |= enumerate(self._further_masks(graph, groups), count)
            if verdict.failure:
                self._failed_mask = place
                return verdict
            scales |= {(scale.tensor, scale.dim, scale.entries.tobytes()): scale for scale in verdict.scales}
        return Verdict(scales=tuple(scales.values()), takes_by_number=self.takes_by_number)

    def _masks(self, graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
        """Which units stay: all but a few of each group; more cuts if widths are compared, channels taken by number."""
        if groups:
            yield from first_masks(graph, groups)
        if groups and self.compares_widths:
            yield from even_masks(graph, groups, self._fixed_widths(graph))
        if groups and self.takes_by_number:
            yield from self._further_masks(graph, groups)

    def _further_masks(self, graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
        return further_masks(graph, groups, padded=bool(self.dense.evidence.paddings))

    def _fixed_widths(self, graph: ChannelGraph) -> set[int]:
        """The channels of the inputs, the widths of groups that must stay, and 1 where a layer has a single filter."""
        inputs = {spec.shape[1] for spec in self.dense.specs if len(spec.shape) > 1}
        lone = {1 for tensor in self.model.parameters() if tensor.dim() > 1 and len(tensor) == 1}
        return inputs | lone | {channels(graph, group) for group in graph.groups if group.frozen or group.size == 1}

    def failure(self, graph: ChannelGraph, groups: Iterable[Group]) -> str | None:
        """Why the model does not work without some units of these groups; None if it does."""
        return self.try_groups(graph, groups).failure

    def try_cut(self, graph: ChannelGraph, gone: Ints) -> Verdict:
        """The model without these units is run and held against the dense one."""
        stays = np.ones(graph.unit_count, dtype=bool)
        stays[gone] = False
        kept = all_kept(graph, stays)
        verdict = self._verdict(graph, stays, kept, _cut_copy(self.model, graph, kept, stays))
        return replace(verdict, cut=gone)

    def _verdict(self, graph: ChannelGraph, stays: np.ndarray, kept: AllKept, small: nn.Module) -> Verdict:
        by_number = False
        try:
            run = self.run(graph, kept, small)
            by_number = run.evidence.takes_by_number
            if run.evidence.output_shapes != self.dense.evidence.output_shapes:
                suspects = _units_as_many(graph, self.dense, run.evidence.output_shapes)
                return Verdict("the model's output would have another shape", suspects, takes_by_number=by_number)
            wrong = misalignment(graph, stays, kept, self.dense, run)
            if wrong is not None:
                return Verdict(wrong.reason, np.unique(wrong.units), takes_by_number=by_number)
            if self.compares_widths and run.evidence.meetings != self.dense.evidence.meetings:
                return Verdict(OTHER_BRANCH, takes_by_number=by_number)
            scales = changed_scales(self.dense, run, lambda: dense_units(graph, self.dense))
            return Verdict(scales=scales, takes_by_number=by_number)
        except ScaleError as error:
            return Verdict(str(error), takes_by_number=by_number)
        except BrokenPassError as broken:
            if isinstance(broken.error, NameError):  # a mistake in someone's code, no size written into it
                raise broken.error from None
            place = place_in_code(broken.error)
            where = f" ({place})" if place else ""
            failure = f"the model's code fixes its size: {first_line(broken.error)}{where}"
            by_number = broken.run.evidence.takes_by_number
            return Verdict(failure, _units_met(graph, kept, broken), broken.path, takes_by_number=by_number)


def _units_as_many(graph: ChannelGraph, dense: LabelledRun, shapes: Sequence[tuple[int, ...]]) -> Ints:
    """The units of layers that put out as many channels as the dense model's outputs have where `shapes` differ."""
    pairs = zip(dense.evidence.output_shapes, shapes, strict=False)
    counts = {before for was, now in pairs for before, after in zip(was, now, strict=False) if before != after}
    labels = [array.ravel() for op in dense.evidence.ops for array in op.out_dims if array.size in counts]
    units = np.unique(dense_units(graph, dense)[np.concatenate([_no_units(), *labels])])
    return units[units >= 0]


def _units_met(graph: ChannelGraph, kept: AllKept, broken: BrokenPassError) -> Ints:
    """The dense graph's units behind what the operation worked with that failed."""
    component = components(broken.run)
    origin = units_of_labels(graph, broken.run, kept)
    met = np.isin(component, component[broken.labels]) & (origin >= 0)
    return np.unique(origin[met])


def _cut_copy(model: nn.Module, graph: ChannelGraph, kept: AllKept, stays: np.ndarray) -> nn.Module:
    cuts = kept.cuts(graph)
    small = copy_with(model, lambda name, tensor: cut_tensor(tensor, cuts.get(name, ())))
    sync_sizes(small, sizes_after(graph, stays))
    return small


def _with_heads(run: LabelledRun, heads: frozenset[int]) -> LabelledRun:
    return _tied(run, [link for place, link in enumerate(head_links(run.evidence)) if place in heads] if heads else [])


def _without_attributes(run: LabelledRun, names: frozenset[str]) -> LabelledRun:
    if not names:
        return run
    left = {path: {k: v for k, v in own.items() if k not in names} for path, own in run.attributes().items()}
    return replace(run, attributes=lambda: left)


def _tied(run: LabelledRun, links: Sequence[Link]) -> LabelledRun:
    return replace(run, ties=run.ties.joined(Ties([link for link in links if link.size]))) if links else run


def owning_groups(graph: ChannelGraph, units: Ints) -> list[Group]:
    """The prunable groups that some of the units are in."""
    owned = set(units.tolist())
    return [group for group in graph.prunable if not owned.isdisjoint(group.units.tolist())]
