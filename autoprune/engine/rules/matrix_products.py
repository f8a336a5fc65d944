"""Operations that cost FLOPs: convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import Block, project, spread
from autoprune.engine.labels.evidence import LabelledOp
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.elementwise import combine
from autoprune.engine.rules.new_tensors import label_uniform
from autoprune.engine.rules.registry import register

OVER_FIXED = "convolution over fixed entries"


@dataclass(frozen=True, eq=False)
class _Kernel:
    """Labels of a convolution's weight: of dimension 0 and 1, and of the channels that come out.

    None where there is nothing to prune. The weight is (out, in / groups, …), or (in, out / groups, …) if transposed.
    `from_model` says that it is the model's own, no filters that are computed from the inputs.
    """

    rows: Ints | None
    columns: Ints | None
    groups: int
    transposed: bool
    from_model: bool

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
    flow.note_weight(call, 1)
    kernel = _labelled_kernel(flow, weight, groups=call.args[8], transposed=call.args[6])
    label_uniform(flow, x, 1)
    labels = flow.along(x, 1, "convolution over a labelled dimension")
    out = _grouped_outputs(flow, labels, kernel) if kernel.groups > 1 else _plain_outputs(flow, labels, kernel)
    _set_filters(flow, call, kernel, bias, out)
    _record_convolution(flow, call, kernel, out)


@register("torchvision::deform_conv2d")
def deformed_convolution(flow: Flow, call: Call) -> None:
    """A convolution at places that the tensors `offset` and `mask` give; torch counts no FLOPs for it."""
    x, weight, *places, bias = call.args[:5]
    flow.note_weight(call, 1)
    groups, offset_groups = call.args[11:13]
    for tensor in places:
        flow.freeze_all(flow.get(tensor), "places of a deformable convolution")
    kernel = _labelled_kernel(flow, weight, groups=groups, transposed=False)
    labels = flow.along(x, 1, "convolution over a labelled dimension")
    if labels is not None and offset_groups > 1:
        parts = labels.reshape(offset_groups, -1)
        flow.tie(parts, parts[:1], OVER_FIXED)
    out = _grouped_outputs(flow, labels, kernel) if groups > 1 else _plain_outputs(flow, labels, kernel)
    _set_filters(flow, call, kernel, bias, out)
    _append_convolution(flow, call, kernel, out, 0)


def _labelled_kernel(flow: Flow, weight: Tensor, *, groups: int, transposed: bool) -> _Kernel:
    blocks = flow.get(weight)
    flow.freeze_all([block for block in blocks if len(block[0]) > 1], "weight with joint dimensions")
    single = {dims[0]: labels for dims, labels in blocks if len(dims) == 1}
    return _Kernel(single.get(0), single.get(1), groups, transposed, flow.is_weight(weight))


def _mark(flow: Flow, kernel: _Kernel, labels: Ints, role: str) -> None:
    if kernel.from_model:
        flow.note_role(labels, role)


def _plain_outputs(flow: Flow, x: Ints | None, kernel: _Kernel) -> Ints | None:
    """The labels of the output of a plain convolution."""
    if kernel.inputs is not None:
        _mark(flow, kernel, kernel.inputs, "in")
    _tie_or_freeze(flow, x, kernel.inputs, OVER_FIXED)
    return kernel.filters


def _grouped_outputs(flow: Flow, x: Ints | None, kernel: _Kernel) -> Ints | None:
    """The labels of the output of a grouped convolution; None = it has none.

    With one input (or, transposed, one output) a group, whole groups go. Else the same offset goes out of every group,
    so that the groups stay equal, unless whole groups are asked for.
    """
    if kernel.rows is None:
        _tie_or_freeze(flow, x, None, OVER_FIXED)
        return None
    rows = kernel.rows.reshape(kernel.groups, -1)
    offsets = None if x is None else x.reshape(kernel.groups, -1)
    single = rows.shape[1] == 1 or kernel.columns is None
    if (single or flow.state.whole_groups) and flow.path not in flow.state.by_offset:
        return _whole_group_outputs(flow, offsets, rows, kernel)
    flow.state.by_offset.add(flow.path)
    flow.tie(rows, rows[:1], OVER_FIXED)
    if kernel.transposed:
        _mark(flow, kernel, kernel.rows, "in")
        _tie_or_freeze(flow, offsets, rows, OVER_FIXED)
        # None: cut to one output a group, as in a copy that the probe has cut
        return None if kernel.columns is None else np.tile(kernel.columns, kernel.groups)
    if kernel.columns is not None:
        _mark(flow, kernel, kernel.columns, "in")
        _tie_or_freeze(flow, offsets, kernel.columns[None], OVER_FIXED)
    elif offsets is not None:  # cut to one input a group
        flow.tie(offsets, offsets[:1], OVER_FIXED)
    return kernel.rows


def _whole_group_outputs(flow: Flow, x: Ints | None, rows: Ints, kernel: _Kernel) -> Ints:
    """All channels of a group live and die together; the other dimension of its weight stays as it is."""
    if rows.shape[1] > 1:
        flow.tie(rows, rows[:, :1], OVER_FIXED)
    if x is None:
        flow.freeze(rows, OVER_FIXED)
    else:
        flow.tie(x, rows[:, :1], OVER_FIXED)
    flow.note_attribute("groups", rows[:, 0])
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
        flow.note_role(labels, "bias")
        flow.note_bias(filters, labels)
        flow.tie(labels, filters, "bias of fixed size")


def _set_filters(flow: Flow, call: Call, kernel: _Kernel, bias: Tensor | None, out: Ints | None) -> None:
    if out is not None:
        _mark(flow, kernel, out, "out")
        _tie_bias(flow, bias, out)
        flow.set(call.out, [((1,), out)])


def _record_convolution(flow: Flow, call: Call, kernel: _Kernel, channels: Ints | None) -> None:
    x, weight = call.args[:2]
    positions = (x if kernel.transposed else call.out).shape[2:]
    fixed = weight.shape[0] * weight.shape[1] // prod(len(labels) for labels in _labelled(kernel))
    flops = 2 * x.shape[0] * prod(positions) * prod(weight.shape[2:]) * fixed
    _append_convolution(flow, call, kernel, channels, flops)


def _labelled(kernel: _Kernel) -> list[Ints]:
    return [labels for labels in (kernel.filters, kernel.inputs) if labels is not None]


def _append_convolution(flow: Flow, call: Call, kernel: _Kernel, channels: Ints | None, flops: int) -> None:
    out = call.out
    out_dims = () if channels is None else (channels,)
    activations = out.numel() // prod(len(labels) for labels in out_dims)
    resolution = prod(out.shape[2:])
    flow.evidence.ops.append(
        LabelledOp(
            flow.path, "convolution", flops, tuple(_labelled(kernel)), activations, out_dims, resolution, kernel.inputs
        )
    )


@register("mm", "bmm", "addmm", "baddbmm")
def matmul(flow: Flow, call: Call) -> None:
    """(…, m, k) @ (…, k, n) [+ bias]: the k of both meet; m and n go on."""
    *bias, x, w = call.args[: 3 if call.name.startswith(("addm", "badd")) else 2]
    last = x.dim() - 1
    label_uniform(flow, x, last)
    x_factor, k_x, k_w, w_factor = (
        _labels_of_factor(flow, t, d) for t, d in ((x, last - 1), (x, last), (w, last - 1), (w, last))
    )
    _tie_reduced(flow, x, w)
    for argument in (len(bias), len(bias) + 1):
        flow.note_weight(call, argument)
    if flow.is_weight(w):
        _mark_linear(flow, k_w, w_factor)
    elif flow.is_weight(x):  # filters from the left
        _mark_linear(flow, k_x, x_factor)
    carried = [b for b in flow.get(x) if last not in b[0]] + [b for b in flow.get(w) if last - 1 not in b[0]]
    flow.set(call.out, flow.merge(carried, call.out.shape, "meets fixed entries in a matrix product"))
    for tensor in bias:
        if isinstance(tensor, Tensor):
            _note_matmul_bias(flow, tensor, w_factor)
            combine(flow, call.out, [call.out, tensor], "bias of fixed size")
    _record_matmul(flow, call.out, x, w, (x_factor, k_w if k_w is not None else k_x, w_factor))


@register("_cdist_forward", "_euclidean_dist")
def distances(flow: Flow, call: Call) -> None:
    """(…, m, k) and (…, n, k) -> (…, m, n): the k of both meet, and add nothing where they are zero; m and n go on."""
    x, y = call.args[:2]
    last = x.dim() - 1
    left, right = ([block for block in flow.get(tensor) if last in block[0]] for tensor in (x, y))
    _tie_or_freeze_blocks(flow, left, right, x.shape, "distance from fixed entries")
    carried = [block for block in flow.get(x) if last not in block[0]]
    carried += [
        (tuple(last if d == last - 1 else d for d in dims), labels) for dims, labels in flow.get(y) if last not in dims
    ]
    flow.set(call.out, flow.merge(carried, call.out.shape, "meets fixed entries in distances"))


@register("mv", "dot", "vdot")
def product_with_vector(flow: Flow, call: Call) -> None:
    """(m, k) @ (k) or (k) @ (k): the k of both meet, m goes on; torch counts no FLOPs for it."""
    x, vector = call.args[:2]
    last, why = x.dim() - 1, "product with a fixed vector"
    left = [(dims, labels) for dims, labels in flow.get(x) if last in dims]
    right = [((last,), labels) for _, labels in flow.get(vector)]
    if left and right:
        flow.tie(spread(left[0], left[0][0], x.shape), spread(right[0], left[0][0], x.shape), why)
    else:
        flow.freeze_all([*left, *right], why)
    flow.set(call.out, [block for block in flow.get(x) if last not in block[0]])


def _note_matmul_bias(flow: Flow, bias: Tensor, filters: Ints | None) -> None:
    for _, labels in flow.get(bias):
        flow.note_role(labels, "bias")
        if filters is not None and len(labels) == len(filters):
            flow.note_bias(filters, labels)


def _labels_of_factor(flow: Flow, tensor: Tensor, dim: int) -> Ints | None:
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
    _tie_or_freeze_blocks(flow, left, right, x.shape, why)


def _tie_or_freeze_blocks(flow: Flow, left: list[Block], right: list[Block], shape: Sequence[int], why: str) -> None:
    """Tie the labels of two tensors of that shape along its last dimension, which is summed over."""
    if not left or not right:
        flow.freeze_all([*left, *right], why)
        return
    dims = tuple(sorted(set(left[0][0]) | set(right[0][0])))
    if any(d == len(shape) - 2 for d in dims):
        flow.freeze_all([*left, *right], "matrix product over a joint dimension")
        return
    flow.tie(spread(left[0], dims, shape), spread(right[0], dims, shape), why)


def _mark_linear(flow: Flow, inputs: Ints | None, outputs: Ints | None) -> None:
    for labels, role in ((inputs, "in"), (outputs, "out")):
        if labels is not None:
            flow.note_role(labels, role)


def _record_matmul(flow: Flow, out: Tensor, x: Tensor, w: Tensor, factors: tuple[Ints | None, ...]) -> None:
    m, k, n = x.shape[-2], x.shape[-1], w.shape[-1]
    many = [labels.ravel() for dims, labels in flow.get(out) if max(dims) < out.dim() - 2]  # one product per channel
    batch = prod(x.shape[:-2]) // prod(len(labels) for labels in many)
    fixed = prod(size for size, labels in zip((m, k, n), factors, strict=True) if labels is None)
    dims = (*many, *(labels for labels in factors if labels is not None))
    outer = (factors[0], factors[2])
    activations = batch * prod(size for size, labels in zip((m, n), outer, strict=True) if labels is None)
    out_dims = (*many, *(labels for labels in outer if labels is not None))
    flow.evidence.ops.append(
        LabelledOp(flow.path, "matmul", 2 * batch * fixed, dims, activations, out_dims, 1, factors[1])
    )
