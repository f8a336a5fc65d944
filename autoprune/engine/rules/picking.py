"""Entries that are picked, or written, by numbers that tensors hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoprune.engine.labels.blocks import Block, renumber
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.elementwise import blocks_met_unlabelled
from autoprune.engine.rules.new_tensors import is_uniform
from autoprune.engine.rules.registry import register

_MASKS = (torch.bool, torch.uint8)


@register("index_select")
def select_by_number(flow: Flow, call: Call) -> None:
    """Whole rows picked by number along one dimension: channels there must stay."""
    source = call.args[0]
    dim = call.args[1] % source.dim()
    blocks = flow.get(source)
    flow.freeze_all([b for b in blocks if dim in b[0]], f"channels are picked by number in {call.name!r}")
    flow.freeze_all(flow.get(call.args[2]), f"numbers in {call.name!r}")
    flow.set(call.out, [b for b in blocks if dim not in b[0]])


@register(
    "gather", "take_along_dim", "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_reduce"
)
def pick_by_number(flow: Flow, call: Call) -> None:
    """Entries picked, or written, by number along one dimension: channels there must stay; others meet at their places.

    Of `gather` and `scatter` the numbers too have the shape of what they pick, of `index_add` and the like they are a
    list.
    """
    why, out = f"channels are picked by number in {call.name!r}", call.out
    dim = call.args[1] % max(call.args[0].dim(), 1)
    meeting = [tensor for tensor in call.tensors if tensor.dim() == out.dim()]
    blocks: list[Block] = []
    for tensor in call.tensors:
        for block in flow.get(tensor):
            fits = any(tensor is other for other in meeting) and dim not in block[0]
            if fits and all(out.shape[d] == tensor.shape[d] for d in block[0]):
                blocks.append(block)
            else:
                flow.freeze(block[1], why)
    blocks = flow.merge(blocks, out.shape, why)
    unmatched = [b for tensor in meeting for b in blocks_met_unlabelled(flow, tensor, out, blocks)]
    flow.freeze_all(unmatched, why)
    flow.set(out, [block for block in blocks if not any(block is other for other in unmatched)])


@register("index", "_unsafe_index")
def index(flow: Flow, call: Call) -> None:
    """Advanced indexing: indexed dimensions become those of the index tensors; labels on the others follow.

    Numbers that were computed channel by channel have channels themselves: these go on where the numbers land.
    """
    source, why = call.args[0], "channels are picked by number in 'index'"
    tensors = [i for i in call.args[1] if i is not None]
    indexed = _indexed_dims(call.args[1])
    joined = indexed == list(range(indexed[0], indexed[-1] + 1))
    width = call.out.dim() - (source.dim() - len(indexed))
    rest = [d for d in range(source.dim()) if d not in indexed]
    start = indexed[0] if joined else 0
    places = [i if i < start else i + width for i in range(len(rest))]
    blocks = flow.get(source)
    flow.freeze_all([b for b in blocks if set(b[0]) & set(indexed)], why)
    landed = _landed(flow, call.out, tensors, start + width, why)
    flow.set(call.out, [*renumber(blocks, dict(zip(rest, places, strict=True))), *landed])


def _indexed_dims(indices: Sequence[Tensor | None]) -> list[int]:
    """The dimensions that are indexed: a mask of truth values stands for as many as it has itself."""
    indexed: list[int] = []
    dim = 0
    for numbers in indices:
        own = 1 if numbers is None or numbers.dtype not in _MASKS else numbers.dim()
        if numbers is not None:
            indexed += range(dim, dim + own)
        dim += own
    return indexed


def _landed(flow: Flow, out: Tensor, tensors: Sequence[Tensor], stop: int, why: str) -> list[Block]:
    """The labels of index tensors in the output, where the dimensions of these end at `stop`."""
    if any(tensor.dtype in _MASKS for tensor in tensors):
        for tensor in tensors:
            flow.freeze_all(flow.get(tensor), why)
        return []
    blocks = [
        (tuple(stop - tensor.dim() + d for d in dims), labels)
        for tensor in tensors
        for dims, labels in flow.get(tensor)
    ]
    met = [b for b in blocks if any(_brings_others(flow, tensor, b, stop) for tensor in tensors)]
    flow.freeze_all(met, why)
    return flow.merge([b for b in blocks if not any(b is other for other in met)], out.shape, why)


def _brings_others(flow: Flow, tensor: Tensor, block: Block, stop: int) -> bool:
    """Whether the index tensor has different entries, but no labels, along dimensions of the block."""
    own = {stop - tensor.dim() + d for dims, _ in flow.get(tensor) for d in dims}
    full = {stop - tensor.dim() + d for d, size in enumerate(tensor.shape) if size > 1}
    return not own & set(block[0]) and bool(full & set(block[0]))


@register("index_put")
def index_put(flow: Flow, call: Call) -> None:
    """`a[i] = b`, whole rows: b's labels meet a's, if a has any or its entries are all alike; else they must stay."""
    target, indices, values = call.args[:3]
    blocks = flow.get(target)
    rows = [d for d, i in enumerate(indices) if i is not None] == [0] and values.dim() == target.dim()
    if rows and (blocks or is_uniform(flow, target)) and not any(0 in b[0] for b in (*blocks, *flow.get(values))):
        flow.set(call.out, flow.merge([*blocks, *flow.get(values)], target.shape, "written over fixed entries"))
        return
    for tensor in call.tensors:
        flow.freeze_all(flow.get(tensor), "written by number in 'index_put'")


@register("embedding")
def embedding(flow: Flow, call: Call) -> None:
    """Rows of the weight (V, D) by number: the D go on, and so do the dimensions of the numbers."""
    weight, numbers = call.args[:2]
    flow.freeze_all([b for b in flow.get(weight) if 0 in b[0]], "rows are picked by number in 'embedding'")
    flow.set(call.out, [*flow.get(numbers), *renumber(flow.get(weight), {1: call.out.dim() - 1})])
