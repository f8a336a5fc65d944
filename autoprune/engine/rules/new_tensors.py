"""New tensors whose entries are all alike, and what is then written into parts of them.

Zeros of the shape of a layer's outputs fit whichever channels they meet, as long as the model's code follows the
widths, which the probe finds out. They get labels of their own only where labelled entries are put beside them or
written into a part of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from autoprune.engine.graph import Ints
from autoprune.engine.labels.flow import Call, Flow

#: In-place operations that write the same, or noise, everywhere.
_ALIKE = frozenset(
    ["zero", "fill", "bernoulli", "uniform", "normal", "random", "exponential", "cauchy", "geometric", "log_normal"]
)

#: Views whose dimensions are those of what they are taken from, but one at most that is gone.
_PARTS = frozenset(["slice", "select", "split", "split_with_sizes", "unbind", "detach", "alias", "narrow"])


class Part(NamedTuple):
    """A view of a new tensor: `dims[d]` is the tensor's dimension behind dimension d, `entries` what it has of each."""

    whole: Tensor
    dims: tuple[int, ...]
    entries: tuple[Ints, ...]
    view: Tensor


def is_uniform(flow: Flow, tensor: object) -> bool:
    """Whether all entries are alike, or random, so that none is bound to a place."""
    return id(tensor) in flow.state.uniform


def follow_views(flow: Flow, call: Call) -> None:
    """What is taken from a uniform tensor is uniform; parts of new tensors are remembered."""
    source, state = call.args[0], flow.state
    views = [out for out in call.outputs if out is not source]
    if is_uniform(flow, source):
        state.uniform |= {id(view) for view in views}
    parent = state.parts.get(id(source)) or (_whole(source) if is_uniform(flow, source) else None)
    if parent is None or call.name not in _PARTS:
        return
    state.parts[id(source)] = parent
    start = 0
    for place, view in enumerate(views):
        taken = _taken(call, view, start, place)
        state.parts[id(view)] = _part_of(parent, view, *taken)
        start += len(taken[1])


def _whole(tensor: Tensor) -> Part:
    return Part(tensor, tuple(range(tensor.dim())), tuple(np.arange(size) for size in tensor.shape), tensor)


def _taken(call: Call, view: Tensor, start: int, place: int) -> tuple[int, Ints]:
    """Along which dimension of its source the call takes which entries."""
    source = call.args[0]
    if not source.dim() or call.name in ("detach", "alias"):
        return 0, np.arange(source.shape[0] if source.dim() else 0)
    dim = call.arg({"split": 2, "split_with_sizes": 2}.get(call.name, 1), "dim", 0) % source.dim()
    size = source.shape[dim]
    if call.name == "slice":
        return dim, np.arange(size)[slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1))]
    if call.name in ("select", "unbind"):
        return dim, np.array([call.args[2] % size if call.name == "select" else place])
    return dim, np.arange(start, start + view.shape[dim])


def _part_of(parent: Part, view: Tensor, dim: int, taken: Ints) -> Part:
    at = parent.dims[dim] if parent.dims else 0
    entries = tuple(own[taken] if d == at else own for d, own in enumerate(parent.entries))
    gone = view.dim() < len(parent.dims)
    return Part(parent.whole, tuple(d for i, d in enumerate(parent.dims) if not (gone and i == dim)), entries, view)


def label_written(flow: Flow, target: Tensor, source: Tensor) -> None:
    """Before labelled entries go into a part of a new tensor: it gets labels along their dimensions, new ones."""
    if id(target) not in flow.state.parts:
        return
    for dims, _ in flow.get(source):
        places = [d + target.dim() - source.dim() for d in dims]
        if len(places) == 1:
            label_uniform(flow, target, places[0])


def label_uniform(flow: Flow, tensor: Tensor, dim: int) -> None:
    """Before a new tensor, or a part of one, meets weights along a dimension: it gets labels there if it has none."""
    part = flow.state.parts.get(id(tensor)) or (_whole(tensor) if is_uniform(flow, tensor) else None)
    if part is not None and tensor.shape[dim] > 1 and len(part.dims) == tensor.dim():
        _label_dimension(flow, part, part.dims[dim])


def _label_dimension(flow: Flow, part: Part, dim: int) -> None:
    whole = part.whole
    if any(dim in dims for dims, _ in flow.get(whole)):
        return
    labels = flow.fresh(whole.shape[dim])
    flow.evidence.lengths.append((flow.state.made_in.get(id(whole), flow.path), (labels,)))
    flow.evidence.takes_by_number |= len(part.entries[dim]) < len(labels)
    for other in _parts_of(flow, whole):
        place = other.dims.index(dim) if dim in other.dims else None
        if place is not None and other.view.shape[place] > 1:
            _add_labels(flow, other.view, place, labels[other.entries[dim]])


def _parts_of(flow: Flow, whole: Tensor) -> list[Part]:
    return [part for part in flow.state.parts.values() if part.whole is whole] or [_whole(whole)]


def _add_labels(flow: Flow, view: Tensor, dim: int, labels: Ints) -> None:
    blocks = flow.get(view)
    for dims, own in blocks:
        if dims == (dim,):
            flow.tie(own, labels, "written into a tensor of fixed size")
        elif dim in dims:
            flow.freeze(own, "written into a new tensor along a joint dimension")
    if not any(dim in dims for dims, _ in blocks):
        flow.set(view, [*blocks, ((dim,), labels)])


def note_written(flow: Flow, call: Call) -> None:
    """After an in-place operation: what it wrote lies in the whole tensor too, whose entries may differ now."""
    state, written = flow.state, call.args[0]
    if _stays_alike(flow, call):
        return
    part = state.parts.get(id(written))
    if part is not None:
        label_written(flow, written, written)
        state.uniform -= {id(other.view) for other in _parts_of(flow, part.whole)}
    elif id(written) in state.views:
        state.uniform.clear()
    else:
        state.uniform.discard(id(written))


def _stays_alike(flow: Flow, call: Call) -> bool:
    written, others = call.args[0], call.tensors[1:]
    part = flow.state.parts.get(id(written))
    whole = id(written) not in flow.state.views if part is None else written.numel() == part.whole.numel()
    uniform = is_uniform(flow, written) and all(is_uniform(flow, t) or t.dim() == 0 for t in others)
    return whole and (call.name in _ALIKE or uniform)


def follow_uniform(flow: Flow, call: Call) -> None:
    """What is computed entry by entry from uniform tensors alone is uniform."""
    tensors = call.tensors
    if any(is_uniform(flow, t) for t in tensors) and all(is_uniform(flow, t) or t.dim() == 0 for t in tensors):
        flow.state.uniform |= set(map(id, call.outputs))


def mark_uniform(flow: Flow, tensor: Any) -> None:
    """Take a new tensor as one whose entries are all alike."""
    flow.set(tensor, [])
    flow.state.uniform.add(id(tensor))
    flow.state.made_in[id(tensor)] = flow.path
