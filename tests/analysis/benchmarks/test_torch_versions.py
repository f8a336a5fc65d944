"""Rows of one model under several versions of torch: what counts as a difference, and what the page says of it."""

from __future__ import annotations

import sys

import pytest
import torch

from autoprune.analysis.benchmarks import torch_versions
from autoprune.analysis.benchmarks.torch_versions import differences, measure, table
from autoprune.analysis.benchmarks.zoo_models import Entry

REASON = "the model's code fixes its size"


def row(model: str, version: str, *, frozen: int = 2, words: str = "") -> torch_versions.Row:
    numbers = {"flops": 700, "groups": 11, "frozen": frozen, "rigid": 0.25, "lost": 0.5, "smallest": 0.1}
    return {"model": model, "torch": version, **numbers, "reasons": [(REASON + words, 0.13)]}


def test_a_model_is_measured_and_one_that_cannot_be_built_says_why() -> None:
    found = measure(Entry("own", "three", "chain", "nets:Chain", size=8))
    absent = measure(Entry("own", "four", "chain", "nets:Nothing", size=8))

    assert (found["model"], found["groups"], found["frozen"]) == ("own/three", 3, 1)
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert absent["error"] == "AttributeError: module 'nets' has no attribute 'Nothing'"
    assert differences([found, {**absent, "model": "own/three", "torch": "0.1.0"}]) == {}


def test_a_model_differs_if_any_number_does_but_not_for_torchs_own_words() -> None:
    same = [row("a", "2.6.0", words=": size N"), row("a", "2.11.0", words=": Size [N]")]
    other = [row("b", "2.6.0"), row("b", "2.11.0", frozen=3)]

    found = differences(same + other)

    assert list(found) == ["b"]
    assert {name: text.split()[5] for name, text in found["b"].items()} == {"2.6.0": "2", "2.11.0": "3"}


def test_the_page_has_a_line_for_every_version_in_order_and_one_for_every_difference() -> None:
    rows = [row("a", "2.11.0"), row("a", "2.6.0"), row("b", "2.11.0"), {**row("b", "2.6.0"), "frozen": 5}]
    lines = table(rows).splitlines()

    assert "| 2.6.0 | 2 | 0 | 22 | 7 | 0.2500 | 0.5000 |" in lines
    assert lines.index("| 2.11.0 | 2 | 0 | 22 | 4 | 0.2500 | 0.5000 |") > lines.index(
        "| 2.6.0 | 2 | 0 | 22 | 7 | 0.2500 | 0.5000 |"
    )
    assert [line[:5] for line in lines if line.startswith("- ")] == ["- b: "]
    assert "No model differs" in table([row("a", "2.6.0"), row("a", "2.15.0")])


def test_what_was_measured_is_compared(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    file = tmp_path / "rows.jsonl"
    for arguments in (["measure", file, "--models", "squeezenet1_1"], ["compare", file, "--table", tmp_path / "t.md"]):
        monkeypatch.setattr(sys, "argv", ["torch_versions", *map(str, arguments)])
        torch_versions.main()

    version = torch.__version__.partition("+")[0]
    assert f"{version} torchvision/squeezenet1_1 flops" in capsys.readouterr().out
    assert f"| {version} | 1 | 0 |" in (tmp_path / "t.md").read_text()
