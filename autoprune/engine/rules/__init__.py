"""How labels go through torch's operations: one rule per operation, found by name.

Add a rule for an operation of your own with `register("mine::name")`; an operation without a rule freezes the channels
that reach it, and the graph says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoprune.engine.labels.flow import Call, CallKey, Flow, Ways
from autoprune.engine.rules import entries, mixing, products, shapes  # noqa: F401 - to register their rules
from autoprune.engine.rules.entries import pointwise
from autoprune.engine.rules.registry import RULES, register, unknown

__all__ = ["Call", "Flow", "Ways", "apply", "register"]


@cache
def _is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags


@cache
def _writes(func: Any) -> bool:
    name: str = func._schema.name
    return name.endswith("_")


def apply(flow: Flow, call: Call) -> None:
    """Run the rule of the call: its own, the one of pointwise operations, or freeze."""
    key = (call.name, flow.calls[call.name])
    flow.calls[call.name] += 1
    rule = RULES.get(call.name)
    if rule is not None:
        rule(flow, call)
    elif _is_pointwise(call.func):
        pointwise(flow, call)
    else:
        unknown(flow, call)
    _follow(flow, call, key)
    if _writes(call.func) and call.name not in ("zero", "fill"):
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
    if call.name in _VIEWS:
        flow.parts |= {id(out) for out in tree_leaves(call.out) if out is not call.args[0]}
        flow.uniform |= {id(call.out)} if id(call.args[0]) in flow.uniform and call.name in _WHOLE else set()
        flow.direct |= _labelled(flow, call.out) if id(call.args[0]) in flow.direct else set()
        flow.own |= _labelled(flow, call.out) if id(call.args[0]) in flow.own else set()
    elif call.name in _LAYERS or (call.name == "bmm" and id(call.args[1]) in flow.own):
        flow.direct |= _labelled(flow, call.first_out)
        _note_use(flow, key, call.args[1:2] if call.name == "addmm" else call.args[:1])
    elif call.name == "add" and id(call.args[0]) in flow.direct and id(call.args[1]) in flow.own:
        flow.direct |= _labelled(flow, call.out)
        _note_bias(flow, *call.args[:2])
    else:
        listed = call.args and isinstance(call.args[0], (list, tuple))
        _note_use(flow, key, call.args[0] if listed else call.args)
        if _is_pointwise(call.func):
            numbers = tuple(a for a in (*call.args, *call.kwargs.values()) if type(a) in (int, float))
            if numbers:
                flow.numbers[key] = numbers


def _labelled(flow: Flow, out: Any) -> set[int]:
    return {id(part) for part in (out if isinstance(out, (tuple, list)) else [out]) if flow.get(part)}


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
