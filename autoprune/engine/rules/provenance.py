"""Where tensors come from, call by call: straight out of a layer, views of others, new ones with all entries alike.

With it goes what later calls do with a layer's outputs: the numbers they scale these by, the biases they add.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoprune.engine.labels.evidence import CallKey
from autoprune.engine.labels.flow import Call, Flow

_VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "select", "slice", "split", "unbind"),
        *("split_with_sizes", "unsqueeze", "squeeze", "clone", "contiguous", "expand", "alias", "detach"),
    ]
)

#: Views that hold all entries of what they are taken from.
_WHOLE_VIEWS = frozenset(["detach", "alias", "clone", "contiguous", "view", "unsqueeze", "reshape"])

_LAYERS = frozenset(["convolution", "addmm", "mm", "native_layer_norm", "native_group_norm", "native_batch_norm"])


@cache
def is_pointwise(func: Any) -> bool:
    """Whether torch tags the operation as one that works entry by entry."""
    return torch.Tag.pointwise in func.tags


def follow(flow: Flow, call: Call, key: CallKey) -> None:
    """Remember what comes straight out of a layer, through views, and which calls then work with it.

    `key` is the call's own.
    """
    state, name = flow.state, call.name
    if name in _VIEWS:
        _follow_view(flow, call)
    elif name in _LAYERS or (name == "bmm" and id(call.args[1]) in state.model_tensors):
        state.layer_outputs |= _labelled_ids(flow, call.first_out)
        _note_uses(flow, key, call.args[1:2] if name == "addmm" else call.args[:1])
    elif name == "add" and id(call.args[0]) in state.layer_outputs and id(call.args[1]) in state.model_tensors:
        state.layer_outputs |= _labelled_ids(flow, call.out)
        _note_added_bias(flow, *call.args[:2])
    else:
        listed = call.args and isinstance(call.args[0], (list, tuple))
        _note_uses(flow, key, call.args[0] if listed else call.args)
        if is_pointwise(call.func):
            _note_numbers(flow, call, key)


def forget_uniform(flow: Flow, written: object) -> None:
    """Something was written into that tensor: its entries, and if it is a view those of any other, may differ now."""
    if id(written) in flow.state.views:
        flow.state.uniform.clear()
    else:
        flow.state.uniform.discard(id(written))


def _follow_view(flow: Flow, call: Call) -> None:
    state, source = flow.state, id(call.args[0])
    state.views |= {id(out) for out in tree_leaves(call.out) if out is not call.args[0]}
    if source in state.uniform and call.name in _WHOLE_VIEWS:
        state.uniform.add(id(call.out))
    if source in state.layer_outputs:
        state.layer_outputs |= _labelled_ids(flow, call.out)
    if source in state.model_tensors:
        state.model_tensors |= _labelled_ids(flow, call.out)


def _labelled_ids(flow: Flow, out: Any) -> set[int]:
    return {id(part) for part in (out if isinstance(out, (tuple, list)) else [out]) if flow.get(part)}


def _note_uses(flow: Flow, key: CallKey, tensors: Iterable[object]) -> None:
    flow.evidence.layer_uses.extend(
        (key, flow.get(t)) for t in tensors if isinstance(t, Tensor) and id(t) in flow.state.layer_outputs
    )


def _note_added_bias(flow: Flow, x: Tensor, bias: Tensor) -> None:
    """A bias that is added by hand, as attention modules do."""
    for dims, labels in flow.get(bias):
        place = dims[0] + x.dim() - bias.dim()
        filters = next((own for at, own in flow.get(x) if at == (place,)), None)
        if filters is not None and len(dims) == 1:
            flow.note_role(labels, "bias")
            flow.note_bias(filters, labels)


def _note_numbers(flow: Flow, call: Call, key: CallKey) -> None:
    numbers = tuple(a for a in (*call.args, *call.kwargs.values()) if type(a) in (int, float))
    if numbers:
        flow.evidence.numbers[key] = numbers
