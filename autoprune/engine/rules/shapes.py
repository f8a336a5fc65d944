"""Operations that give the same entries another shape, place or company."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod

import numpy as np
from torch import Tensor

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import FIXED, Block, renumber, reshape
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.new_tensors import is_uniform, label_uniform
from autoprune.engine.rules.registry import register


@register("view", "reshape", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten")
def view(flow: Flow, call: Call) -> None:
    """The same entries in another shape."""
    source, out, blocks = call.args[0], call.out, []
    for block in flow.get(source):
        moved, ties = reshape(block, source.shape, out.shape)
        if moved is None:
            flow.freeze(block[1], f"{call.name!r} that labels cannot follow")
            continue
        if ties:
            flow.evidence.split_calls[flow.state.key] = moved[1].reshape(-1, moved[1].shape[-1])
            moved = _split_by_row(flow, moved) if flow.state.key in flow.state.by_row else _split(flow, moved, ties)
        blocks.append(moved)
    for dims, labels in blocks:
        if len(dims) == 1:
            flow.note_lengths(labels)
    flow.set(out, _without_collisions(flow, blocks))


def _split(flow: Flow, moved: Block, ties: Sequence[tuple[Ints, Ints]]) -> Block:
    """Every row loses the same offsets."""
    for a, b in ties:
        flow.tie(a, b, "split")
        flow.labels.unify(a, b)
    rows = moved[1].reshape(-1, moved[1].shape[-1])
    flow.evidence.splits.append((flow.path, rows))
    flow.note_lengths(rows[0])
    return moved


def _split_by_row(flow: Flow, moved: Block) -> Block:
    """Whole rows go: all entries of a row have its label from here on."""
    dims, labels = moved
    rows = labels.reshape(len(labels), -1)
    flow.tie(rows, rows[:, :1], "split")
    flow.evidence.rows.append(rows)
    return dims[:1], rows[:, 0].copy()


def _without_collisions(flow: Flow, blocks: list[Block]) -> list[Block]:
    clean = []
    for i, block in enumerate(blocks):
        others = blocks[:i] + blocks[i + 1 :]
        if any(set(block[0]) & set(other[0]) for other in others):
            flow.freeze(block[1], "two labelled dimensions flattened into one")
        else:
            clean.append(block)
    return clean


@register("as_strided")
def as_strided(flow: Flow, call: Call) -> None:
    """Other strides; with them other entries, unless the shape is the same (pooling to one pixel, channels-last)."""
    source = call.args[0]
    if source.shape == call.out.shape:
        flow.set(call.out, flow.get(source))
    else:
        flow.freeze_all(flow.get(source), "'as_strided' that labels cannot follow")


@register("permute")
def permute(flow: Flow, call: Call) -> None:
    """Dimensions in another order."""
    source = call.args[0]
    order = [d % source.dim() for d in call.args[1]]
    flow.set(call.out, renumber(flow.get(source), {d: i for i, d in enumerate(order)}))


@register("transpose", "t", "numpy_T")
def transpose(flow: Flow, call: Call) -> None:
    """Two dimensions swapped."""
    source = call.args[0]
    a, b = (d % source.dim() for d in call.args[1:3]) if call.name == "transpose" else (0, max(source.dim() - 1, 0))
    mapping = {d: d for d in range(source.dim())} | {a: b, b: a}
    flow.set(call.out, renumber(flow.get(source), mapping))


@register("repeat")
def repeat(flow: Flow, call: Call) -> None:
    """Copies side by side along every dimension, new dimensions in front.

    Of a single entry the copies are all alike and get labels of their own, as those of `expand` do.
    """
    source, times = call.args[0], call.args[1]
    new = len(times) - source.dim()
    blocks = [
        (tuple(d + new for d in dims), np.tile(labels, [times[d + new] for d in dims]))
        for dims, labels in flow.get(source)
    ]
    single = [d for d in range(new, len(times)) if source.shape[d - new] == 1 < times[d]]
    flow.set(call.out, [*blocks, *(((d,), flow.fresh(times[d])) for d in single)])


@register("pixel_shuffle")
def pixel_shuffle(flow: Flow, call: Call) -> None:
    """(…, C r², H, W) -> (…, C, r H, r W): the r² channels that make one new channel are tied."""
    source, dim = call.args[0], call.args[0].dim() - 3
    rows = flow.along(source, dim, "pixel shuffle over a labelled dimension")
    if rows is not None:
        rows = rows.reshape(call.out.shape[dim], -1)
        flow.tie(rows, rows[:, :1], "pixel shuffle over fixed entries")
        flow.set(call.out, [((dim,), rows[:, 0].copy())])


@register("pixel_unshuffle")
def pixel_unshuffle(flow: Flow, call: Call) -> None:
    """(…, C, r H, r W) -> (…, C r², H, W): every channel becomes r² neighbours."""
    source, dim = call.args[0], call.args[0].dim() - 3
    labels = flow.along(source, dim, "pixel unshuffle over a labelled dimension")
    if labels is not None:
        flow.set(call.out, [((dim,), np.repeat(labels, call.args[1] ** 2))])


@register("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(flow: Flow, call: Call) -> None:
    """Channels of `groups` equal parts are interleaved; the parts lose the same offsets."""
    labels = flow.along(call.args[0], 1, "channel shuffle over a labelled dimension")
    if labels is not None:
        parts = labels.reshape(call.args[1], -1)
        flow.tie(parts, parts[:1], "channel shuffle over fixed entries")
        flow.set(call.out, [((1,), parts.T.reshape(-1))])


@register("im2col")
def im2col(flow: Flow, call: Call) -> None:
    """(N, C, H, W) -> (N, C k k', L): every channel becomes its pixels under the kernel."""
    labels = flow.along(call.args[0], 1, "unfold over a labelled dimension")
    if labels is not None:
        flow.set(call.out, [((1,), np.repeat(labels, prod(call.args[1])))])


@register("unfold")
def unfold(flow: Flow, call: Call) -> None:
    """Windows along one dimension, their entries in a new last one: channels there must stay."""
    source = call.args[0]
    dim = call.args[1] % source.dim()
    flow.freeze_all([b for b in flow.get(source) if dim in b[0]], "windows over the channels")
    flow.set(call.out, [b for b in flow.get(source) if dim not in b[0]])


@register("cat", "concat")
def cat(flow: Flow, call: Call) -> None:
    """Labels are concatenated as the tensors are; unlabelled parts are FIXED, but uniform ones fit what they meet."""
    parts = [t for t in call.args[0] if t.numel()] or call.args[0]
    dim = call.arg(1, "dim", 0) % call.out.dim()
    pieces, blocks = [], []
    _label_uniform_parts(flow, parts, dim)
    for part in parts:
        along = [labels for dims, labels in flow.get(part) if dims == (dim,)]
        pieces.append(along[0] if along else np.full(part.shape[dim], FIXED, dtype=np.int64))
        flow.freeze_all(
            [b for b in flow.get(part) if dim in b[0] and b[0] != (dim,)], "concatenated along a joint dimension"
        )
        blocks += [b for b in flow.get(part) if dim not in b[0]]
    blocks = flow.merge(blocks, call.out.shape, "concatenated with a tensor of fixed size")
    for part in (part for part in parts if not is_uniform(flow, part)):
        own = {d for dims, _ in flow.get(part) for d in dims}
        unmatched = [b for b in blocks if not own & set(b[0])]
        flow.freeze_all(unmatched, "concatenated with a tensor of fixed size")
        blocks = [b for b in blocks if own & set(b[0])]
    labels = np.concatenate(pieces)
    flow.note_lengths(labels)
    flow.set(call.out, [*blocks, ((dim,), labels)] if labels.any() else blocks)


def _label_uniform_parts(flow: Flow, parts: Sequence[Tensor], dim: int) -> None:
    """New tensors get labels along the dimension of a concatenation, if it is one of channels as far as that shows."""
    labelled = [dims for part in parts for dims, _ in flow.get(part)]
    new = [part for part in parts if is_uniform(flow, part)]
    if len(new) < len(parts) and (not labelled or any(dim in dims for dims in labelled)):
        for part in new:
            flow.evidence.takes_by_number = True  # how many zeros there are is written in the model's code
            label_uniform(flow, part, dim)
            flow.note_padding([labels for dims, labels in flow.get(part) if dims == (dim,)])


@register("glu")
def glu(flow: Flow, call: Call) -> None:
    """The first half times the sigmoid of the second: both lose the same offsets."""
    source = call.args[0]
    dim = call.arg(1, "dim", -1) % source.dim()
    halves = []
    for dims, labels in flow.get(source):
        parts = np.split(labels, 2, dims.index(dim)) if dim in dims else [labels, labels]
        flow.tie(parts[1], parts[0], "gated by fixed entries")
        halves.append((dims, parts[0]))
    flow.set(call.out, halves)


@register("stack")
def stack(flow: Flow, call: Call) -> None:
    """A new dimension in front of which the tensors meet entry by entry."""
    dim = call.arg(1, "dim", 0) % call.out.dim()
    shape = call.out.shape
    moved = [renumber(flow.get(t), {d: d + (d >= dim) for d in range(t.dim())}) for t in call.args[0]]
    flow.set(
        call.out, flow.merge([b for blocks in moved for b in blocks], shape, "stacked with a tensor of fixed size")
    )


@register("constant_pad_nd")
def pad(flow: Flow, call: Call) -> None:
    """Padding adds entries with labels of their own: whether their number follows the widths, the probe finds out.

    Beside a joint block they are FIXED. Negative padding is a slice.
    """
    source, amounts, blocks = call.args[0], call.args[1], []
    added = [np.full(max(amount, 0), FIXED) for amount in amounts]
    for dims, labels in flow.get(source):
        ends = [2 * (source.dim() - 1 - d) for d in dims]
        around = [(amounts[i], amounts[i + 1]) if i + 1 < len(amounts) else (0, 0) for i in ends]
        if not any(map(any, around)):
            blocks.append((dims, labels))
        elif len(dims) == 1:
            added[ends[0] : ends[0] + 2] = [flow.fresh(max(amount, 0)) for amount in around[0]]
            before, after = added[ends[0] : ends[0] + 2]
            left = labels[max(-around[0][0], 0) : len(labels) - max(-around[0][1], 0)]
            flow.note_part(call.name, dims[0], [(dims, left)], dims[0], len(left))
            blocks.append((dims, np.concatenate([before, left, after])))
            flow.note_lengths(blocks[-1][1])
        elif min(map(min, around)) < 0:
            flow.freeze(labels, "cropped by negative padding")
        else:
            flow.evidence.takes_by_number = True
            blocks.append((dims, np.pad(labels, around, constant_values=FIXED)))
    flow.note_padding(added)
    flow.set(call.out, blocks)


@register("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
def split(flow: Flow, call: Call) -> None:
    """Equal parts are tied, so that a model that computes the part size from the width stays right."""
    source, start = call.args[0], 0
    dim = call.arg(2, "dim", 0) % source.dim()
    equal = len({part.shape[dim] for part in call.out}) == 1 and flow.state.key not in flow.state.uneven
    if not equal:
        flow.state.uneven.add(flow.state.key)
    for dims, labels in flow.get(source):
        if equal and dim in dims:
            parts = np.stack(np.split(labels, len(call.out), dims.index(dim)))
            flow.tie(parts, parts[:1], "split with fixed entries")
        if dims == (dim,):
            parts = tuple(np.split(labels, np.cumsum([part.shape[dim] for part in call.out])[:-1]))
            for lengths in ((labels,), parts, *((part,) for part in parts)):
                flow.note_lengths(*lengths)
    for number, part in enumerate(call.out):
        stop = start + part.shape[dim]
        flow.set(part, _take_entries(flow, call, number, dim, np.arange(start, stop)))
        start = stop


@register("slice")
def slice_(flow: Flow, call: Call) -> None:
    """A range of entries along one dimension."""
    source = call.args[0]
    dim = call.arg(1, "dim", 0) % source.dim()
    start, end, step = call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)
    if (
        not start and (end is None or end == sys.maxsize) and step == 1
    ):  # `x[:]`, which later versions of torch leave out
        flow.set(call.out, flow.get(source))
        return
    index = slice(start, end, step).indices(source.shape[dim])
    for dims, labels in flow.get(source):
        if dims == (dim,):
            for part in (labels, labels[: index[0]], labels[: index[1]]):
                flow.note_lengths(part)
    flow.set(call.out, _take_entries(flow, call, 0, dim, np.arange(*index)))


@register("select")
def select(flow: Flow, call: Call) -> None:
    """One entry along a dimension; which one is written in the model's code, so a labelled dimension is frozen."""
    source = call.args[0]
    dim = call.args[1] % source.dim()
    shift = {d: d - (d > dim) for d in range(source.dim()) if d != dim}
    joint = [b for b in flow.get(source) if dim in b[0] and len(b[0]) > 1]
    alone = [b for b in flow.get(source) if b[0] == (dim,)]
    if alone:  # nothing is frozen by code that only asks for its size, `weight[0].numel()`
        flow.state.positions[id(call.out)] = (alone, "one channel is selected by number")
    taken = [(tuple(d for d in dims if d != dim), np.take(a, call.args[2], dims.index(dim))) for dims, a in joint]
    flow.set(call.out, renumber([*(b for b in flow.get(source) if dim not in b[0]), *taken], shift))


@register("unbind")
def unbind(flow: Flow, call: Call) -> None:
    """All entries of a dimension, as tensors of their own."""
    for i, part in enumerate(call.out):
        select(flow, Call(call.name, call.func, (call.args[0], call.arg(1, "dim", 0), i), {}, part))


def _take_entries(flow: Flow, call: Call, part: int, dim: int, index: Ints) -> list[Block]:
    blocks = flow.get(call.args[0])
    taken = [(dims, np.take(a, index, dims.index(dim)) if dim in dims else a) for dims, a in blocks]
    flow.evidence.slices += [(a, a[index]) for dims, a in blocks if dims == (dim,)]
    flow.note_part(call.name, part, taken, dim, len(index))
    return taken
