"""How labels go through torch's operations: one rule per operation, found by name.

A rule is a function `(flow, call)` under `@register("name")` (`registry.py`), in the file of its kind:

* `shapes.py`: the same entries in another shape, place or company (`permute`, `cat`);
* `elementwise.py`: entry by entry, and new tensors (`where`, `zeros`); operations tagged pointwise need no rule;
* `sampling.py`: channel by channel, other pixels (pooling, padding, resizing);
* `along_dimensions.py`: by place or order along some dimensions (`fft`, `cummax`, `tril`);
* `picking.py`: picked or written by numbers that tensors hold (`gather`, `index`, `embedding`);
* `quantisation.py`: rounded as they will be (`fake_quantize`);
* `cross_channel.py`: entries act on each other (`softmax`, norms, means over channels);
* `matrix_products.py`: what costs FLOPs (convolutions, matrix products, attention).

Users add rules for their own operations by `autoprune.rules.register`. An operation without a rule freezes the channels
that reach it, and the graph says so.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from autoprune.engine.labels.evidence import CallKey
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.operations import counted_as
from autoprune.engine.rules import (  # noqa: F401 - to register their rules
    along_dimensions,
    cross_channel,
    matrix_products,
    picking,
    quantisation,
    sampling,
    shapes,
)
from autoprune.engine.rules.elementwise import pointwise
from autoprune.engine.rules.new_tensors import note_written
from autoprune.engine.rules.provenance import VIEWS, follow, is_pointwise, name_with_numbers
from autoprune.engine.rules.registry import RULES, register, unknown

__all__ = ["Call", "Flow", "apply", "register"]


def apply(flow: Flow, call: Call) -> None:
    """Run the rule of the call: its own, the one of pointwise operations, or freeze."""
    flow.state.key = _counted(flow, call.name)
    flow.state.calls_within[flow.path, counted_as(call.name)] += 1
    _hold_positions_read(flow, call)
    rule = RULES.get(call.name)
    if rule is not None:
        rule(flow, call)
    elif is_pointwise(call.func):
        pointwise(flow, call)
    else:
        unknown(flow, call)
    name = name_with_numbers(call)
    follow(flow, call, flow.state.key if name == call.name else _counted(flow, name))
    if _writes_in_place(call.func):
        note_written(flow, call)


def _counted(flow: Flow, name: str) -> CallKey:
    calls = flow.state.calls
    calls[name] += 1
    return name, calls[name] - 1


def _hold_positions_read(flow: Flow, call: Call) -> None:
    """Who reads what was taken by its place holds the channels there; views of it are to be read in turn."""
    positions = flow.state.positions
    for tensor in call.tensors if positions else ():
        held = positions.get(id(tensor))
        if held is None:
            continue
        if call.name not in VIEWS:
            flow.freeze_all(*held)
            continue
        positions.update((id(out), held) for out in call.outputs)


@cache
def _writes_in_place(func: Any) -> bool:
    name: str = func._schema.name
    return name.endswith("_")
