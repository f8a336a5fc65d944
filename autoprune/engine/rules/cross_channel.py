"""Operations in which entries act on each other: reductions, norms, softmax."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from autoprune.engine.labels.blocks import Block, renumber
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.along_dimensions import listed_dims
from autoprune.engine.rules.elementwise import pointwise
from autoprune.engine.rules.registry import register


@register("_softmax", "_log_softmax", "_safe_softmax")
def softmax(flow: Flow, call: Call) -> None:
    """Entries along one dimension share a total of 1."""
    flow.mix(call.name, call.args[0], {call.args[1] % call.args[0].dim()})
    flow.set(call.out, flow.get(call.args[0]))


@register("cumsum", "sort", "topk", "flip", "argsort", "cumprod", "roll")
def mix_or_reorder(flow: Flow, call: Call) -> None:
    """Mixes or reorders entries along a dimension: channels there must stay, others follow."""
    source = call.args[0]
    dims = listed_dims(
        call.arg({"topk": 2, "roll": 2}.get(call.name, 1), "dims" if call.name in ("flip", "roll") else "dim", -1),
        source,
    )
    blocks = flow.get(source)
    flow.freeze_all([b for b in blocks if set(b[0]) & dims], f"{call.name} over the channels")
    for out in call.out if isinstance(call.out, (tuple, list)) else [call.out]:
        flow.set(out, [b for b in blocks if not set(b[0]) & dims] if out.dim() == source.dim() else [])


@register(
    "mean", "sum", "amax", "amin", "var", "std", "logsumexp", "prod", "linalg_vector_norm", "norm", "var_mean",
    "any", "all", "std_mean", "nansum", "aminmax", "count_nonzero",
)  # fmt: skip
def reduce(flow: Flow, call: Call) -> None:
    """Channels along the reduced dimensions are mixed; labels on the other dimensions stay."""
    source = call.args[0]
    place = {"linalg_vector_norm": 2, "norm": 2, "aminmax": 9}.get(call.name, 1)
    dims = listed_dims(call.arg(place, "dim"), source)
    flow.mix(call.name, source, dims)
    _set_reduced_labels(flow, call, dims)


@register("max", "min", "median", "nanmedian", "mode")
def extremum(flow: Flow, call: Call) -> None:
    """Of two tensors: entry by entry. Over a dimension: a reduction, with the positions of what was taken beside it.

    Positions of channels mean others once some are gone, so who reads them holds the channels fast.
    """
    source = call.args[0]
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        pointwise(flow, call)
        return
    dims = listed_dims(call.arg(1, "dim", -1 if call.name == "mode" else None), source)
    flow.mix(call.name, source, dims)
    _set_reduced_labels(flow, call, dims)
    if isinstance(call.out, (tuple, list)):
        over = [block for block in flow.get(source) if set(block[0]) & dims]
        flow.state.positions[id(call.out[1])] = (over, f"{call.name} over the channels, whose positions are used")


def _set_reduced_labels(flow: Flow, call: Call, dims: set[int]) -> None:
    source = call.args[0]
    kept = [d for d in range(source.dim()) if d not in dims]
    shrunk = call.first_out.dim() < source.dim()
    mapping = {d: i for i, d in enumerate(kept)} if shrunk else {d: d for d in kept}
    for out in call.out if isinstance(call.out, (tuple, list)) else [call.out]:
        flow.set(out, renumber(_blocks_beside(flow, flow.get(source), dims), mapping))


def _blocks_beside(flow: Flow, blocks: Iterable[Block], dims: set[int]) -> list[Block]:
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
    for _, labels in statistics:
        flow.note_role(labels, "stat")
    _note_channel_count(flow, "num_features", source)
    blocks = [*own, *flow.get(source), *statistics]
    flow.set(call.first_out, flow.merge(blocks, source.shape, "normalised with fixed entries"))


def _note_channel_count(flow: Flow, attribute: str, tensor: Tensor) -> None:
    for dims, labels in flow.get(tensor):
        if dims == (1,):
            flow.note_attribute(attribute, labels)


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
        flow.note_role(labels, role)
    if len(blocks) > 1:
        flow.note_bias(blocks[0][1], blocks[1][1])
    return blocks


@register("native_group_norm")
def group_norm(flow: Flow, call: Call) -> None:
    """Statistics over the channels of one group at a time: whole groups go, or the same offset of every group."""
    source, groups = call.args[0], call.args[6]
    whole = flow.state.whole_groups and groups > 1
    if not whole:
        flow.mix(call.name, source, range(1, source.dim()))
    _note_channel_count(flow, "num_channels", source)
    own = [((1,), labels) for _, labels in _norm_vectors(flow, call.args[1:3])]
    merged = flow.merge([*own, *flow.get(source)], source.shape, "normalised with fixed entries")
    for dims, labels in merged:
        if dims == (1,):
            rows = labels.reshape(groups, -1)
            flow.tie(rows, rows[:, :1] if whole else rows[:1], "group norm over fixed entries")
            if whole:
                flow.note_attribute("num_groups", rows[:, 0])
        elif 1 in dims:
            flow.freeze(labels, "group norm over a joint dimension")
    flow.set(call.first_out, merged)
