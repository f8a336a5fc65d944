"""Every row of the table of failures names a test that is there, in the file where it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = "| what happens | what becomes of it | seen by the test |"


def rows() -> list[tuple[str, str]]:
    """What happens, and the test of it; \"the same\" stands for the row above."""
    text = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    lines = text.partition(HEAD)[2].strip().splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]
    found: list[tuple[str, str]] = []
    for happens, _result, test in cells:
        found.append((happens, found[-1][1] if test == "the same" else test.strip("`")))
    return found


@pytest.mark.parametrize(("happens", "test"), rows())
def test_the_test_of_a_failure_is_there(happens: str, test: str) -> None:
    file, _, name = test.partition("::")
    functions = [
        node.name
        for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    ]

    assert re.fullmatch(r"test_\w+", name), happens
    assert name in functions


def test_the_table_has_every_failure_that_a_search_must_outlive() -> None:
    said = " ".join(happens for happens, _test in rows())

    for word in (
        "scoring",
        "training",
        "evaluation",
        "pauses",
        "added",
        "driver is killed",
        "full",
        "hangs",
        "damaged",
        "several is killed",
        "out of reach",
        "two drivers",
        "jumps",
        "notice",
        "object store",
    ):
        assert word in said, word
