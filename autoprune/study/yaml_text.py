"""YAML as space files mean it: keys may not repeat, and 1e-4 is a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from autoprune.errors import InputError, brief_repr, first_line
from autoprune.files import read_text

#: Values that a text may have when its aliases are written out; nested aliases grow without end.
MOST_VALUES = 10**6


def parse_yaml(text: str, where: str, *, as_written: bool = False) -> Any:
    """Plain data from YAML; keys may not repeat, and 1e-4 is a number.

    Args:
        as_written: 1e-4 is text, as `yaml.safe_dump` means it.

    Raises:
        InputError: naming the line.
    """
    try:
        data = yaml.load(text, _UniqueKeys if as_written else _Loader)  # noqa: S506 - both are SafeLoaders
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        what = f"not YAML: {error.problem or error.context}"
        raise InputError(what, where=f"{where}{line}", allowed="YAML of plain data") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter: a date or number that does not exist
        what = f"not YAML: {first_line(error)}"
        raise InputError(what, where=where, allowed="YAML of plain data") from None
    except RecursionError:
        raise InputError("nested too deeply", where=where, allowed="a few levels") from None
    _check_tree(data, where)
    return data


def read_yaml(path: Path, *, as_written: bool = False) -> Any:
    """Plain data from a file; see `parse_yaml`. Raises `InputError` if it cannot be read, too."""
    return parse_yaml(read_text(path), str(path), as_written=as_written)


def _check_tree(data: Any, where: str) -> None:
    """Refuse what an alias puts into itself, and what aliases make larger than any file."""
    count = 0
    waiting: list[tuple[Any, tuple[int, ...]]] = [(data, ())]
    while waiting:
        value, above = waiting.pop()
        count += 1
        if isinstance(value, (dict, list)):
            if id(value) in above:
                raise InputError("an alias stands for a value that holds it", where=where, allowed="aliases of others")
            inside = value.values() if isinstance(value, dict) else value
            waiting += [(item, (*above, id(value))) for item in inside]
        if count > MOST_VALUES:
            raise InputError(f"aliases stand for more than {MOST_VALUES:,} values", where=where, allowed="fewer")


class _UniqueKeys(yaml.SafeLoader):
    """The last of two equal keys would win; the author of a file does not expect that."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key holds other values", key_node.start_mark)
            if key in seen:
                what = f"key {brief_repr(key)} appears twice"
                raise yaml.constructor.ConstructorError(None, None, what, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Loader(_UniqueKeys):
    """YAML 1.1 reads 1e-4 as text; the author of a space does not expect that."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
