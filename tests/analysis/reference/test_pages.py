"""Pages and classes agree: a generated part is what the classes of now give."""

from __future__ import annotations

import pytest

from autoprune.analysis.reference.pages import DOCS, GENERATED, renewed, with_generated


@pytest.mark.parametrize("name", GENERATED)
def test_a_page_is_as_the_classes_are(name: str) -> None:
    as_it_is, as_it_should_be = (DOCS / name).read_text(encoding="utf-8"), renewed(DOCS / name)

    assert as_it_is == as_it_should_be, "renew it by: make pages"


def test_what_is_written_by_hand_stays() -> None:
    page = "above\n<!-- generated: keys -->\nold\n<!-- end -->\nbelow\n"

    assert with_generated(page, "keys", "new\n") == "above\n<!-- generated: keys -->\n\nnew\n\n<!-- end -->\nbelow\n"


def test_a_page_without_the_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part 'keys'"):
        with_generated("above\n", "keys", "new")
