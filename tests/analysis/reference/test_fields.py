"""Fields of dataclasses as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.analysis.reference.fields import Row, rows
from autoprune.schema import choices, or_words, within


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One of each kind.

    Fields:
        must: has no default.
        low, high: both ends; None = no end.
        seed: drawn.
        mode: how.
        parts: shares.
        names: of classes.
        given: True if said.
        inner: a part.
        share: of it.
        free: whatever.
    """

    must: str
    low: float | None = field(default=None, metadata=within(0, 11, open_low=True))
    high: float | None = field(default=None, metadata=within(0, 11, open_low=True))
    seed: int = field(default=7, metadata=within(0, 2**32 - 1))
    mode: str = field(default="one", metadata=choices("one", "two"))
    parts: tuple[float, ...] = field(default=(0.0, 1e7), metadata=within(0, 1e12))
    names: Mapping[str, str] = field(default_factory=dict)
    given: bool = False
    inner: Inner = field(default_factory=Inner)
    share: float | str | None = field(default="auto", metadata=or_words(within(0, 1), "auto", "all"))
    free: Any = None
    silent: str = ""
    quiet: str = ""


def test_a_row_says_default_limits_and_meaning() -> None:
    assert list(rows(Example)) == [
        Row(("must",), "", "text", "has no default."),
        Row(("low", "high"), "`null`", "number, (0, 11], or `null`", "both ends; `null` = no end."),
        Row(("seed",), "`7`", "whole number, [0, 4294967295]", "drawn."),
        Row(("mode",), "`one`", "`one`, `two`", "how."),
        Row(("parts",), "`[0, 1e07]`", "list of: number, [0, 1e12]", "shares."),
        Row(("names",), "`{}`", "mapping to: text", "of classes."),
        Row(("given",), "`false`", "`true`, `false`", "`true` if said."),
        Row(("inner",), "`{}`", "mapping", "a part."),
        Row(("share",), "`auto`", "number, [0, 1], or `auto`, or `all`, or `null`", "of it."),
        Row(("free",), "`null`", "see there", "whatever."),
        Row(("silent",), '`""`', "text", ""),
        Row(("quiet",), '`""`', "text", ""),
    ]
