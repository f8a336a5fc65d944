"""Whether the channels of a cut model still meet as those of the dense one do: a run of it against the dense graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoprune.engine.graph import ChannelGraph, Ints, with_fixed
from autoprune.engine.surgery.tensors import AllKept, all_kept
from autoprune.engine.tracing.components import components
from autoprune.engine.tracing.labelled_run import LabelledRun


def misalignment(
    graph: ChannelGraph, stays: np.ndarray, kept: AllKept, dense: LabelledRun, run: LabelledRun
) -> str | None:
    """Why units of the dense graph meet otherwise in the cut model, an index in its code that did not move; or None.

    Args:
        graph: of the dense model.
        stays: which units the cut model has, bool (units,).
        kept: the entries that these own.
        dense: the run of the dense model.
        run: of the cut model.
    """
    origin = units_of_labels(graph, run, kept)
    known = origin >= 0
    component, unit = components(run)[known], origin[known]
    if not _determines_partner(component, unit):
        return "after a cut other channels would meet: the model's code fixes an index or a padding"
    alone = _units_alone(graph, kept)
    whole = ~alone[unit]
    if not _determines_partner(unit[whole], component[whole]):
        return "after a cut channels that belong together would part: the model's code fixes an index"
    if not _mixes_the_same(graph, stays & ~alone, run, origin):
        return "after a cut other channels would be mixed: the model's code fixes an index"
    if not _takes_the_same(graph, stays & ~alone, (dense, run), origin):
        return "after a cut other channels would be in a slice: the model's code takes them by number"
    return None


def units_of_labels(graph: ChannelGraph, run: LabelledRun, kept: AllKept) -> Ints:
    """The unit of the dense graph behind every label of a run of the cut model, or -1; shape (labels,)."""
    at = {(slot.tensor, slot.dim): slot.first for slot in run.slots}
    first = np.array([at.get((slot.tensor, slot.dim), -1) for slot in graph.slots], dtype=np.int64)
    sizes = np.diff(kept.ends)
    labels = np.repeat(first - kept.ends[:-1], sizes) + np.arange(len(kept.units))
    labelled = np.repeat(first >= 0, sizes)
    origin = np.full(run.label_count, -1)
    origin[labels[labelled]] = kept.units[labelled]
    return origin


def dense_units(graph: ChannelGraph, run: LabelledRun) -> Ints:
    """The unit behind every label of the dense model's run, or -1; shape (labels,)."""
    return units_of_labels(graph, run, all_kept(graph, np.ones(graph.unit_count, dtype=bool)))


def _units_alone(graph: ChannelGraph, kept: AllKept) -> np.ndarray:
    """Units left alone in some dimension: what is of size 1 has no label, so nothing shows what belongs together."""
    first, last = (end.reduceat(kept.units, kept.ends[:-1]) for end in (np.minimum, np.maximum))
    alone = graph.per_unit(False)
    alone[first[first == last]] = True
    return alone[:-1]


def _determines_partner(a: Ints, b: Ints) -> bool:
    """Whether equal entries of `a` have equal partners in `b`; sorting the pairs took a third of the probe."""
    partner = np.zeros(a.max(initial=-1) + 1, dtype=np.int64)
    partner[a] = b
    return bool((partner[a] == b).all())


def _mixes_the_same(graph: ChannelGraph, seen: np.ndarray, run: LabelledRun, origin: Ints) -> bool:
    """Whether every cross-channel call of the cut model works with the same units as before; only `seen` ones count."""
    after = {
        (call.name, call.index): _distinct_units((origin[labels] for _, labels in call.blocks), seen)
        for call in run.evidence.cross_channel
    }
    return all(
        _distinct_units((units for _, units in call.blocks), seen) == after.get((call.name, call.index), set())
        for call in graph.cross_channel
    )


def _takes_the_same(graph: ChannelGraph, seen: np.ndarray, runs: tuple[LabelledRun, LabelledRun], origin: Ints) -> bool:
    """Whether slices and splits of the cut model hold the same units in the same order; only `seen` ones count.

    What becomes of a slice, a shift to the next frame for example, leaves no trace in the labels.
    """
    dense, run = runs
    if not dense.evidence.parts:
        return True
    before = dense_units(graph, dense)
    after = {key: origin[labels] for key, labels in run.evidence.parts}
    none = np.zeros(0, dtype=np.int64)
    return all(
        np.array_equal(*(units[with_fixed(seen, False)[units]] for units in (before[labels], after.get(key, none))))
        for key, labels in dense.evidence.parts
    )


def _distinct_units(arrays: Iterable[Ints], wanted: np.ndarray) -> set[int]:
    return {int(unit) for array in arrays for unit in np.unique(array) if unit >= 0 and wanted[unit]}
