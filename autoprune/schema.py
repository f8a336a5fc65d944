"""Plain data (YAML, JSON) to frozen dataclasses, once, at the edge.

Errors carry the path inside the file (`space.training.lr`) and what is allowed. A dataclass field declares its range
with `field(metadata=within(low, high))` or `field(metadata=choices(...))`; `read` enforces it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, TypeVar

from autoprune.errors import InputError, brief_repr, check_name

T = TypeVar("T")


class _Reader(NamedTuple):
    """How values of a kind are read.

    Fields:
        as_is: values of exactly these types are taken as they are; most numbers of a study's logs are such.
        convert: reads any other value, or refuses it; called with it and where it stands.
    """

    as_is: frozenset[type]
    convert: Callable[[object, str], Any]


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


def brief(limits: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Field metadata: `to_plain` leaves the field out where it has its default, as files do that are older than it."""
    return {**(limits or {}), "brief": True}


def or_words(limits: Mapping[str, Any], *words: str) -> dict[str, Any]:
    """Field metadata: a number within `limits`, or one of the words; the kind is `int | str` or `float | str`."""
    return {**limits, "words": words}


def choices(*names: str) -> dict[str, Any]:
    """Field metadata: the string is one of `names`."""
    return {"choices": names}


def read(cls: type[T], data: object, where: str) -> T:
    """Build the dataclass `cls` from a mapping.

    Raises:
        InputError: not a mapping, an unknown or missing key, a wrong type, a value out of range.
    """
    readers, required = _fields_of(typing.cast("type", cls))
    mapping = data if isinstance(data, dict) else expect_mapping(data, where)
    if not (mapping.keys() <= readers.keys() and required <= mapping.keys()):
        _refuse_keys(mapping, readers, required, where)
    values = {}
    for key, value in mapping.items():
        as_is, convert = readers[key]
        values[key] = value if type(value) in as_is else convert(value, f"{where}.{key}")
    return cls(**values)


def read_field(cls: type, name: str, value: object, where: str) -> Any:
    """Return `value` as the field `name` of the dataclass `cls` holds it, within the limits that the field declares."""
    as_is, convert = _fields_of(cls)[0][name]
    return value if type(value) in as_is else convert(value, where)


def read_value(kind: Any, value: object, where: str, limits: Mapping[str, Any]) -> Any:
    """Return `value` as `kind` (a scalar, `X | None`, a tuple, a mapping, a dataclass), within `limits`."""
    return _reader_of(kind, limits).convert(value, where)


def expect_mapping(data: object, where: str) -> Mapping[str, Any]:
    """Return `data` if it is a mapping with string keys, else raise `InputError`."""
    if not isinstance(data, (dict, Mapping)):  # dict first: Mapping takes ten times as long to say yes
        raise InputError(f"expected a mapping, found {brief_repr(data)}", where=where)
    for key in data:
        if not isinstance(key, str):
            raise InputError(f"expected a text key, found {brief_repr(key)}", where=where)
    return data


def to_plain(value: Any) -> Any:
    """The inverse of `read`: dataclasses to dicts, tuples to lists; what JSON and YAML can hold."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            name: to_plain(item)
            for name, left_out in _written_fields(type(value))
            if (item := getattr(value, name)) != left_out
        }
    if isinstance(value, (dict, Mapping)):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


@functools.cache
def _written_fields(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Name of each field, and the value that is not written down: the default of a `brief` field, else none at all."""
    return tuple((field.name, _unwritten_value(field)) for field in dataclasses.fields(cls))


def _unwritten_value(field: dataclasses.Field[Any]) -> Any:
    if not field.metadata.get("brief"):
        return dataclasses.MISSING
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def _fields_of(cls: type) -> tuple[Mapping[str, _Reader], AbstractSet[str]]:
    """How each field of a dataclass is read, and which ones must be there.

    Worked out once per class: a study of 5,000 trials reads 100,000 dataclasses, but a dozen classes.
    """
    kinds, fields = typing.get_type_hints(cls), dataclasses.fields(cls)
    readers = {field.name: _reader_of(kinds[field.name], field.metadata) for field in fields}
    return readers, {field.name for field in fields if _is_required(field)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _refuse_keys(mapping: Mapping[str, Any], known: Mapping[str, Any], required: AbstractSet[str], where: str) -> None:
    """Raise `InputError` for the first key that is no text, unknown or missing."""
    for key in expect_mapping(mapping, where):
        check_name(key, known, kind="key", where=where)
    missing = next(name for name in known if name in required and name not in mapping)
    raise InputError(f"missing key {missing!r}", where=where, allowed=", ".join(known))


def _reader_of(kind: Any, limits: Mapping[str, Any]) -> _Reader:
    """What reads values of a kind within limits."""
    if isinstance(kind, types.UnionType):
        return _union_reader(typing.get_args(kind), limits)
    if dataclasses.is_dataclass(kind):
        return _Reader(frozenset(), functools.partial(_read_dataclass, typing.cast("type", kind)))
    if typing.get_origin(kind) is tuple:
        return _Reader(frozenset(), functools.partial(_read_tuple, _reader_of(typing.get_args(kind)[0], limits)))
    if typing.get_origin(kind) is not None:
        return _Reader(frozenset(), functools.partial(_read_mapping, _reader_of(typing.get_args(kind)[1], limits)))
    return _scalar_reader(kind, limits)


def _union_reader(options: tuple[Any, ...], limits: Mapping[str, Any]) -> _Reader:
    """A union has one kind, and None beside it or not; or numbers, and words beside them."""
    if "words" in limits:
        return _Reader(frozenset(), functools.partial(_read_number_or_word, options[0], limits))
    one = _reader_of(next(option for option in options if option is not type(None)), limits)
    if type(None) not in options:
        return one
    return _Reader(one.as_is | {type(None)}, lambda value, where: None if value is None else one.convert(value, where))


def _scalar_reader(kind: Any, limits: Mapping[str, Any]) -> _Reader:
    if kind is Any:
        return _Reader(frozenset(), lambda value, _where: value)
    if "choices" in limits:
        return _Reader(frozenset(), functools.partial(_read_choice, kind, limits["choices"]))
    if "low" in limits:
        bounds = limits["low"], limits["high"], limits["open_low"]
        return _Reader(frozenset(), functools.partial(_read_number, kind, *bounds))
    return _Reader(frozenset({kind}), functools.partial(_as_type, kind))


def _read_dataclass(cls: type, value: object, where: str) -> Any:
    return value if isinstance(value, cls) else read(cls, value, where)


def _read_tuple(item: _Reader, value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list, found {brief_repr(value)}", where=where)
    as_is, convert = item
    return tuple([one if type(one) in as_is else convert(one, f"{where}[{i}]") for i, one in enumerate(value)])


def _read_mapping(item: _Reader, value: object, where: str) -> dict[str, Any]:
    as_is, convert = item
    return {
        str(key): one if type(one) in as_is else convert(one, f"{where}.{key}")
        for key, one in expect_mapping(value, where).items()
    }


def _read_choice(kind: type, names: tuple[str, ...], value: object, where: str) -> str:
    return check_name(_as_type(kind, value, where), names, kind="value", where=where)


def _read_number(kind: type, low: float, high: float, open_low: bool, value: object, where: str) -> Any:
    number: Any = value if type(value) is kind else _as_type(kind, value, where)
    if not (low < number <= high or (number == low and not open_low)):  # neither is true of NaN
        bracket = "(" if open_low else "["
        raise InputError(f"{brief_repr(number)} is out of range", where=where, allowed=f"{bracket}{low:g}, {high:g}]")
    return number


def _read_number_or_word(kind: type, limits: Mapping[str, Any], value: object, where: str) -> Any:
    bounds, words = (limits["low"], limits["high"], limits["open_low"]), limits["words"]
    if not isinstance(value, str):
        return _read_number(kind, *bounds, value, where)
    if value not in words:
        allowed = f"{' or '.join(words)}, or a number within [{bounds[0]:g}, {bounds[1]:g}]"
        raise InputError(f"expected a number, found {brief_repr(value)}", where=where, allowed=allowed)
    return value


def _as_type(kind: type, value: object, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise InputError(f"expected {names.get(kind, kind.__name__)}, found {brief_repr(value)}", where=where)
