"""Labels that the model's code takes as one width although nothing ties them: which to tie so that they go together.

Attention code often takes the width of a head from that of the stream: head = stream // heads. Then neither can be cut
alone. Where a stream of h d channels goes into a layer whose outputs are split into heads of d, the stream is taken as
h heads as well, and offset i of every head becomes one unit with them. And one attribute may count the filters of
several layers, `inter_channels` those of all three of a non-local block: unit i of each goes with those of the others.
Slices whose bounds are computed from the width, [:, : c // 8], move unless all of them lose the same share. And code
may view or split one layer's outputs by the width of another's, `reduce(x).reshape(n, x.shape[1], -1)`.
All this makes units coarse, so it is done only where the groups in question fail alone and do not fail linked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd, lcm

import numpy as np

from autoprune.engine.graph import Ints
from autoprune.engine.labels.evidence import Evidence
from autoprune.engine.tracing.size_attributes import Attributes, lengths_by_attribute

#: Pairs of labels to tie, shape (2, n).
Link = Ints


def head_links(evidence: Evidence) -> list[Link]:
    """Stream and heads of every layer whose outputs are split into heads."""
    makers = [op for op in evidence.ops if op.out_dims and op.inputs is not None]
    source = {int(op.out_dims[0].flat[0]): op.inputs for op in reversed(makers)}  # the first to put these labels out
    links = []
    for _, rows in evidence.splits:
        stream, width = source.get(int(rows.flat[0])), rows.shape[-1]
        if stream is not None and stream.size % width == 0 and stream.all() and rows.all():
            heads = stream.reshape(-1, width)
            links.append(np.stack([heads.ravel(), np.broadcast_to(rows[0], heads.shape).ravel()]))
    return links


def attribute_links(attributes: Attributes, evidence: Evidence, unit_of_label: Ints) -> Mapping[tuple[str, str], Link]:
    """(module, attribute) -> what would make it count one width, of the attributes that count different ones so far."""
    links: dict[tuple[str, str], Link] = {}
    for key, candidates in lengths_by_attribute(attributes, evidence).items():
        first, *others = (labels.ravel() for labels in candidates)
        owned = [labels for labels in others if (unit_of_label[labels] >= 0).any()]
        pairs = [np.stack([first, labels]) for labels in owned]
        pairs = [pair[:, (pair != 0).all(axis=0)] for pair in pairs]
        joined = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
        if (unit_of_label[joined[0]] != unit_of_label[joined[1]]).any():
            links[key] = joined
    return links


def width_links(evidence: Evidence, unit_of_label: Ints) -> dict[str, list[Link]]:
    """Module -> links of all lengths that its code splits by to another width inside it that is as large: alternatives.

    The widths that layers read come first, in the order of the pass: most code asks its input for its width.
    """
    links: dict[str, dict[bytes, list[Link]]] = {}
    for path, part in dict.fromkeys((path, part.tobytes()) for path, parts in evidence.lengths for part in parts):
        length = np.frombuffer(part, dtype=np.int64)
        units = unit_of_label[length]
        for width in _widths_within(path, evidence) if (units >= 0).all() else ():
            others = unit_of_label[width]
            if width.size == length.size and (others >= 0).all() and not np.isin(others, units).any():
                links.setdefault(path, {}).setdefault(others.tobytes(), []).append(np.stack([length, width]))
    return {path: [np.concatenate(parts, axis=1) for parts in found.values()] for path, found in links.items()}


def _widths_within(path: str, evidence: Evidence) -> list[Ints]:
    """The widths that the operations in a module read, then those that they put out."""
    inside = [op for op in evidence.ops if not path or op.name == path or op.name.startswith(f"{path}.")]
    read = [op.inputs.ravel() for op in inside if op.inputs is not None]
    return [*read, *(labels.ravel() for op in inside for labels in op.out_dims)]


def slice_links(evidence: Evidence, finest: bool) -> list[Link]:
    """What makes all slices of a dimension lose the same share, and what is padded in front the same as behind.

    A width of 32 that is taken in slices of 4, 4 and 24 becomes 4 units: of an entry, an entry, and six. Where the
    sizes are no multiples of the smallest, there are several ways: as many units as the smallest part has entries, what
    is over in the others left alone (`finest`); or as many as the sizes have for greatest common divisor.
    """
    sliced = _sliced_dimensions(evidence)
    links = [_repeated_steps(whole, step) for whole, _, step in sliced if step > 1]
    paddings = [[labels for labels in parts if labels.any()] for _, parts in evidence.paddings]
    for parts in (*(np.split(whole, sorted(stops)) for whole, stops, _ in sliced), *paddings):
        sizes = [part.size for part in parts]
        units = min(sizes) if finest else gcd(*sizes)
        if len(parts) > 1 and units > 1:
            links.append(_runs_of_parts(parts, units))
    return [link for link in links if link.all()]


def sliced_dimensions(evidence: Evidence) -> list[tuple[Ints, int]]:
    """The labels along every dimension that is sliced somewhere inside, and where the last slice begins or ends."""
    return [(whole, max(stops)) for whole, stops, _ in _sliced_dimensions(evidence) if stops]


def _sliced_dimensions(evidence: Evidence) -> list[tuple[Ints, set[int], int]]:
    """The labels along every dimension that is sliced and is no slice itself, where its slices begin and end, the step.

    Of several steps it is the least that all are divisors of.
    """
    place: dict[int, tuple[int, int]] = {}
    found: list[tuple[Ints, set[int], int]] = []
    for whole, part in evidence.slices:
        if not part.size:
            continue
        if int(whole[0]) not in place:
            place.update({label: (len(found), i) for i, label in enumerate(whole.tolist())})
            found.append((whole, set(), 1))
        number, start = place.get(int(part[0]), (0, 0))
        labels, stops, steps = found[number]
        step = place.get(int(part[1]), (0, 0))[1] - start if part.size > 1 else 1
        if step > 1:
            found[number] = (labels, stops, lcm(steps, step))
        elif np.array_equal(labels[start : start + part.size], part):
            stops |= {start, start + part.size} - {0, labels.size}
    return found


def _repeated_steps(whole: Ints, step: int) -> Link:
    rows = whole[: whole.size // step * step].reshape(-1, step)
    return np.stack([np.broadcast_to(rows[:, :1], rows.shape).ravel(), rows.ravel()])


def _runs_of_parts(parts: Sequence[Ints], units: int) -> Link:
    """Units that consist of a run of every part, the longer the larger the part is; what is over is left alone."""
    rows = np.concatenate([part[: part.size // units * units].reshape(units, -1) for part in parts], axis=1)
    return np.stack([np.broadcast_to(rows[:, :1], rows.shape).ravel(), rows.ravel()])
