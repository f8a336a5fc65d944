"""Operations channel by channel that change the other dimensions: pooling, padding, resizing, unfolding, sampling."""

from __future__ import annotations

import re
from math import prod

from torch import Tensor

from autoprune.engine.labels.blocks import Block
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.elementwise import blocks_met_unlabelled
from autoprune.engine.rules.new_tensors import is_uniform, mark_uniform
from autoprune.engine.rules.registry import register


@register(
    "clone", "contiguous", "_to_copy", "alias", "detach", "lift", "lift_fresh", "_pin_memory", "_conj_physical",
    "native_dropout", "_fused_dropout", "bernoulli", "poisson",
    "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "avg_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "fractional_max_pool2d",
    "fractional_max_pool3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "_upsample_lanczos2d_aa",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d",
)  # fmt: skip
def keep_channels(flow: Flow, call: Call) -> None:
    """Channel by channel, shape of the channels unchanged; labels of dimensions that are sampled are frozen.

    A second output (the places of maxima inside a channel, the mask of a dropout) has the channels of the first.
    """
    source, out = call.args[0], call.first_out
    sampled = {d for d in range(source.dim()) if source.shape[d] != out.shape[d]} | _sampled_dims(call)
    kept = [block for block in flow.get(source) if not sampled & set(block[0])]
    flow.freeze_all([b for b in flow.get(source) if not any(b is k for k in kept)], f"resized by {call.name!r}")
    if is_uniform(flow, source):
        mark_uniform(flow, out)
    for tensor in call.out if isinstance(call.out, (tuple, list)) else [out]:
        flow.set(tensor, kept if tensor.shape == out.shape else [])


def _sampled_dims(call: Call) -> set[int]:
    """The dimensions along which a pooling or resizing lets entries act on each other, although sizes may be as before.

    Padding that leaves a size as it is adds nothing there.
    """
    found = re.search(r"pool(\d)d|upsample_\w+?(\d)d", call.name)
    if found is None:
        return set()
    count, first = int(found[1] or found[2]), call.args[0].dim()
    return {first - count + i for i in range(count)} - _dims_of_unit_windows(call, first - count)


def _dims_of_unit_windows(call: Call, first: int) -> set[int]:
    """Of a pooling whose windows have sizes in its arguments: where they hold one entry, and every entry has one."""
    if not call.name.startswith(("avg_pool", "max_pool")):
        return set()
    sizes = list(call.args[1])
    strides = list(call.arg(2, "stride") or sizes)
    return {first + i for i, size in enumerate(sizes) if size == strides[i % len(strides)] == 1}


@register("max_unpool2d", "max_unpool3d")
def unpool(flow: Flow, call: Call) -> None:
    """Values go to the places that the second tensor says: channel by channel, so both must have the same channels."""
    values, places = call.args[:2]
    why = "unpooled by places of fixed channels"
    blocks = flow.merge([*flow.get(values), *flow.get(places)], values.shape, why)
    resized = [block for block in blocks if any(values.shape[d] != call.out.shape[d] for d in block[0])]
    unmatched = [b for tensor in (values, places) for b in blocks_met_unlabelled(flow, tensor, values, blocks)]
    flow.freeze_all([*resized, *unmatched], why)
    flow.set(call.out, [b for b in blocks if not any(b is other for other in (*resized, *unmatched))])


@register("avg_pool2d", "avg_pool3d")
def average_pool(flow: Flow, call: Call) -> None:
    """Windows of pixels; or of channels, for local response normalisation: each then depends on its neighbours.

    A cut model's neighbours are those that stay. A window belongs to the channel in its middle.
    """
    source, blocks = call.args[0], flow.get(call.args[0])
    window = channel_window(call)
    if window is None or not any(dims == (window[0],) for dims, _ in blocks):
        keep_channels(flow, call)
        return
    dim, size = window
    flow.mix(call.name, source, {dim})
    middles = slice(size // 2, size // 2 + call.out.shape[dim])
    moved: list[Block] = [(dims, labels[middles] if dims == (dim,) else labels) for dims, labels in blocks]
    flow.freeze_all([b for b in blocks if dim in b[0] and b[0] != (dim,)], f"resized by {call.name!r}")
    flow.set(call.out, [block for block in moved if dim not in block[0] or block[0] == (dim,)])


def channel_window(call: Call) -> tuple[int, int] | None:
    """(dimension, size) if the windows of a pooling reach along one dimension only, by steps of 1, without padding."""
    source, sizes = call.args[0], list(call.args[1])
    strides = list(call.arg(2, "stride") or sizes)
    wide = [place for place, size in enumerate(sizes) if size > 1]
    paddings = call.arg(3, "padding", 0)
    if len(wide) != 1 or strides[wide[0]] != 1 or any([paddings] if isinstance(paddings, int) else paddings):
        return None
    return source.dim() - len(sizes) + wide[0], sizes[wide[0]]


@register("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "torchvision::roi_align", "torchvision::roi_pool")
def sample_places(flow: Flow, call: Call) -> None:
    """Pixels at the places that the second tensor gives: its coordinates must stay."""
    flow.freeze_all(flow.get(call.args[1]), f"coordinates in {call.name!r}")
    keep_channels(flow, call)


@register("col2im")
def fold(flow: Flow, call: Call) -> None:
    """(N, C k k', L) -> (N, C, H, W): the pixels under the kernel of every channel are put in their places."""
    source, dim = call.args[0], call.args[0].dim() - 2
    labels = flow.along(source, dim, "fold over a labelled dimension")
    if labels is not None:
        rows = labels.reshape(-1, prod(call.args[2]))
        flow.tie(rows, rows[:, :1], "fold over fixed entries")
        flow.set(call.out, [((call.out.dim() - 3,), rows[:, 0].copy())])


@register("torchvision::nms", "torchvision::box_iou_rotated")
def boxes(flow: Flow, call: Call) -> None:
    """Boxes are compared: their coordinates and scores must stay."""
    for tensor in call.args:
        if isinstance(tensor, Tensor):
            flow.freeze_all(flow.get(tensor), f"coordinates and scores in {call.name!r}")
