"""How labels go through torch's operations: one rule per operation, found by name.

A rule is a function `(flow, call)` under `@register("name")` (`registry.py`), in the file of its kind:

* `shapes.py`: the same entries in another shape, place or company (`permute`, `cat`);
* `elementwise.py`: entry by entry, and new tensors (`where`, `zeros`); operations tagged pointwise need no rule;
* `cross_channel.py`: entries act on each other (`softmax`, norms, means over channels);
* `matrix_products.py`: what costs FLOPs (convolutions, matrix products, attention).

Users add rules for their own operations by `autoprune.rules.register`. An operation without a rule freezes the channels
that reach it, and the graph says so.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules import cross_channel, matrix_products, shapes  # noqa: F401 - to register their rules
from autoprune.engine.rules.elementwise import pointwise
from autoprune.engine.rules.provenance import follow, forget_uniform, is_pointwise
from autoprune.engine.rules.registry import RULES, register, unknown

__all__ = ["Call", "Flow", "apply", "register"]


def apply(flow: Flow, call: Call) -> None:
    """Run the rule of the call: its own, the one of pointwise operations, or freeze."""
    calls = flow.state.calls
    key = (call.name, calls[call.name])
    calls[call.name] += 1
    rule = RULES.get(call.name)
    if rule is not None:
        rule(flow, call)
    elif is_pointwise(call.func):
        pointwise(flow, call)
    else:
        unknown(flow, call)
    follow(flow, call, key)
    if _writes_in_place(call.func) and call.name not in ("zero", "fill"):
        forget_uniform(flow, call.args[0])


@cache
def _writes_in_place(func: Any) -> bool:
    name: str = func._schema.name
    return name.endswith("_")
