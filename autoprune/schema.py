"""Plain data (YAML, JSON) to frozen dataclasses, once, at the edge.

Errors carry the path inside the file (`space.training.lr`) and what is allowed. A dataclass field declares its range
with `field(metadata=within(low, high))` or `field(metadata=choices(...))`; `read` enforces it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from autoprune.errors import InputError, check_name

T = TypeVar("T")


def within(
    low: float, high: float, *, open_low: bool = False, log: bool = False, search: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Field metadata: the number lies in [low, high], or (low, high] with `open_low`.

    Args:
        low, high: what is valid.
        open_low: `low` itself is not.
        log: searched on a log scale.
        search: the part that is worth searching; default: all, if its ends are valid and finite.
    """
    return {"low": low, "high": high, "open_low": open_low, "log": log, "search": search}


def choices(*names: str) -> dict[str, Any]:
    """Field metadata: the string is one of `names`."""
    return {"choices": names}


def read(cls: type[T], data: object, where: str) -> T:
    """Build the dataclass `cls` from a mapping.

    Raises:
        InputError: not a mapping, an unknown or missing key, a wrong type, a value out of range.
    """
    mapping = expect_mapping(data, where)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        check_name(key, fields, kind="key", where=where)
    for name, field in fields.items():
        if name not in mapping and _is_required(field):
            raise InputError(f"missing key {name!r}", where=where, allowed=", ".join(fields))
    hints = typing.get_type_hints(cls)
    values = {
        key: read_value(hints[key], value, f"{where}.{key}", fields[key].metadata) for key, value in mapping.items()
    }
    return cls(**values)


def read_value(kind: Any, value: object, where: str, limits: Mapping[str, Any]) -> Any:
    """Return `value` as `kind` (a scalar, `X | None`, a tuple, a mapping, a dataclass), within `limits`."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    target = next(option for option in options if option is not type(None))
    if dataclasses.is_dataclass(target):
        return value if isinstance(value, target) else read(typing.cast("type", target), value, where)  # type: ignore[arg-type]
    if typing.get_origin(target) is tuple:
        item_type = typing.get_args(target)[0]
        return tuple(read_value(item_type, item, f"{where}[{i}]", limits) for i, item in enumerate(_list(value, where)))
    if typing.get_origin(target) is not None:
        item_type = typing.get_args(target)[1]
        return {
            str(k): read_value(item_type, v, f"{where}.{k}", limits) for k, v in expect_mapping(value, where).items()
        }
    return _scalar(target, value, where, limits)


def expect_mapping(data: object, where: str) -> Mapping[str, Any]:
    """Return `data` if it is a mapping with string keys, else raise `InputError`."""
    if not isinstance(data, Mapping):
        raise InputError(f"expected a mapping, found {data!r}", where=where)
    for key in data:
        if not isinstance(key, str):
            raise InputError(f"expected a text key, found {key!r}", where=where)
    return data


def to_plain(value: Any) -> Any:
    """The inverse of `read`: dataclasses to dicts, tuples to lists; what JSON and YAML can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _list(value: object, where: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list, found {value!r}", where=where)
    return value


def _scalar(kind: Any, value: object, where: str, limits: Mapping[str, Any]) -> Any:
    if kind is Any:
        return value
    number = _as_type(kind, value, where)
    if "choices" in limits:
        return check_name(number, limits["choices"], kind="value", where=where)
    if "low" in limits:
        _check_range(number, where, limits)
    return number


def _as_type(kind: type, value: object, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise InputError(f"expected {names.get(kind, kind.__name__)}, found {value!r}", where=where)


def _check_range(number: float, where: str, limits: Mapping[str, Any]) -> None:
    low, high = limits["low"], limits["high"]
    too_low = number <= low if limits["open_low"] else number < low
    if too_low or number > high or math.isnan(number):
        bracket = "(" if limits["open_low"] else "["
        raise InputError(f"{number!r} is out of range", where=where, allowed=f"{bracket}{low:g}, {high:g}]")
