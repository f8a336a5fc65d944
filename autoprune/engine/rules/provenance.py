"""Where tensors come from, call by call: straight out of a layer, views of others, new ones with all entries alike.

With it goes what later calls do with a layer's outputs: the numbers they scale these by, the biases they add.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.engine.labels.blocks import Block
from autoprune.engine.labels.evidence import CallKey
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.operations import operation_name
from autoprune.engine.rules.new_tensors import follow_uniform, follow_views

#: The same entries, all or some, in another shape.
VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "select", "slice", "split", "unbind"),
        *("split_with_sizes", "unsqueeze", "squeeze", "clone", "contiguous", "expand", "alias", "detach"),
    ]
)

_LAYERS = frozenset(["convolution", "addmm", "mm", "native_layer_norm", "native_group_norm", "native_batch_norm"])


#: New tensors that hold a number.
_FILLS = frozenset(["full", "new_full", "full_like", "scalar_tensor", "fill"])

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
    state, name, tensors = flow.state, call.name, call.tensors
    _follow_weights(flow, call, tensors)
    if name in VIEWS:
        _follow_view(flow, call)
    elif name in _LAYERS or (name == "bmm" and flow.is_weight(call.args[1])):
        _note_layer_outputs(flow, [call.first_out])
        _note_uses(flow, key, call.args[1:2] if name == "addmm" else call.args[:1])
        _note_weight_uses(flow, key, tensors)
    elif name == "add" and id(call.args[0]) in state.layer_outputs and flow.is_weight(call.args[1]):
        _note_layer_outputs(flow, [call.out])
        _note_added_bias(flow, *call.args[:2])
    else:
        listed = call.args and isinstance(call.args[0], (list, tuple))
        _note_uses(flow, key, call.args[0] if listed else call.args)
        if name in ("bmm", "mm"):
            _follow_product(flow, call, key)
        if is_pointwise(call.func) or name in _FILLS:
            follow_uniform(flow, call)
            if sum(id(tensor) not in state.weights for tensor in tensors) > 1:
                flow.evidence.meetings[flow.path, name] += 1
            _note_weight_uses(flow, key, tensors)
            if key[0] != name:  # it is counted among those that work with numbers
                flow.evidence.numbers[key] = _numbers_in(call)


def _follow_weights(flow: Flow, call: Call, tensors: Sequence[Tensor]) -> None:
    """What is made of weights, and of single numbers, is a weight until something else is written into it."""
    state = flow.state
    known = [id(tensor) in state.weights for tensor in tensors]
    from_weights = any(known) and all(w or not t.dim() for t, w in zip(tensors, known, strict=True))
    plain = from_weights and call.name in VIEWS and id(call.args[0]) in state.plain_weights
    for out in _outputs(call):
        (state.plain_weights.add if plain else state.plain_weights.discard)(id(out))
        if from_weights and isinstance(out, Tensor):
            state.weights[id(out)] = out
        else:
            state.weights.pop(id(out), None)


def _follow_view(flow: Flow, call: Call) -> None:
    state, source = flow.state, id(call.args[0])
    state.views |= {id(out) for out in call.outputs if out is not call.args[0]}
    follow_views(flow, call)
    if source in state.layer_outputs:
        _note_layer_outputs(flow, _outputs(call))
    if source in state.products:
        state.products.update((id(out), state.products[source]) for out in call.outputs)


def _outputs(call: Call) -> Sequence[Any]:
    return call.out if isinstance(call.out, (tuple, list)) else [call.out]


def _note_layer_outputs(flow: Flow, outs: Iterable[Any]) -> None:
    """Those that have labels come straight out of a layer."""
    flow.state.layer_outputs.update(id(out) for out in outs if flow.get(out))


def _note_uses(flow: Flow, key: CallKey, tensors: Sequence[object]) -> None:
    outputs, products = flow.state.layer_outputs, flow.state.products
    for tensor in tensors:
        if id(tensor) in outputs and isinstance(tensor, Tensor):
            flow.evidence.layer_uses.append((key, flow.get(tensor)))
        if id(tensor) in products:
            flow.evidence.product_uses.append((key, *products[id(tensor)]))


def _follow_product(flow: Flow, call: Call, key: CallKey) -> None:
    """A product that is scaled is scaled as if one factor was: attention's scores, by what puts out the queries."""
    factors = [flow.get(factor) for factor in call.args[:2] if id(factor) in flow.state.layer_outputs]
    if factors:
        flow.state.products[id(call.out)] = (key, factors[0], 2 if _same_labels(factors) else 1)
        flow.labels.hold(call.out)


def _same_labels(factors: Sequence[list[Block]]) -> bool:
    labels = [np.concatenate([own.ravel() for _, own in blocks]) for blocks in factors]
    return len(labels) == 2 and bool(np.isin(*labels).any())


def _note_added_bias(flow: Flow, x: Tensor, bias: Tensor) -> None:
    """A bias that is added by hand, as attention modules do."""
    for dims, labels in flow.get(bias):
        place = dims[0] + x.dim() - bias.dim()
        filters = next((own for at, own in flow.get(x) if at == (place,)), None)
        if filters is not None and len(dims) == 1:
            flow.note_role(labels, "bias")
            flow.note_bias(filters, labels)


def _note_weight_uses(flow: Flow, key: CallKey, tensors: Iterable[Tensor]) -> None:
    plain = flow.state.plain_weights
    for tensor in tensors:
        if id(tensor) in plain:
            flow.evidence.weight_uses.append((key, flow.get(tensor)))


def name_with_numbers(call: Call) -> str:
    """The call's name, or that of calls with numbers of the model's own code, which are counted by themselves.

    A linear layer adds its bias by a call of its own or not, by how its inputs lie in memory, and that may change with
    a width. The numbers are held against those of a cut model call by call, so these must not be shifted by that.
    """
    works_with_numbers = is_pointwise(call.func) or call.name in _FILLS
    return f"{call.name} with a number" if works_with_numbers and _numbers_in(call) else call.name


def _numbers_in(call: Call) -> tuple[float, ...]:
    """The numbers that the call works with; none if it only makes another number of them."""
    given = (*call.args, *call.kwargs.values()) if call.kwargs else call.args
    found = tuple([n for n in map(_number, given) if n is not None])
    return found if found and _number(call.out) is None else ()


def _number(value: object) -> float | None:
    """A number among the arguments, Python's own or a tensor's that holds one and is not on the meta device."""
    if type(value) in (int, float):
        return value  # type: ignore[return-value]
    lone = isinstance(value, Tensor) and not value.dim() and not value.is_meta
    return value.item() if lone else None  # type: ignore[union-attr]
