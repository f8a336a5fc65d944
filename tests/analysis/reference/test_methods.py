"""Every method has its section."""

from __future__ import annotations

import re

import pytest

from autoprune.analysis.reference import methods
from autoprune.methods import METHODS


def test_every_hyper_parameter_is_explained() -> None:
    assert methods.unexplained() == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_line_and_its_section(name: str) -> None:
    text = methods.text()

    assert f"| [`{name}`](#{name}) |" in text
    assert f"## `{name}`\n\n*" in text


def test_ranges_and_stages_are_those_that_methods_declare() -> None:
    text = methods.text()

    assert "| `images` | `1024` | whole number, [1, 1e09] | [128, 8192], log |" in text
    assert re.search(r"\| \[`fuzzy`\].*\| 20%, 3 cuts \|", text)
    assert re.search(r"\| \[`l1`\].*\| none \|", text)


def test_methods_of_one_module_share_its_figure() -> None:
    assert methods.figure_of(METHODS["asrfp"]) == methods.figure_of(METHODS["sfp"]) == "soft.svg"
    assert methods.figure_of(METHODS["l1"]) is None
    assert methods.text().count("../analysis/claims/soft.svg") == 4
