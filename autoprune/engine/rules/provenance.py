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
from autoprune.engine.operations import operation_name
from autoprune.engine.rules.new_tensors import follow_uniform, follow_views

_VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "select", "slice", "split", "unbind"),
        *("split_with_sizes", "unsqueeze", "squeeze", "clone", "contiguous", "expand", "alias", "detach"),
    ]
)

_LAYERS = frozenset(["convolution", "addmm", "mm", "native_layer_norm", "native_group_norm", "native_batch_norm"])


#: Operations entry by entry that some version of torch does not tag as such (2.11: `hardtanh`, which ReLU6 calls).
_POINTWISE = frozenset(
    [
        *("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid"),
        *("mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softshrink", "tanh", "threshold"),
        *("abs", "clamp", "clamp_max", "clamp_min", "clip", "complex", "copysign", "dequantize", "heaviside", "polar"),
        *("masked_fill", "rsub", "where", "xlogy", "eq", "ne", "ge", "gt", "le", "lt", "_conj", "_neg_view"),
        *("fmod", "remainder", "lerp", "maximum", "minimum", "nan_to_num", "pow", "real", "imag", "angle", "sgn"),
    ]
)


@cache
def is_pointwise(func: Any) -> bool:
    """Whether the operation works entry by entry: torch tags it, or another overload of it, so."""
    packet = getattr(torch.ops, func.namespace, None)
    overloads = getattr(packet, func._schema.name.partition("::")[2], None)
    tagged = torch.Tag.pointwise in func.tags or any(
        torch.Tag.pointwise in getattr(overloads, name).tags for name in (overloads.overloads() if overloads else ())
    )
    return tagged or operation_name(func) in _POINTWISE


def follow(flow: Flow, call: Call, key: CallKey) -> None:
    """Remember what comes straight out of a layer, through views, and which calls then work with it.

    `key` is the call's own.
    """
    state, name = flow.state, call.name
    _follow_weights(flow, call)
    if name in _VIEWS:
        _follow_view(flow, call)
    elif name in _LAYERS or (name == "bmm" and flow.is_weight(call.args[1])):
        state.layer_outputs |= _labelled_ids(flow, call.first_out)
        _note_uses(flow, key, call.args[1:2] if name == "addmm" else call.args[:1])
    elif name == "add" and id(call.args[0]) in state.layer_outputs and flow.is_weight(call.args[1]):
        state.layer_outputs |= _labelled_ids(flow, call.out)
        _note_added_bias(flow, *call.args[:2])
    else:
        listed = call.args and isinstance(call.args[0], (list, tuple))
        _note_uses(flow, key, call.args[0] if listed else call.args)
        if is_pointwise(call.func):
            follow_uniform(flow, call)
            _note_numbers(flow, call, key)


def _follow_weights(flow: Flow, call: Call) -> None:
    """What is made of weights alone is a weight; a weight into which something else is written is none any more."""
    state, tensors = flow.state, call.tensors()
    from_weights = bool(tensors) and all(id(tensor) in state.weights for tensor in tensors)
    plain = from_weights and call.name in _VIEWS and id(call.args[0]) in state.plain_weights
    for out in call.out if isinstance(call.out, (tuple, list)) else [call.out]:
        (state.plain_weights.add if plain else state.plain_weights.discard)(id(out))
        if from_weights and isinstance(out, Tensor):
            state.weights[id(out)] = out
        else:
            state.weights.pop(id(out), None)


def _follow_view(flow: Flow, call: Call) -> None:
    state, source = flow.state, id(call.args[0])
    state.views |= {id(out) for out in tree_leaves(call.out) if out is not call.args[0]}
    follow_views(flow, call)
    if source in state.layer_outputs:
        state.layer_outputs |= _labelled_ids(flow, call.out)


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


def name_with_numbers(call: Call) -> str:
    """The call's name, or that of calls with numbers of the model's own code, which are counted by themselves.

    A linear layer adds its bias by a call of its own or not, by how its inputs lie in memory, and that may change with
    a width. The numbers are held against those of a cut model call by call, so these must not be shifted by that.
    """
    return f"{call.name} with a number" if is_pointwise(call.func) and _numbers_in(call) else call.name


def _numbers_in(call: Call) -> tuple[float, ...]:
    return tuple(a for a in (*call.args, *call.kwargs.values()) if type(a) in (int, float))


def _note_numbers(flow: Flow, call: Call, key: CallKey) -> None:
    numbers = _numbers_in(call)
    if numbers:
        flow.evidence.numbers[key] = numbers
