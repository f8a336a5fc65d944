"""Rules by the name of the operation; which file has the rules of which kind says `__init__.py`."""

from __future__ import annotations

from collections.abc import Callable

from autoprune.engine.labels.flow import Call, Flow

Rule = Callable[[Flow, Call], None]


RULES: dict[str, Rule] = {}


def register(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule for operations of these names, torch's own (`relu`) or others' (`mine::scale_channels`).

    Without overload and in-place underscore. The rule gets `(flow, call)`; it must `flow.set` the labels of every
    output that follows its inputs, `flow.tie` what meets, and `flow.freeze` what it cannot follow.
    """

    def add(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return add


def unknown(flow: Flow, call: Call) -> None:
    """No rule: channels that reach this operation stay."""
    for tensor in call.tensors:
        flow.freeze_all(flow.get(tensor), f"no rule for operation {call.name!r}")
