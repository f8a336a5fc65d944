"""Plain data to the nodes of a space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autoprune.errors import InputError, check_name
from autoprune.schema import expect_mapping, read_value, within
from autoprune.study.parameters import (
    KINDS,
    NAMED,
    RATIOS,
    Branch,
    Choice,
    Each,
    Fixed,
    Float,
    Int,
    Nested,
    Node,
    Scalar,
)


def is_parameter(data: Any) -> bool:
    """Whether a mapping stands for a parameter rather than for nested values."""
    return isinstance(data, Mapping) and any(kind in data for kind in KINDS)


def read_node(data: Any, where: str, path: tuple[str, ...]) -> Node:
    """The node that plain data stand for; `path` is the place in the recipe, without the names of branches."""
    if path in [(name,) for name in NAMED] and isinstance(data, str):
        return Nested({"name": Fixed(data)})
    if not isinstance(data, Mapping):
        return Fixed(data)
    expect_mapping(data, where)
    if path == RATIOS and "each" in data:
        return _read_each(data, where)
    if is_parameter(data):
        return _read_parameter(data, where, path)
    return Nested({key: read_node(item, f"{where}.{key}", (*path, key)) for key, item in data.items()})


def _read_each(data: Mapping[str, Any], where: str) -> Each:
    scope = check_name(data["each"], ("group", "stage"), kind="scope", where=f"{where}.each")
    rest = {key: item for key, item in data.items() if key != "each"}
    if not is_parameter(rest):
        raise InputError(
            f"`each` without a parameter: {dict(data)!r}", where=where, allowed="{each: stage, float: [0, 1]}"
        )
    item = _read_parameter(rest, where, ())
    if isinstance(item, Branch):
        raise InputError("`each` cannot hold branches", where=where, allowed="float, int or a choice of scalars")
    return Each(scope, item)


def _read_parameter(data: Mapping[str, Any], where: str, path: tuple[str, ...]) -> Float | Int | Choice | Branch:
    kind = next(kind for kind in KINDS if kind in data)
    options = {"float": {"log"}, "int": {"log", "step"}, "choice": set()}[kind]
    for key in data:
        check_name(key, {kind, *options}, kind="key", where=where)
    if kind == "choice":
        return _read_choice(data["choice"], f"{where}.choice", path)
    low, high = _read_range(data[kind], f"{where}.{kind}", int if kind == "int" else float)
    log = read_value(bool, data.get("log", False), f"{where}.log", {})
    if log and low <= 0:
        raise InputError(f"a log scale from {low!r}", where=f"{where}.{kind}", allowed="a lower end above 0")
    if kind == "float":
        return Float(low, high, log)
    step = read_value(int, data.get("step", 1), f"{where}.step", within(1, 2**53))
    if (int(high) - int(low)) % step or (log and step != 1):
        allowed = "1 on a log scale" if log else f"a divisor of {high} - {low}"
        raise InputError(f"{step!r} does not fit the range", where=f"{where}.step", allowed=allowed)
    return Int(int(low), int(high), log, step)


def _read_range(data: Any, where: str, kind: type[int | float]) -> tuple[float, float]:
    allowed = "[low, high] with low < high"
    if not isinstance(data, (list, tuple)) or len(data) != 2:
        raise InputError(f"expected two numbers, found {data!r}", where=where, allowed=allowed)
    low, high = (read_value(kind, end, where, {}) for end in data)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"an empty range: {data!r}", where=where, allowed=allowed)
    return low, high


def _read_choice(data: Any, where: str, path: tuple[str, ...]) -> Choice | Branch:
    if isinstance(data, (list, tuple)) and data and path in [(name,) for name in NAMED]:
        data = {str(name): {} for name in data}
    if isinstance(data, Mapping) and data:
        return Branch(
            {key: _read_branch(item, f"{where}.{key}", path) for key, item in expect_mapping(data, where).items()}
        )
    if not isinstance(data, (list, tuple)) or not data:
        raise InputError(
            f"nothing to choose from: {data!r}", where=where, allowed="a list of values, or names with a mapping each"
        )
    for option in data:
        if not isinstance(option, Scalar):
            raise InputError(f"expected a number, text, true, false or null, found {option!r}", where=where)
    if len({(type(option), option) for option in data}) != len(data):
        raise InputError(f"an option appears twice: {list(data)!r}", where=where)
    return Choice(tuple(data))


def _read_branch(data: Any, where: str, path: tuple[str, ...]) -> Nested:
    mapping = expect_mapping({} if data is None else data, where)
    if "name" in mapping:
        raise InputError("'name' is the name of the branch", where=where, allowed="other keys")
    return Nested({key: read_node(item, f"{where}.{key}", (*path, key)) for key, item in mapping.items()})
