"""The fields of a dataclass as rows of a table: default, what is allowed, meaning."""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from autoprune.analysis.reference.docstrings import meanings

#: What values of a kind are called in a space file.
KINDS = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Any: "see there"}


#: Values that Python and YAML spell differently.
CONSTANTS = {"None": None, "True": True, "False": False}


class Row(NamedTuple):
    """Fields that are explained together and have the same default and limits."""

    names: tuple[str, ...]
    default: str
    allowed: str
    meaning: str


def rows(cls: type) -> Iterator[Row]:
    """A row for each field, or for neighbours that share all of it; in the order of the class.

    The meaning of a field that its docstring does not explain is empty.
    """
    kinds = typing.get_type_hints(cls)
    meaning = {name: _in_yaml(text) for names, text in meanings(cls).items() for name in names}
    single = [
        Row((field.name,), default_text(field), allowed_text(kinds[field.name], field.metadata), text)
        for field in dataclasses.fields(cls)
        for text in (meaning.get(field.name, ""),)
    ]
    for (default, allowed, text), same in itertools.groupby(single, key=lambda row: row[1:]):
        names = [row.names for row in same]
        yield from (Row(one, default, allowed, text) for one in (names if not text else [sum(names, ())]))


def _in_yaml(text: str) -> str:
    """Python's names of values as YAML has them."""
    return re.sub(r"\b(None|True|False)\b", lambda found: f"`{_yaml_text(CONSTANTS[found[0]])}`", text)


def default_text(field: dataclasses.Field[Any]) -> str:
    """A default as YAML has it; empty where a value must be given."""
    made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return "" if made is dataclasses.MISSING else f"`{_yaml_text(made)}`"


def _yaml_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_yaml_text, value))}]"
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return "{}"  # no default mapping of a space file has entries of its own
    return _number_text(value) if isinstance(value, (int, float)) else str(value) or '""'


def _number_text(value: float) -> str:
    """Short where that is exact."""
    short = f"{value:g}".replace("e+", "e")
    return short if float(short) == value else str(value)


def allowed_text(kind: Any, limits: Mapping[str, Any]) -> str:
    """What a field takes, in words."""
    if isinstance(kind, types.UnionType):
        options = typing.get_args(kind)
        one = next(option for option in options if option is not type(None))
        others = [*limits.get("words", ()), *(["null"] if type(None) in options else [])]
        return ", or ".join([allowed_text(one, limits), *(f"`{other}`" for other in others)])
    if typing.get_origin(kind) is tuple:
        return f"list of: {allowed_text(typing.get_args(kind)[0], limits)}"
    if typing.get_origin(kind) is not None:
        inner = allowed_text(typing.get_args(kind)[1], limits)
        return "mapping" if inner in {KINDS[Any], "mapping"} else f"mapping to: {inner}"
    if dataclasses.is_dataclass(kind):
        return "mapping"
    if "choices" in limits:
        return ", ".join(f"`{name}`" for name in limits["choices"])
    return f"{KINDS[kind]}{interval_text(limits)}"


def interval_text(limits: Mapping[str, Any]) -> str:
    """`, (0, 1]`; empty without limits."""
    if "low" not in limits:
        return ""
    return f", {'(' if limits['open_low'] else '['}{_number_text(limits['low'])}, {_number_text(limits['high'])}]"
