"""Operations that work entry by entry, and new tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from autoprune.engine.labels.blocks import Block
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.new_tensors import is_uniform, label_written, mark_uniform
from autoprune.engine.rules.registry import register


@register(
    "hardswish", "prelu", "_prelu_kernel", "log_sigmoid_forward", "fill", "zero", "dropout", "feature_dropout",
    "alpha_dropout", "floor_divide", "rrelu_with_noise", "bucketize", "isin",
)  # fmt: skip
def pointwise(flow: Flow, call: Call) -> None:
    """Entry by entry with broadcasting: channels that meet are tied; a full-size unlabelled partner freezes."""
    combine(flow, call.first_out, call.tensors, f"meets a tensor of fixed size at {call.name!r}")


def combine(flow: Flow, out: Any, tensors: Sequence[Tensor], why: str) -> None:
    """Give `out` the merged labels of `tensors`, aligned at the last dimension as broadcasting does."""
    if not isinstance(out, Tensor):
        return
    if len(tensors) == 1 and tensors[0].shape == out.shape:  # nothing meets anything
        flow.set(out, flow.get(tensors[0]))
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
        unmatched = blocks_met_unlabelled(flow, tensor, out, blocks)
        flow.freeze_all(unmatched, why)  # these stay: from here on they are fixed like what they met
        blocks = [block for block in blocks if not any(block[1] is labels for _, labels in unmatched)]
    flow.set(out, blocks)


def blocks_met_unlabelled(flow: Flow, tensor: Tensor, out: Tensor, blocks: list[Block]) -> list[Block]:
    """The blocks of the output to which this tensor brings entries that differ, but no labels."""
    if is_uniform(flow, tensor):
        return []
    offset = out.dim() - tensor.dim()
    own = {d + offset for dims, _ in flow.get(tensor) for d in dims}
    full = {d + offset for d, size in enumerate(tensor.shape) if size > 1}
    return [
        (dims, labels)
        for dims, labels in blocks
        if not own & set(dims) and not flow.repeats(labels, [i for i, d in enumerate(dims) if d in full])
    ]


@register("copy")
def copy_into(flow: Flow, call: Call) -> None:
    """`a.copy_(b)`: a has the entries of b. If a is part of another tensor, these must fit into their place there."""
    target, source = call.args[:2]
    part = id(target) in flow.state.views
    label_written(flow, target, source)
    combine(flow, call.out, [target, source] if part else [source], "copied into a tensor of fixed size")
    if part and not flow.get(target):
        flow.freeze_all(flow.get(source), "copied into a tensor of fixed size")


@register("expand")
def expand(flow: Flow, call: Call) -> None:
    """New leading dimensions; dimensions of size 1 are repeated to the length of what they will meet.

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
    if source.dim() == 0:  # one number everywhere
        mark_uniform(flow, out)


@register("arange", "empty_strided", "linspace", "eye", "sym_size", "sym_numel", "is_same_size", "_linalg_check_errors")
def new_tensor(_flow: Flow, _call: Call) -> None:
    """A new tensor without labels: what meets it at full size is frozen there."""


@register(
    "empty", "zeros", "ones", "full", "scalar_tensor", "new_zeros", "new_full", "new_ones", "new_empty", "rand",
    "randn", "randint",
)  # fmt: skip
def uniform(flow: Flow, call: Call) -> None:
    """A new tensor whose entries are all alike: it fits whichever channels it meets, if the code follows the widths."""
    mark_uniform(flow, call.out)


@register("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like")
def uniform_like(flow: Flow, call: Call) -> None:
    """A new tensor of the shape of another, whose entries are all alike."""
    mark_uniform(flow, call.out)
    flow.set(call.out, flow.get(call.args[0]))
