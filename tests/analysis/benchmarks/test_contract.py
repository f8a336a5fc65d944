"""The benchmark of the target contract: small nets keep it, and each way of breaking it is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nets import Chain, Grouped
from torch import nn

from autoprune.analysis.benchmarks import contract
from autoprune.analysis.benchmarks.contract import Case, Subject
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.errors import TargetError
from autoprune.tasks import zoo

NETS: dict[str, Callable[..., nn.Module]] = {
    "chain": lambda *_: Chain(37, 41),
    "grouped": lambda *_: Grouped(groups=3, offset=11),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small nets are the models."""
    for name, build in NETS.items():
        monkeypatch.setitem(zoo.ZOO, name, build)
        monkeypatch.setitem(contract.SIDES, name, 9)


def outcome(case: Case) -> contract.Result:
    return Subject(case.model, 0).check(case)


@pytest.mark.parametrize("name", NETS)
def test_small_nets_keep_the_contract(name: str) -> None:
    report = contract.run(name, 0)

    assert Counter(result.outcome for result in report.results) == {
        "met": report.count("met"),
        "refused": report.count("refused"),
    }
    assert report.count("met") >= 10  # of 54; the grouped net has few widths in multiples of 8
    assert report.count("refused") >= 6  # below what is within reach: once for each strategy and multiple
    assert list(report.lowest) == sorted(report.lowest)


def test_a_refusal_is_held_to_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> Keep:
        raise TargetError("flops: 0.5 cannot be reached", where="target", allowed="flops >= 0.6")

    monkeypatch.setattr(contract, "allocate", refuses)
    result = outcome(Case("chain", "uniform", 1, 0.5))

    assert result.outcome == "broken"
    assert "names [0.6]" in result.said


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("cannot be reached; allowed: flops >= 0.5", [0.5]),
        ("found no widths; allowed: a ratio near flops: 0.5 or flops: 0.9", [0.5]),
    ],
)
def test_a_refusal_of_what_could_be_had_is_needless(said: str, names: list[float]) -> None:
    refusal = contract.Result(Case("chain", "uniform", 1, 0.505), "refused", said=said)

    assert contract.needless(refusal, names)
    assert not contract.needless(refusal, [0.9])


def test_another_cost_than_asked_for_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "allocate", lambda *_: Keep.of({"first.0": [0]}))
    result = outcome(Case("chain", "uniform", 1, 0.5))

    assert result.outcome == "broken"
    assert "instead of 0.5" in result.said


def test_a_cut_that_costs_something_else_than_promised_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject("chain", 0)
    count = subject.flops
    monkeypatch.setattr(subject, "flops", lambda model: count(model) + 2)
    result = subject.check(Case("chain", "uniform", 1, 0.5))

    assert result.outcome == "broken"
    assert "were promised" in result.said


def test_widths_that_are_no_multiples_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "allocate", lambda graph, scores, target, _how: allocate(graph, scores, target))
    result = outcome(Case("chain", "uniform", 8, 0.5))

    assert result.outcome == "broken"
    assert "no multiple of 8" in result.said


def test_a_crash_is_a_broken_case_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crashes(*_: Any, **__: Any) -> nn.Module:
        raise ZeroDivisionError("of course")

    monkeypatch.setattr(contract, "prune", crashes)
    monkeypatch.setattr("sys.argv", ["contract", "--models", "chain", "--table", str(tmp_path / "table.md")])

    assert contract.main() == 1
    text = (tmp_path / "table.md").read_text()
    assert "ZeroDivisionError: of course" in text
    assert "| chain |" in text
