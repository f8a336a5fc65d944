"""Docstrings of dataclasses, read: above the fields, each field, and as Markdown."""

from __future__ import annotations

from autoprune.analysis.reference.docstrings import cell, introduction, markdown, meanings


class Base:
    """A base.

    Fields:
        share: of eleven.
        scope: of the base.
    """


class Own(Base):
    """What it does
    in two lines.

    And more.

    Fields:
        first, second: the ends,
            of seven.
        scope: its own: said anew.

    Behind the fields.
    """


class Bare(Base):
    pass


def test_the_introduction_is_what_stands_above_the_fields() -> None:
    assert introduction(Own) == "What it does\nin two lines.\n\nAnd more."
    assert introduction(Bare) == ""


def test_fields_are_explained_by_the_nearest_class() -> None:
    explained = {
        ("first", "second"): "the ends, of seven.",
        ("scope",): "its own: said anew.",
        ("share",): "of eleven.",
    }

    assert meanings(Own) == explained
    assert meanings(Bare) == {("share",): "of eleven.", ("scope",): "of the base."}


def test_signs_of_markdown_mean_themselves_outside_of_code() -> None:
    assert markdown("a * b < |c| `d * |e|`\n    x > y") == r"a \* b \< \|c\| `d * |e|`" + "\n    x > y"
    assert cell("|a| `|b|`") == r"\|a\| `\|b\|`"
