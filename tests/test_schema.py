"""Plain data become values: what is taken, what is refused and where, and that a class is looked at once."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoprune import schema
from autoprune.errors import InputError
from autoprune.schema import brief, choices, read, read_field, read_value, to_plain, within


@dataclass(frozen=True, kw_only=True)
class Inner:
    ratio: float = field(metadata=within(0, 1, open_low=True))


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    name: str = field(default="a", metadata=choices("a", "b"))
    ratio: float | None = field(default=None, metadata=within(0, 1))
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict, metadata=within(1, 99))
    notes: Mapping[str, Any] = field(default_factory=dict)
    on: bool = False


FULL = {
    "count": 7,
    "name": "b",
    "ratio": 0.5,
    "inner": {"ratio": 1.0},
    "many": [{"ratio": 0.25}, {"ratio": 0.75}],
    "widths": {"conv": 11},
    "notes": {"any": [None, {"thing": True}]},
    "on": True,
}


def test_a_value_survives_plain_data() -> None:
    value = read(Outer, FULL, "file")

    assert value.many == (Inner(ratio=0.25), Inner(ratio=0.75))
    assert to_plain(value) == FULL
    assert read(Outer, {"count": 7}, "file") == Outer(count=7)


def test_numbers_become_what_their_field_is() -> None:
    value = read(Outer, {"count": 7.0, "ratio": 1}, "file")

    assert (type(value.count), type(value.ratio)) == (int, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "file: expected a mapping, found []"),
        ({"count": 7, 3: 1}, "file: expected a text key, found 3"),
        ({"count": 7, "nam": "a"}, "file: unknown key 'nam' (did you mean 'name'?); allowed: count, inner, many,"),
        ({"name": "a"}, "file: missing key 'count'; allowed: count, name, ratio, inner, many, widths, notes, on"),
        ({"count": 7.5}, "file.count: expected a whole number, found 7.5"),
        ({"count": True}, "file.count: expected a whole number, found True"),
        ({"count": None}, "file.count: expected a whole number, found None"),
        ({"count": 7, "name": "c"}, "file.name: unknown value 'c'; allowed: a, b"),
        ({"count": 7, "name": 3}, "file.name: expected text, found 3"),
        ({"count": 7, "ratio": 1.5}, "file.ratio: 1.5 is out of range; allowed: [0, 1]"),
        ({"count": 7, "ratio": float("nan")}, "file.ratio: nan is out of range; allowed: [0, 1]"),
        ({"count": 7, "ratio": "1"}, "file.ratio: expected a number, found '1'"),
        ({"count": 7, "inner": {"ratio": 0}}, "file.inner.ratio: 0.0 is out of range; allowed: (0, 1]"),
        ({"count": 7, "many": {}}, "file.many: expected a list, found {}"),
        ({"count": 7, "many": [{"ratio": 1}, {}]}, "file.many[1]: missing key 'ratio'; allowed: ratio"),
        ({"count": 7, "widths": [1]}, "file.widths: expected a mapping, found [1]"),
        ({"count": 7, "widths": {"conv": 0}}, "file.widths.conv: 0 is out of range; allowed: [1, 99]"),
        ({"count": 7, "on": 1}, "file.on: expected true or false, found 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(Outer, data, "file")

    assert str(caught.value).startswith(message)


def test_a_field_or_a_value_alone_is_read_as_within_its_class() -> None:
    assert read_field(Outer, "many", [{"ratio": 1}], "here") == (Inner(ratio=1.0),)
    with pytest.raises(InputError, match=r"here.conv: 0 is out of range"):
        read_field(Outer, "widths", {"conv": 0}, "here")
    with pytest.raises(InputError, match=r"here\[1\]: 3 is out of range; allowed: \[1, 2\]"):
        read_value(tuple[int, ...], [2, 3], "here", within(1, 2))


def test_the_kinds_of_a_class_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, work_out = [], typing.get_type_hints
    monkeypatch.setattr(typing, "get_type_hints", lambda cls: asked.append(cls) or work_out(cls))
    schema._fields_of.cache_clear()

    for _ in range(7):
        read(Outer, FULL, "file")

    assert asked == [Outer, Inner]


def test_a_brief_mapping_is_written_down_unless_it_is_empty() -> None:
    @dataclass(frozen=True)
    class Prices:
        of: Mapping[str, float] = field(default_factory=dict, metadata=brief(within(0, 1)))

    assert to_plain(Prices()) == {}
    assert to_plain(Prices({"a": 0.5})) == {"of": {"a": 0.5}}


def test_a_brief_field_is_written_down_where_it_is_not_its_default() -> None:
    @dataclass(frozen=True)
    class Brief:
        count: int = 7
        share: float = field(default=0.5, metadata=brief(within(0, 1)))
        on: bool | None = field(default=None, metadata=brief())

    assert to_plain(Brief()) == {"count": 7}
    assert to_plain(Brief(share=0.25, on=False)) == {"count": 7, "share": 0.25, "on": False}
