"""Whether the channels of a cut model still meet as those of the dense one do: a run of it against the dense graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from autoprune.engine.graph import ChannelGraph, Ints, with_fixed
from autoprune.engine.labels.evidence import PartKey
from autoprune.engine.surgery.tensors import AllKept, all_kept
from autoprune.engine.tracing.components import components
from autoprune.engine.tracing.labelled_run import LabelledRun


class Misalignment(NamedTuple):
    """Why units of the dense graph meet otherwise in a cut model, and which these are."""

    reason: str
    units: Ints


def misalignment(
    graph: ChannelGraph, stays: np.ndarray, kept: AllKept, dense: LabelledRun, run: LabelledRun
) -> Misalignment | None:
    """What units of the dense graph meet otherwise in the cut model, an index in its code that did not move; or None.

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
    met = _with_several_partners(component, unit)
    if met.any():
        reason = "after a cut other channels would meet: the model's code fixes an index or padding, or compares widths"
        return Misalignment(reason, unit[met])
    alone = _units_alone(graph, kept)
    origin = _spread_over_ties(run, origin)
    whole = ~alone[unit]
    parted = _with_several_partners(unit[whole], component[whole])
    if parted.any():
        reason = "after a cut channels that belong together would part: the model's code fixes an index"
        return Misalignment(reason, unit[whole][parted])
    mixed = _mixed_otherwise(graph, stays & ~alone, run, origin)
    if mixed:
        return Misalignment(
            "after a cut other channels would be mixed: the model's code fixes an index", np.array(sorted(mixed))
        )
    taken = _taken_otherwise(graph, (stays, stays & ~alone), (dense, run), origin)
    if taken:
        reason = "after a cut other channels would be in a slice: the model's code takes them by number"
        return Misalignment(reason, np.array(sorted(taken)))
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
    own = units_of_labels(graph, run, all_kept(graph, np.ones(graph.unit_count, dtype=bool)))
    return _spread_over_ties(run, own)


def _spread_over_ties(run: LabelledRun, units: Ints) -> Ints:
    """Labels that the pass has handed out, of new tensors and copies, belong to the units that they are tied to."""
    component = components(run)
    of_component = np.full(len(units), -1)
    known = units >= 0
    of_component[component[known]] = units[known]
    return of_component[component]


def _units_alone(graph: ChannelGraph, kept: AllKept) -> np.ndarray:
    """Units left alone in some dimension: what is of size 1 has no label, so nothing shows what belongs together."""
    first, last = (end.reduceat(kept.units, kept.ends[:-1]) for end in (np.minimum, np.maximum))
    alone = graph.per_unit(False)
    alone[first[first == last]] = True
    return alone[:-1]


def _with_several_partners(a: Ints, b: Ints) -> np.ndarray:
    """Where equal entries of `a` have different partners in `b`; sorting the pairs took a third of the probe."""
    partner = np.zeros(a.max(initial=-1) + 1, dtype=np.int64)
    partner[a] = b
    several = np.zeros(len(partner), dtype=bool)
    several[a[partner[a] != b]] = True
    return several[a]


def _mixed_otherwise(graph: ChannelGraph, seen: np.ndarray, run: LabelledRun, origin: Ints) -> set[int]:
    """The units of cross-channel calls of the cut model that work with others than before; only `seen` ones count."""
    after = {
        (call.name, call.index): _distinct_units((origin[labels] for _, labels in call.blocks), seen)
        for call in run.evidence.cross_channel
    }
    found: set[int] = set()
    for call in graph.cross_channel:
        before = _distinct_units((units for _, units in call.blocks), seen)
        found |= before ^ after.get((call.name, call.index), set())
    return found


def _taken_otherwise(
    graph: ChannelGraph, units: tuple[np.ndarray, np.ndarray], runs: tuple[LabelledRun, LabelledRun], origin: Ints
) -> set[int]:
    """The units of slices and splits that hold others in the cut model, or in another order.

    What becomes of a slice, a shift to the next frame for example, leaves no trace in the labels.

    Args:
        units: which of them the cut model has, and which of these have labels everywhere, bool (units,). Only the
            latter count in a part that holds entries without a label.
    """
    stays, seen = units
    dense, run = runs
    found: set[int] = set()
    if not dense.evidence.parts:
        return found
    before = dense_units(graph, dense)
    after = {key: origin[labels] for key, labels in run.evidence.parts}
    none = np.zeros(0, dtype=np.int64)
    for key, labels in dense.evidence.parts:
        now = after.get(key, none)
        known = now.size and (now >= 0).all()
        counted = with_fixed(stays if known else seen, False)
        was, now = (held[counted[held]] for held in (before[labels], now))
        if not np.array_equal(was, now):
            found |= {*was.tolist(), *now.tolist()}
        elif not known and _of_other_length(key, before[labels], stays, runs):
            found.update(before[labels].tolist())
    return found


def _of_other_length(key: PartKey, held: Ints, stays: np.ndarray, runs: tuple[LabelledRun, LabelledRun]) -> bool:
    """Whether a slice of the cut model has more or fewer entries than stay of those that the dense model's holds.

    A lone channel has no label, but it is counted. Of slices along joint dimensions, and of entries that belong to no
    unit, nothing is known.
    """
    dense, run = (each.evidence.part_lengths for each in runs)
    if key not in run or dense[key] != len(held) or (held < 0).any():
        return False
    return run[key] != int(stays[held].sum())


def _distinct_units(arrays: Iterable[Ints], wanted: np.ndarray) -> set[int]:
    return {int(unit) for array in arrays for unit in np.unique(array) if unit >= 0 and wanted[unit]}
