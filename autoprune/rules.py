"""How labels go through torch's operations: one rule per aten operation, found by name.

A rule sees the call (`Call`) and tells the `Flow` what the output's labels are, which labels must live together and
which must not be touched. Add a rule for an operation of your own with `register("name")`; an operation without a rule
freezes the channels that reach it, and the graph says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoprune.graph import Ints
from autoprune.labels import FIXED, Block, drop_constant, project, renumber, reshape, spread

#: Name of an operation and how many calls of it there have been before.
CallKey = tuple[str, int]


@dataclass(frozen=True)
class RawOp:
    """A matrix-multiply-like operation as it was met; dims are label arrays, constants hold everything unlabelled.

    `inputs` are the labels that are summed over.
    """

    name: str
    kind: str
    flops: int
    dims: tuple[Ints, ...]
    activations: int
    out_dims: tuple[Ints, ...]
    resolution: int
    inputs: Ints | None = None


@dataclass(frozen=True)
class RawMixer:
    """A call that lets the entries along the dimensions `over` act on each other: the `index`-th of its name."""

    name: str
    index: int
    over: tuple[int, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Ways:
    """How grouped convolutions and norms lose channels.

    Fields:
        whole_groups: whole groups go; else the same offset goes out of every group.
        by_offset: convolutions found to lose offsets. One that a cut leaves with a single input per group looks
            depthwise; the probe, which runs the dense model's `Ways`, knows here that it is not.
        modes: the modes in which the model had to be run: `train` too if parts of it, auxiliary heads, are idle in
            `eval`.
    """

    whole_groups: bool = False
    by_offset: set[str] = field(default_factory=set)
    modes: set[str] = field(default_factory=lambda: {"eval"})


@dataclass
class Flow:
    """What one traced forward pass found out about labels; the tracer owns it, the rules write to it.

    Fields (those that are not plain):
        lengths: (module, labels of parts): the module's code made tensors, or parts, of these lengths.
        known: shape (labels,): equal where a split has tied labels; the other ties are known only in the end.
        roles: labels and the part that the tensor they lie on plays for them (see `graph.Slot`).
        sizes: (module, attribute, labels): the module's attribute of that name counts these entries.
        splits: (module, labels of shape (rows, offsets)): a dimension was split, all rows lose the same offsets.
        numbers: the Python numbers among the arguments of every pointwise call.
        uses: which calls work with what comes straight out of a layer, and its labels: those of the layer's filters.
        biases: labels of filters (or of a norm's scales) and those of the biases that are added to them.
        own: ids of the model's parameters and buffers, and of views of them.
        direct: ids of tensors that come straight out of a layer, views included.
        uniform: ids of tensors whose entries are all alike, fresh from `zeros` and the like.
        parts: ids of views: what is written into them is written into other tensors.
        numbered: whether channels were taken by number somewhere: by slices, splits, padding.
        calls: how often each operation has been called so far.
        path: the module whose forward is running.
    """

    known: Ints
    blocks: dict[int, tuple[Tensor, list[Block]]] = field(default_factory=dict)
    ties: list[Ints] = field(default_factory=list)
    freezes: list[tuple[Ints, str]] = field(default_factory=list)
    roles: list[tuple[Ints, str]] = field(default_factory=list)
    ops: list[RawOp] = field(default_factory=list)
    mixers: list[RawMixer] = field(default_factory=list)
    sizes: list[tuple[str, str, Ints]] = field(default_factory=list)
    splits: list[tuple[str, Ints]] = field(default_factory=list)
    lengths: list[tuple[str, tuple[Ints, ...]]] = field(default_factory=list)
    numbers: dict[CallKey, tuple[float, ...]] = field(default_factory=dict)
    uses: list[tuple[CallKey, list[Block]]] = field(default_factory=list)
    biases: list[tuple[Ints, Ints]] = field(default_factory=list)
    own: set[int] = field(default_factory=set)
    direct: set[int] = field(default_factory=set)
    uniform: set[int] = field(default_factory=set)
    parts: set[int] = field(default_factory=set)
    ways: Ways = field(default_factory=Ways)
    numbered: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    path: str = ""

    def get(self, tensor: object) -> list[Block]:
        """The tensor's labelled dimensions; tensors never seen have none."""
        return self.blocks.get(id(tensor), (None, []))[1]

    def set(self, tensor: object, blocks: Iterable[Block]) -> None:
        """Give a tensor labels. The tensor is kept alive, so that its id stays its own."""
        if isinstance(tensor, Tensor):
            self.blocks[id(tensor)] = (tensor, list(blocks))

    def fresh(self, count: int) -> Ints:
        """New labels that no tensor of the model has."""
        labels = np.arange(len(self.known), len(self.known) + count)
        self.known = np.concatenate([self.known, labels])
        return labels

    def add(self, other: Flow) -> None:
        """What another pass over the same model has found out about its labels; its costs are not counted."""
        self.known = other.known
        self.numbered |= other.numbered
        for mine, others in (
            (self.ties, other.ties),
            (self.freezes, other.freezes),
            (self.roles, other.roles),
            (self.sizes, other.sizes),
            (self.lengths, other.lengths),
        ):
            mine.extend(others)

    def tie(self, a: Ints, b: Ints, why: str) -> None:
        """Entries that meet live and die together; what meets a FIXED entry must stay."""
        if a is b:
            return
        a, b = (x.ravel() for x in ((a, b) if a.shape == b.shape else np.broadcast_arrays(a, b)))
        if (
            np.count_nonzero(a) == np.count_nonzero(b) == a.size
        ):  # nothing is FIXED; `a.all()` takes three times as long
            self.ties.append(np.array([a, b]))
            return
        both = (a != FIXED) & (b != FIXED)
        if both.any():
            self.ties.append(np.stack([a[both], b[both]]))
        self.freeze(np.concatenate([a[~both], b[~both]]), why)

    def repeats(self, labels: Ints, axes: Iterable[int]) -> bool:
        """Whether the labels are known to be the same all along these axes of their array."""
        known = self.known[labels]
        return all((known == np.take(known, [0], axis)).all() for axis in axes)

    def freeze(self, labels: Ints, why: str) -> None:
        """These entries must stay."""
        real = labels[labels != FIXED]
        if real.size:
            self.freezes.append((real.ravel(), f"{why} in {self.path}" if self.path else why))

    def freeze_all(self, blocks: Iterable[Block], why: str) -> None:
        """Freeze every label of the blocks."""
        for _, labels in blocks:
            self.freeze(labels, why)

    def mix(self, name: str, tensor: object, over: Collection[int]) -> None:
        """The tensor's entries along `over` act on each other: how many there are is no longer the channels' affair.

        What a model cut there computes is what the uncut one would compute from the entries that stay; `masking.mask`
        needs to know which these are.
        """
        blocks = tuple(block for block in self.get(tensor) if set(block[0]) & set(over))
        self.sizes.extend((self.path, "normalized_shape", labels) for dims, labels in blocks if dims == tuple(over))
        if blocks:
            self.mixers.append(RawMixer(name, self.calls[name] - 1, tuple(sorted(over)), blocks))

    def along(self, tensor: object, dim: int, why: str) -> Ints | None:
        """The labels along one dimension, or None; blocks on other dimensions, or joint with them, are frozen."""
        found = None
        for dims, labels in self.get(tensor):
            if dims == (dim,):
                found = labels
            else:
                self.freeze(labels, why)
        return found

    def merge(self, blocks: Sequence[Block], shape: Sequence[int], why: str) -> list[Block]:
        """Blocks of tensors that are combined entry by entry: labels on the same dimension are tied, the first stay."""
        result: list[Block] = []
        for block in blocks:
            hits = [other for other in result if set(other[0]) & set(block[0])]
            if not hits:
                result.append(block)
                continue
            if len(block[0]) == 1 and hits[0][0] == block[0]:  # the plain case: two arrays along one dimension
                self.tie(hits[0][1], block[1], why)
                continue
            dims = tuple(sorted({d for own, _ in [*hits, block] for d in own}))
            first, *others = (spread(own, dims, shape) for own in [*hits, block])
            for other in others:
                self.tie(first, other, why)
            result = [other for other in result if not any(other is hit for hit in hits)]
            result.append(drop_constant(dims, np.asarray(first)))
        return result


@dataclass(frozen=True)
class Call:
    """One call of an aten operation: `name` without namespace, overload and in-place underscore."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Argument by position or keyword."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    @property
    def first_out(self) -> Any:
        """The output, or the first of several."""
        return self.out[0] if isinstance(self.out, (tuple, list)) else self.out

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]


OVER_FIXED = "convolution over fixed entries"
Rule = Callable[[Flow, Call], None]
_RULES: dict[str, Rule] = {}


def register(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule for operations of these names, torch's own (`relu`) or others' (`mine::scale_channels`).

    Without overload and in-place underscore. The rule gets `(flow, call)`; it must `flow.set` the labels of every
    output that follows its inputs, `flow.tie` what meets, and `flow.freeze` what it cannot follow.
    """

    def add(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return add


@cache
def operation_name(func: Any) -> str:
    """`aten::relu_.default` -> `relu`; of other libraries with their namespace, `torchvision::roi_align`."""
    space, _, name = func._schema.name.partition("::")
    plain: str = name if name.endswith("__") else name.rstrip("_") if not name.startswith("_") else name
    return plain if space == "aten" else f"{space}::{plain}"


@cache
def _is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags


def apply(flow: Flow, call: Call) -> None:
    """Run the rule of the call: its own, the one of pointwise operations, or freeze."""
    key = (call.name, flow.calls[call.name])
    flow.calls[call.name] += 1
    rule = _RULES.get(call.name)
    if rule is not None:
        rule(flow, call)
    elif _is_pointwise(call.func):
        pointwise(flow, call)
    else:
        unknown(flow, call)
    _follow(flow, call, key)
    if call.func._schema.name.endswith("_") and call.name not in ("zero", "fill"):
        flow.uniform -= {id(call.args[0])} if id(call.args[0]) not in flow.parts else flow.uniform


_VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "select", "slice", "split", "unbind"),
        *("split_with_sizes", "unsqueeze", "squeeze", "clone", "contiguous", "expand", "alias", "detach"),
    ]
)
_WHOLE = frozenset(["detach", "alias", "clone", "contiguous", "view", "unsqueeze", "reshape"])
_LAYERS = frozenset(["convolution", "addmm", "mm", "native_layer_norm", "native_group_norm", "native_batch_norm"])


def _follow(flow: Flow, call: Call, key: CallKey) -> None:
    """Remember what comes straight out of a layer, through views, and which calls then work with it."""
    outs = [out for out in (call.out if isinstance(call.out, (tuple, list)) else [call.out]) if flow.get(out)]
    ids = {id(out) for out in outs}
    if call.name in _VIEWS:
        flow.parts |= {id(out) for out in tree_leaves(call.out) if out is not call.args[0]}
        flow.uniform |= {id(call.out)} if id(call.args[0]) in flow.uniform and call.name in _WHOLE else set()
        flow.direct |= ids if id(call.args[0]) in flow.direct else set()
        flow.own |= ids if id(call.args[0]) in flow.own else set()
    elif call.name in _LAYERS or (call.name == "bmm" and id(call.args[1]) in flow.own):
        flow.direct |= {id(out) for out in outs[:1]}
        _note_use(flow, key, call.args[1:2] if call.name == "addmm" else call.args[:1])
    elif call.name == "add" and id(call.args[0]) in flow.direct and id(call.args[1]) in flow.own:
        flow.direct |= ids
        _note_bias(flow, *call.args[:2])
    else:
        listed = call.args and isinstance(call.args[0], (list, tuple))
        _note_use(flow, key, call.args[0] if listed else call.args)
        if _is_pointwise(call.func):
            numbers = tuple(a for a in (*call.args, *call.kwargs.values()) if type(a) in (int, float))
            flow.numbers |= {key: numbers} if numbers else {}


def _note_use(flow: Flow, key: CallKey, tensors: Iterable[object]) -> None:
    flow.uses.extend((key, flow.get(t)) for t in tensors if isinstance(t, Tensor) and id(t) in flow.direct)


def _note_bias(flow: Flow, x: Tensor, bias: Tensor) -> None:
    """A bias that is added by hand, as attention modules do."""
    for dims, labels in flow.get(bias):
        place = dims[0] + x.dim() - bias.dim()
        filters = next((own for at, own in flow.get(x) if at == (place,)), None)
        if filters is not None and len(dims) == 1:
            flow.roles.append((labels, "bias"))
            flow.biases.append((filters, labels))


def unknown(flow: Flow, call: Call) -> None:
    """No rule: channels that reach this operation stay."""
    for tensor in call.tensors():
        flow.freeze_all(flow.get(tensor), f"no rule for operation {call.name!r}")


# ---- entry by entry ------------------------------------------------------------------------------------------------


@register(
    "hardswish", "prelu", "_prelu_kernel", "log_sigmoid_forward", "fill", "zero", "dropout", "feature_dropout",
    "alpha_dropout", "floor_divide",
)  # fmt: skip
def pointwise(flow: Flow, call: Call) -> None:
    """Entry by entry with broadcasting: channels that meet are tied; a full-size unlabelled partner freezes."""
    combine(flow, call.first_out, call.tensors(), f"meets a tensor of fixed size at {call.name!r}")


def combine(flow: Flow, out: Any, tensors: Sequence[Tensor], why: str) -> None:
    """Give `out` the merged labels of `tensors`, aligned at the last dimension as broadcasting does."""
    if not isinstance(out, Tensor):
        return
    blocks: list[Block] = []
    for tensor in tensors:
        offset = out.dim() - tensor.dim()
        for dims, labels in flow.get(tensor):
            moved = tuple(d + offset for d in dims)
            if any(tensor.shape[d] == 1 != out.shape[m] for d, m in zip(dims, moved, strict=True)):
                flow.freeze(labels, "a single channel spreads over all")
            else:
                blocks.append((moved, labels))
    blocks = flow.merge(blocks, out.shape, why)
    for tensor in tensors:
        unmatched = _unmatched(flow, tensor, out, blocks)
        flow.freeze_all(unmatched, why)  # these stay: from here on they are fixed like what they met
        blocks = [block for block in blocks if not any(block[1] is labels for _, labels in unmatched)]
    flow.set(out, blocks)


def _unmatched(flow: Flow, tensor: Tensor, out: Tensor, blocks: list[Block]) -> list[Block]:
    """The blocks of the output to which this tensor brings entries that differ, but no labels."""
    if id(tensor) in flow.uniform:
        return []
    offset = out.dim() - tensor.dim()
    own = {d + offset for dims, _ in flow.get(tensor) for d in dims}
    full = {d + offset for d, size in enumerate(tensor.shape) if size > 1}
    return [
        (dims, labels)
        for dims, labels in blocks
        if not own & set(dims) and not flow.repeats(labels, [i for i, d in enumerate(dims) if d in full])
    ]


@register(
    "clone", "contiguous", "_to_copy", "alias", "detach", "lift_fresh", "native_dropout", "max_pool2d_with_indices",
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "avg_pool2d", "avg_pool3d", "avg_pool1d",
    "max_pool3d_with_indices", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "_upsample_nearest_exact2d",
    "upsample_nearest1d", "upsample_linear1d", "upsample_nearest3d", "upsample_trilinear3d", "_upsample_bicubic2d_aa",
    "max_unpool2d", "grid_sampler_2d", "grid_sampler", "torchvision::roi_align", "torchvision::roi_pool",
    "reflection_pad1d",
    "replication_pad1d", "reflection_pad2d", "replication_pad2d", "_upsample_bilinear2d_aa",
    "adaptive_avg_pool2d", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "bernoulli",
)  # fmt: skip
def same(flow: Flow, call: Call) -> None:
    """Channel by channel, shape of the channels unchanged; spatial sizes may change, so labels there are frozen."""
    source, out = call.args[0], call.first_out
    kept = [block for block in flow.get(source) if all(source.shape[d] == out.shape[d] for d in block[0])]
    flow.freeze_all([b for b in flow.get(source) if not any(b is k for k in kept)], f"resized by {call.name!r}")
    flow.set(out, kept)


@register("copy")
def copy(flow: Flow, call: Call) -> None:
    """`a.copy_(b)`: a has the entries of b. If a is part of another tensor, these must fit into their place there."""
    target, source = call.args[:2]
    part = id(target) in flow.parts
    combine(flow, call.out, [target, source] if part else [source], "copied into a tensor of fixed size")
    if part and not flow.get(target):
        flow.freeze_all(flow.get(source), "copied into a tensor of fixed size")


@register("expand")
def expand(flow: Flow, call: Call) -> None:
    """New leading dimensions; entries of dimensions of size 1 are repeated as often as what they will meet is long.

    The copies get labels of their own, so that whatever they meet takes them along: `scale.expand_as(x) * x`.
    """
    source, out = call.args[0], call.out
    new = out.dim() - source.dim()
    spread_out = [d for d in range(new, out.dim()) if source.shape[d - new] == 1 != out.shape[d]]
    blocks = [
        (tuple(d + new for d in dims), labels)
        for dims, labels in flow.get(source)
        if not {d + new for d in dims} & set(spread_out)
    ]
    flow.freeze_all([b for b in flow.get(source) if {d + new for d in b[0]} & set(spread_out)], "expanded")
    flow.set(out, [*blocks, *(((d,), flow.fresh(out.shape[d])) for d in spread_out)])


@register("_softmax", "_log_softmax", "_safe_softmax")
def softmax(flow: Flow, call: Call) -> None:
    """Entries along one dimension share a total of 1."""
    flow.mix(call.name, call.args[0], {call.args[1] % call.args[0].dim()})
    flow.set(call.out, flow.get(call.args[0]))


@register("cumsum", "sort", "topk", "flip", "argmax", "argsort", "cumprod", "roll")
def across(flow: Flow, call: Call) -> None:
    """Mixes or reorders entries along a dimension: channels there must stay, others follow."""
    source = call.args[0]
    dims = _dims(
        call.arg({"topk": 2, "roll": 2}.get(call.name, 1), "dims" if call.name in ("flip", "roll") else "dim", -1),
        source,
    )
    blocks = flow.get(source)
    flow.freeze_all([b for b in blocks if set(b[0]) & dims], f"{call.name} over the channels")
    for out in call.out if isinstance(call.out, (tuple, list)) else [call.out]:
        flow.set(out, [b for b in blocks if not set(b[0]) & dims] if out.dim() == source.dim() else [])


def _dims(given: int | Sequence[int] | None, tensor: Tensor) -> set[int]:
    """Dimension numbers as arguments give them -> non-negative; nothing given means all."""
    listed = [given] if isinstance(given, int) else given or range(tensor.dim())
    return {d % max(tensor.dim(), 1) for d in listed}


# ---- shape ---------------------------------------------------------------------------------------------------------


@register("view", "reshape", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten")
def view(flow: Flow, call: Call) -> None:
    """The same entries in another shape."""
    source, out, blocks = call.args[0], call.out, []
    for block in flow.get(source):
        moved, ties = reshape(block, source.shape, out.shape)
        for a, b in ties:
            flow.tie(a, b, "split")
            flow.known[a.ravel()] = flow.known[b.ravel()]
        if ties and moved is not None:
            rows = moved[1].reshape(-1, moved[1].shape[-1])
            flow.splits.append((flow.path, rows))
            flow.lengths.append((flow.path, (rows[0],)))
        if moved is None:
            flow.freeze(block[1], f"{call.name!r} that labels cannot follow")
        else:
            blocks.append(moved)
    flow.lengths.extend((flow.path, (labels,)) for dims, labels in blocks if len(dims) == 1)
    flow.set(out, _without_collisions(flow, blocks))


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
    """Copies side by side along every dimension, new dimensions in front."""
    source, times = call.args[0], call.args[1]
    new = len(times) - source.dim()
    blocks = [
        (tuple(d + new for d in dims), np.tile(labels, [times[d + new] for d in dims]))
        for dims, labels in flow.get(source)
    ]
    flow.set(call.out, blocks)


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


@register("index_select", "gather", "take_along_dim", "scatter", "scatter_add", "index_add", "index_copy")
def picked(flow: Flow, call: Call) -> None:
    """Entries picked by number along one dimension: channels there must stay."""
    source = call.args[0]
    dim = call.args[1] % source.dim()
    blocks = flow.get(source)
    gone = [b for b in blocks if dim in b[0] or any(call.out.shape[d] != source.shape[d] for d in b[0])]
    flow.freeze_all(gone, f"channels are picked by number in {call.name!r}")
    for tensor in call.tensors()[1:]:
        flow.freeze_all(flow.get(tensor), f"no rule for the second tensor of {call.name!r}")
    flow.set(call.out, [b for b in blocks if not any(b is other for other in gone)])


@register("index", "_unsafe_index")
def index(flow: Flow, call: Call) -> None:
    """Advanced indexing: indexed dimensions become those of the index tensors; labels on the others follow."""
    source, indices = call.args[0], call.args[1]
    indexed = [d for d, i in enumerate(indices) if i is not None]
    joined = indexed == list(range(indexed[0], indexed[-1] + 1))
    width = call.out.dim() - (source.dim() - len(indexed))
    rest = [d for d in range(source.dim()) if d not in indexed]
    start = indexed[0] if joined else 0
    places = [i if i < start else i + width for i in range(len(rest))]
    blocks = flow.get(source)
    flow.freeze_all([b for b in blocks if set(b[0]) & set(indexed)], "channels are picked by number in 'index'")
    flow.set(call.out, renumber(blocks, dict(zip(rest, places, strict=True))))


@register("index_put")
def index_put(flow: Flow, call: Call) -> None:
    """`a[i] = b`, whole rows: b's labels meet a's, if a has any or its entries are all alike; else they must stay."""
    target, indices, values = call.args[:3]
    blocks = flow.get(target)
    rows = [d for d, i in enumerate(indices) if i is not None] == [0] and values.dim() == target.dim()
    if rows and (blocks or id(target) in flow.uniform) and not any(0 in b[0] for b in (*blocks, *flow.get(values))):
        flow.set(call.out, flow.merge([*blocks, *flow.get(values)], target.shape, "written over fixed entries"))
        return
    for tensor in call.tensors():
        flow.freeze_all(flow.get(tensor), "written by number in 'index_put'")


@register("embedding")
def embedding(flow: Flow, call: Call) -> None:
    """Rows of the weight (V, D) by number: the D go on."""
    weight, out = call.args[0], call.out
    flow.freeze_all([b for b in flow.get(weight) if 0 in b[0]], "rows are picked by number in 'embedding'")
    flow.set(out, renumber(flow.get(weight), {1: out.dim() - 1}))


@register("cat", "concat")
def cat(flow: Flow, call: Call) -> None:
    """Labels are concatenated as the tensors are; unlabelled parts are FIXED."""
    parts = [t for t in call.args[0] if t.numel()] or call.args[0]
    dim = call.arg(1, "dim", 0) % call.out.dim()
    pieces, blocks = [], []
    for part in parts:
        along = [labels for dims, labels in flow.get(part) if dims == (dim,)]
        pieces.append(along[0] if along else np.full(part.shape[dim], FIXED, dtype=np.int64))
        flow.freeze_all(
            [b for b in flow.get(part) if dim in b[0] and b[0] != (dim,)], "concatenated along a joint dimension"
        )
        blocks += [b for b in flow.get(part) if dim not in b[0]]
    blocks = flow.merge(blocks, call.out.shape, "concatenated with a tensor of fixed size")
    for part in parts:
        own = {d for dims, _ in flow.get(part) for d in dims}
        unmatched = [b for b in blocks if not own & set(b[0])]
        flow.freeze_all(unmatched, "concatenated with a tensor of fixed size")
        blocks = [b for b in blocks if own & set(b[0])]
    labels = np.concatenate(pieces)
    flow.lengths.append((flow.path, (labels,)))
    flow.set(call.out, [*blocks, ((dim,), labels)] if labels.any() else blocks)


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
    """Padding adds FIXED entries: how many is written in the model's code, so what meets them must stay."""
    source, amounts, blocks = call.args[0], call.args[1], []
    flow.numbered |= bool(flow.get(source))
    for dims, labels in flow.get(source):
        last = [2 * (source.dim() - 1 - d) for d in dims]
        around = [(amounts[i], amounts[i + 1]) if i + 1 < len(amounts) else (0, 0) for i in last]
        if any(n < 0 for pair in around for n in pair):
            flow.freeze(labels, "cropped by negative padding")
        else:
            blocks.append((dims, np.pad(labels, around, constant_values=FIXED)))
    flow.set(call.out, blocks)


@register("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
def split(flow: Flow, call: Call) -> None:
    """Equal parts are tied, so that a model that computes the part size from the width stays right."""
    source, start = call.args[0], 0
    dim = call.arg(2, "dim", 0) % source.dim()
    equal = len({part.shape[dim] for part in call.out}) == 1
    for dims, labels in flow.get(source):
        if equal and dim in dims:
            parts = np.stack(np.split(labels, len(call.out), dims.index(dim)))
            flow.tie(parts, parts[:1], "split with fixed entries")
        if dims == (dim,):
            parts = tuple(np.split(labels, np.cumsum([part.shape[dim] for part in call.out])[:-1]))
            flow.lengths += [(flow.path, lengths) for lengths in ((labels,), parts, *((part,) for part in parts))]
    for part in call.out:
        stop = start + part.shape[dim]
        flow.set(part, _taken(flow, flow.get(source), dim, np.arange(start, stop)))
        start = stop


@register("slice")
def slice_(flow: Flow, call: Call) -> None:
    """A range of entries along one dimension."""
    source = call.args[0]
    dim = call.arg(1, "dim", 0) % source.dim()
    index = slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)).indices(source.shape[dim])
    flow.lengths.extend(
        (flow.path, (part,))
        for dims, a in flow.get(source)
        if dims == (dim,)
        for part in (a, a[: index[0]], a[: index[1]])
    )
    flow.set(call.out, _taken(flow, flow.get(source), dim, np.arange(*index)))


@register("select")
def select(flow: Flow, call: Call) -> None:
    """One entry along a dimension; which one is written in the model's code, so a labelled dimension is frozen."""
    source = call.args[0]
    dim = call.args[1] % source.dim()
    shift = {d: d - (d > dim) for d in range(source.dim()) if d != dim}
    joint = [b for b in flow.get(source) if dim in b[0] and len(b[0]) > 1]
    flow.freeze_all([b for b in flow.get(source) if b[0] == (dim,)], "one channel is selected by number")
    taken = [(tuple(d for d in dims if d != dim), np.take(a, call.args[2], dims.index(dim))) for dims, a in joint]
    flow.set(call.out, renumber([*(b for b in flow.get(source) if dim not in b[0]), *taken], shift))


@register("unbind")
def unbind(flow: Flow, call: Call) -> None:
    """All entries of a dimension, as tensors of their own."""
    for i, part in enumerate(call.out):
        select(flow, Call(call.name, call.func, (call.args[0], call.arg(1, "dim", 0), i), {}, part))


def _taken(flow: Flow, blocks: Sequence[Block], dim: int, index: Ints) -> list[Block]:
    flow.numbered |= any(dim in dims for dims, _ in blocks)
    return [(dims, np.take(a, index, dims.index(dim)) if dim in dims else a) for dims, a in blocks]


# ---- reductions and normalisation -----------------------------------------------------------------------------------


@register(
    "mean", "sum", "amax", "amin", "var", "std", "logsumexp", "prod", "linalg_vector_norm", "norm", "var_mean",
    "any", "all",
)  # fmt: skip
def reduce(flow: Flow, call: Call) -> None:
    """What channels are reduced over is mixed; labels on the other dimensions stay."""
    source = call.args[0]
    dims = _dims(call.arg(2 if call.name in ("linalg_vector_norm", "norm") else 1, "dim"), source)
    flow.mix(call.name, source, dims)
    _reduced(flow, call, dims)


@register("max", "min")
def extremum(flow: Flow, call: Call) -> None:
    """Of two tensors: entry by entry. Over a dimension they also return positions, so channels there must stay."""
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        pointwise(flow, call)
        return
    dims = _dims(call.arg(1, "dim"), call.args[0])
    flow.freeze_all([b for b in flow.get(call.args[0]) if set(b[0]) & dims], f"{call.name} over the channels")
    _reduced(flow, call, dims)


def _reduced(flow: Flow, call: Call, dims: set[int]) -> None:
    source = call.args[0]
    kept = [d for d in range(source.dim()) if d not in dims]
    shrunk = call.first_out.dim() < source.dim()
    mapping = {d: i for i, d in enumerate(kept)} if shrunk else {d: d for d in kept}
    for out in call.out if isinstance(call.out, (tuple, list)) else [call.out]:
        flow.set(out, renumber(_beside(flow, flow.get(source), dims), mapping))


def _beside(flow: Flow, blocks: Iterable[Block], dims: set[int]) -> list[Block]:
    """What is left of the blocks once `dims` are reduced away.

    Of a joint block (rows, offsets) whose rows lose the same offsets, reducing the offsets leaves rows that all stay.
    """
    left = []
    for own, labels in blocks:
        rest = tuple(d for d in own if d not in dims)
        if len(rest) == len(own):
            left.append((own, labels))
        elif rest:
            index = tuple(slice(None) if d in rest else slice(0, 1) for d in own)
            if flow.repeats(labels, [own.index(d) for d in own if d in dims]):
                shape = [n for n, d in zip(labels.shape, own, strict=True) if d in rest]
                left.append((rest, labels[index].reshape(shape)))
            else:
                row = labels[tuple(slice(0, 1) if d in rest else slice(None) for d in own)]
                flow.tie(labels, row, "reduced over a joint dimension")
    return left


@register(
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm",
    "batch_norm", "_batch_norm_no_update", "_batch_norm_with_update",
)  # fmt: skip
def batch_norm(flow: Flow, call: Call) -> None:
    """Every channel is normalised by itself: its scale, shift and statistics belong to it."""
    source = call.args[0]
    own = [((1,), labels) for _, labels in _norm_vectors(flow, call.args[1:3])]
    statistics = [((1,), labels) for vector in call.args[3:5] for _, labels in flow.get(vector)]
    if not statistics and call.args[5] is True:  # standardised weights: over the inputs of each filter
        flow.mix(call.name, source, [d for d in range(source.dim()) if d != 1])
    flow.roles.extend((labels, "stat") for _, labels in statistics)
    _note_size(flow, "num_features", source, 1)
    blocks = [*own, *flow.get(source), *statistics]
    flow.set(call.first_out, flow.merge(blocks, source.shape, "normalised with fixed entries"))


def _note_size(flow: Flow, attribute: str, tensor: Tensor, dim: int) -> None:
    flow.sizes.extend((flow.path, attribute, labels) for dims, labels in flow.get(tensor) if dims == (dim,))


@register("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(flow: Flow, call: Call) -> None:
    """Statistics over the last dimensions: those of the entries that stay."""
    source, count = call.args[0], len(call.args[1])
    over = range(source.dim() - count, source.dim())
    flow.mix(call.name, source, over)
    own = [(tuple(d + over.start for d in dims), labels) for dims, labels in _norm_vectors(flow, call.args[2:4])]
    flow.set(call.first_out, flow.merge([*own, *flow.get(source)], source.shape, "normalised with fixed entries"))


def _norm_vectors(flow: Flow, vectors: Sequence[object]) -> list[Block]:
    """The labels of a norm's scales and shifts, with their roles noted."""
    blocks = [block for vector in vectors for block in flow.get(vector)]
    for (_, labels), role in zip(blocks, ("scale", "shift"), strict=False):
        flow.roles.append((labels, role))
    if len(blocks) > 1:
        flow.biases.append((blocks[0][1], blocks[1][1]))
    return blocks


@register("native_group_norm")
def group_norm(flow: Flow, call: Call) -> None:
    """Statistics over the channels of one group at a time: whole groups go, or the same offset of every group."""
    source, groups = call.args[0], call.args[6]
    whole = flow.ways.whole_groups and groups > 1
    if not whole:
        flow.mix(call.name, source, range(1, source.dim()))
    _note_size(flow, "num_channels", source, 1)
    own = [((1,), labels) for _, labels in _norm_vectors(flow, call.args[1:3])]
    merged = flow.merge([*own, *flow.get(source)], source.shape, "normalised with fixed entries")
    for dims, labels in merged:
        if dims == (1,):
            rows = labels.reshape(groups, -1)
            flow.tie(rows, rows[:, :1] if whole else rows[:1], "group norm over fixed entries")
            if whole:
                flow.sizes.append((flow.path, "num_groups", rows[:, 0]))
        elif 1 in dims:
            flow.freeze(labels, "group norm over a joint dimension")
    flow.set(call.first_out, merged)


# ---- operations that cost FLOPs --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Kernel:
    """Labels of a convolution's weight: of dimension 0 and 1, and of the channels that come out.

    None where there is nothing to prune. The weight is (out, in / groups, …), or (in, out / groups, …) if transposed.
    """

    rows: Ints | None
    columns: Ints | None
    groups: int
    transposed: bool

    @property
    def inputs(self) -> Ints | None:
        """Labels of the weight's input dimension."""
        return self.rows if self.transposed else self.columns

    @property
    def filters(self) -> Ints | None:
        """Labels of the weight's output dimension."""
        return self.columns if self.transposed else self.rows


@register("convolution", "_convolution", "convolution_overrideable")
def convolution(flow: Flow, call: Call) -> None:
    """Inputs meet weight dim 1, filters are weight dim 0 (the other way round when transposed); `groups` split both."""
    x, weight, bias = call.args[:3]
    kernel = _kernel(flow, weight, groups=call.args[8], transposed=call.args[6])
    labels = flow.along(x, 1, "convolution over a labelled dimension")
    out = _through_groups(flow, labels, kernel) if kernel.groups > 1 else _through(flow, labels, kernel)
    if out is not None:
        flow.roles.append((out, "out"))
        _tie_bias(flow, bias, out)
        flow.set(call.out, [((1,), out)])
    _record_convolution(flow, call, kernel, out)


def _kernel(flow: Flow, weight: Tensor, *, groups: int, transposed: bool) -> _Kernel:
    blocks = flow.get(weight)
    flow.freeze_all([block for block in blocks if len(block[0]) > 1], "weight with joint dimensions")
    single = {dims[0]: labels for dims, labels in blocks if len(dims) == 1}
    return _Kernel(single.get(0), single.get(1), groups, transposed)


def _through(flow: Flow, x: Ints | None, kernel: _Kernel) -> Ints | None:
    """The labels of the output of a plain convolution."""
    if kernel.inputs is not None:
        flow.roles.append((kernel.inputs, "in"))
    _tie_or_freeze(flow, x, kernel.inputs, OVER_FIXED)
    return kernel.filters


def _through_groups(flow: Flow, x: Ints | None, kernel: _Kernel) -> Ints | None:
    """The labels of the output of a grouped convolution.

    With one input (or, transposed, one output) a group, whole groups go. Else the same offset goes out of every group,
    so that the groups stay equal, unless whole groups are asked for.
    """
    if kernel.rows is None:
        _tie_or_freeze(flow, x, None, OVER_FIXED)
        return None
    rows = kernel.rows.reshape(kernel.groups, -1)
    offsets = None if x is None else x.reshape(kernel.groups, -1)
    single = rows.shape[1] == 1 or kernel.columns is None
    if (single or flow.ways.whole_groups) and flow.path not in flow.ways.by_offset:
        return _whole_groups(flow, offsets, rows, kernel)
    flow.ways.by_offset.add(flow.path)
    flow.tie(rows, rows[:1], OVER_FIXED)
    if kernel.transposed:
        flow.roles.append((kernel.rows, "in"))
        _tie_or_freeze(flow, offsets, rows, OVER_FIXED)
        return np.tile(kernel.columns, kernel.groups)
    if kernel.columns is not None:
        flow.roles.append((kernel.columns, "in"))
        _tie_or_freeze(flow, offsets, kernel.columns[None], OVER_FIXED)
    elif offsets is not None:  # cut to one input a group
        flow.tie(offsets, offsets[:1], OVER_FIXED)
    return kernel.rows


def _whole_groups(flow: Flow, x: Ints | None, rows: Ints, kernel: _Kernel) -> Ints:
    """Everything of a group lives and dies together, its weight's other dimension stays as it is."""
    flow.tie(rows, rows[:, :1], OVER_FIXED)
    if x is None:
        flow.freeze(rows, OVER_FIXED)
    else:
        flow.tie(x, rows[:, :1], OVER_FIXED)
    flow.sizes.append((flow.path, "groups", rows[:, 0]))
    if kernel.columns is not None:
        flow.freeze(kernel.columns, "inside a group of which only the whole can go")
    if not kernel.transposed:
        return rows.reshape(-1)
    per_group = 1 if kernel.columns is None else len(kernel.columns)
    return np.repeat(rows[:, 0], per_group)


def _tie_or_freeze(flow: Flow, x: Ints | None, weight: Ints | None, why: str) -> None:
    if x is not None and weight is not None:
        flow.tie(x, weight, why)
    elif weight is not None:
        flow.freeze(weight, why)
    elif x is not None:
        flow.freeze(x, "meets a weight of fixed size")


def _tie_bias(flow: Flow, bias: Tensor | None, filters: Ints) -> None:
    for _, labels in flow.get(bias):
        flow.roles.append((labels, "bias"))
        flow.biases.append((filters, labels))
        flow.tie(labels, filters, "bias of fixed size")


def _record_convolution(flow: Flow, call: Call, kernel: _Kernel, channels: Ints | None) -> None:
    x, weight, out = call.args[0], call.args[1], call.out
    positions = (x if kernel.transposed else out).shape[2:]
    labelled = [labels for labels in (kernel.filters, kernel.inputs) if labels is not None]
    fixed = weight.shape[0] * weight.shape[1] // prod(len(labels) for labels in labelled)
    flops = 2 * x.shape[0] * prod(positions) * prod(weight.shape[2:]) * fixed
    out_dims = () if channels is None else (channels,)
    activations = out.numel() // prod(len(labels) for labels in out_dims)
    resolution = prod(out.shape[2:])
    flow.ops.append(
        RawOp(flow.path, "convolution", flops, tuple(labelled), activations, out_dims, resolution, kernel.inputs)
    )


@register("mm", "bmm", "addmm", "baddbmm")
def matmul(flow: Flow, call: Call) -> None:
    """(…, m, k) @ (…, k, n) [+ bias]: the k of both meet; m and n go on."""
    *bias, x, w = call.args[: 3 if call.name.startswith(("addm", "badd")) else 2]
    last = x.dim() - 1
    x_factor, k_x, k_w, w_factor = (
        _factor(flow, t, d) for t, d in ((x, last - 1), (x, last), (w, last - 1), (w, last))
    )
    _tie_reduced(flow, x, w)
    _mark_linear(flow, k_w, w_factor)
    carried = [b for b in flow.get(x) if last not in b[0]] + [b for b in flow.get(w) if last - 1 not in b[0]]
    flow.set(call.out, flow.merge(carried, call.out.shape, "meets fixed entries in a matrix product"))
    for tensor in bias:
        if isinstance(tensor, Tensor):
            flow.roles.extend((labels, "bias") for _, labels in flow.get(tensor))
            if w_factor is not None:
                flow.biases.extend((w_factor, labels) for _, labels in flow.get(tensor) if len(labels) == len(w_factor))
            combine(flow, call.out, [call.out, tensor], "bias of fixed size")
    _record_matmul(flow, call, x, w, (x_factor, k_w if k_w is not None else k_x, w_factor))


def _factor(flow: Flow, tensor: Tensor, dim: int) -> Ints | None:
    """The labels along one dimension; jointly labelled rows (heads) are tied, so that one row speaks for all."""
    for dims, labels in flow.get(tensor):
        if dim in dims:
            row = project((dims, labels), dim)
            flow.tie(
                labels, row.reshape([-1 if d == dim else 1 for d in dims]), "matrix product over a joint dimension"
            )
            return row
    return None


def _tie_reduced(flow: Flow, x: Tensor, w: Tensor) -> None:
    """Tie the labels along k, jointly with the batch dimensions that both blocks span (attention heads)."""
    last, why = x.dim() - 1, "matrix product over fixed entries"
    left = [b for b in flow.get(x) if last in b[0]]
    right = [(tuple(last if d == last - 1 else d for d in dims), a) for dims, a in flow.get(w) if last - 1 in dims]
    if not left or not right:
        flow.freeze_all([*left, *right], why)
        return
    dims = tuple(sorted(set(left[0][0]) | set(right[0][0])))
    if any(d == last - 1 for d in dims):
        flow.freeze_all([*left, *right], "matrix product over a joint dimension")
        return
    shape = list(x.shape)
    flow.tie(spread(left[0], dims, shape), spread(right[0], dims, shape), why)


def _mark_linear(flow: Flow, inputs: Ints | None, outputs: Ints | None) -> None:
    for labels, role in ((inputs, "in"), (outputs, "out")):
        if labels is not None:
            flow.roles.append((labels, role))


def _record_matmul(flow: Flow, call: Call, x: Tensor, w: Tensor, factors: tuple[Ints | None, ...]) -> None:
    m, k, n = x.shape[-2], x.shape[-1], w.shape[-1]
    batch = prod(x.shape[:-2])
    fixed = prod(size for size, labels in zip((m, k, n), factors, strict=True) if labels is None)
    dims = tuple(labels for labels in factors if labels is not None)
    outer = (factors[0], factors[2])
    activations = batch * prod(size for size, labels in zip((m, n), outer, strict=True) if labels is None)
    out_dims = tuple(labels for labels in outer if labels is not None)
    flow.ops.append(RawOp(flow.path, "matmul", 2 * batch * fixed, dims, activations, out_dims, 1, factors[1]))


# ---- operations that make tensors of their own ----------------------------------------------------------------------


@register("arange", "empty_strided", "rand", "randn", "linspace", "eye", "sym_size", "sym_numel", "is_same_size")
def fresh(_flow: Flow, _call: Call) -> None:
    """A new tensor without labels: what meets it at full size is frozen there."""


@register("empty", "zeros", "ones", "full", "scalar_tensor", "new_zeros", "new_full", "new_ones", "new_empty")
def uniform(flow: Flow, call: Call) -> None:
    """A new tensor whose entries are all alike: it fits whichever channels it meets, if the code follows the widths."""
    flow.set(call.out, [])
    flow.uniform.add(id(call.out))
