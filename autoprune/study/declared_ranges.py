"""The ranges that methods declare for their hyper-parameters: what `range` and `ranges` stand for."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from autoprune.errors import InputError, check_name
from autoprune.study.parameters import RANGE, RANGES, FindMethod


def declared(method: type[Any]) -> dict[str, dict[str, Any] | None]:
    """Hyper-parameter -> the parameter that searches it, as a space file says it; None if it declares no range.

    Numbers need `schema.within`, with finite and valid ends or with `search`; text needs `schema.choices`.
    """
    hints = typing.get_type_hints(method)
    return {field.name: _parameter_of(hints[field.name], field.metadata) for field in dataclasses.fields(method)}


def _parameter_of(kind: Any, limits: Mapping[str, Any]) -> dict[str, Any] | None:
    if kind is str and "choices" in limits:
        return {"choice": list(limits["choices"])}
    if kind not in (int, float) or "low" not in limits:
        return None
    low, high = limits["search"] or (limits["low"], limits["high"])
    excluded = limits["open_low"] and low == limits["low"]
    if not (math.isfinite(low) and math.isfinite(high)) or excluded or (limits["log"] and low <= 0):
        return None
    return {kind.__name__: [low, high], "log": limits["log"]}


def spell_out_ranges(method: Any, where: str, find: FindMethod | None) -> Any:
    """The `method` part of a space, `range` and `ranges` replaced by the parameters that they stand for."""
    if not isinstance(method, Mapping):
        return method
    options = method.get("choice")
    if isinstance(options, Mapping):
        spelt = {name: _spell_branch(name, item, f"{where}.choice.{name}", find) for name, item in options.items()}
        return {**method, "choice": spelt}
    return _spell_branch(method.get("name"), method, where, find)


def _spell_branch(name: Any, data: Any, where: str, find: FindMethod | None) -> Any:
    if isinstance(data, str) and data != RANGES:
        allowed = f"`{RANGES}`, or a mapping of hyper-parameters"
        raise InputError(f"expected what to search, found {data!r}", where=where, allowed=allowed)
    if data == RANGES:
        return _all_ranges(name, where, find)
    if not isinstance(data, Mapping) or RANGE not in [item for item in data.values() if isinstance(item, str)]:
        return data
    known = _declared_of(name, where, find)
    return {key: _one_range(name, key, known, where) if item == RANGE else item for key, item in data.items()}


def _all_ranges(name: Any, where: str, find: FindMethod | None) -> dict[str, Any]:
    """Every hyper-parameter that declares a range; at least one."""
    found = {key: item for key, item in _declared_of(name, where, find).items() if item is not None}
    if not found:
        raise InputError(f"method {name!r} declares no ranges", where=where, allowed="{}")
    return found


def _one_range(name: Any, key: str, known: Mapping[str, Any], where: str) -> Any:
    ranged = [other for other, item in known.items() if item is not None]
    if not known:
        raise InputError(f"method {name!r} has no hyper-parameters", where=f"{where}.{key}", allowed="{}")
    check_name(key, known, kind=f"hyper-parameter of {name!r}", where=where)
    if known[key] is None:
        raise InputError(f"{key!r} declares no range", where=f"{where}.{key}", allowed=", ".join(ranged) or "a value")
    return known[key]


def _declared_of(name: Any, where: str, find: FindMethod | None) -> dict[str, dict[str, Any] | None]:
    if find is None or not isinstance(name, str):
        missing = "no methods are known here" if find is None else "the method's name is not a plain name"
        raise InputError(f"`{RANGE}` cannot be looked up: {missing}", where=where, allowed="{float: [low, high]}")
    return declared(find(name, where))
