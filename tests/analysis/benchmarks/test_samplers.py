"""The benchmark of samplers: the made-up network behaves as one, searches can be repeated, the table by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.analysis.benchmarks.samplers import (
    COUNTS,
    DENSE_ACCURACY,
    Search,
    answer,
    measure,
    milliseconds,
    network,
    read_rows,
    search,
    table,
)
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.config import Sampler
from autoprune.study.outcome import Proposal


def recipe(name: str, flops: float | None = 0.5, lr: float = 0.025) -> Recipe:
    return Recipe(
        method=MethodChoice(name=name),
        target=Target(flops=flops),
        allocation=Allocation(name="uniform"),
        training=Training(lr=lr),
    )


def test_accuracy_falls_with_what_is_pruned_and_with_a_rate_that_is_off() -> None:
    accuracies = [network().judged(recipe("l1", flops))[0] for flops in (0.8, 0.6, 0.4, 0.2)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] < DENSE_ACCURACY
    assert network().judged(recipe("l1"))[0] - network().judged(recipe("l1", lr=0.25))[0] == pytest.approx(0.065)
    assert network().judged(recipe("dense", None)) == (DENSE_ACCURACY, 1.0)


def test_a_method_that_sees_better_loses_less() -> None:
    taylor, l1, random = (network().judged(recipe(name))[0] for name in ("taylor", "l1", "random"))
    assert taylor > l1 > random


def test_what_is_told_is_noisy_and_the_same_every_time() -> None:
    proposal = Proposal(id=3, recipe=recipe("l1"))
    told, exact = answer(proposal)
    assert told.accuracy != exact.accuracy
    assert abs((told.accuracy or 0) - (exact.accuracy or 0)) < 0.03
    assert answer(proposal)[0] == told
    impossible, _ = answer(Proposal(id=3, recipe=recipe("l1", 0.001)))
    assert (impossible.status, impossible.accuracy) == ("failed", None)


def test_a_search_is_made_once_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.analysis.benchmarks.samplers.SIZES", (7,))
    measure(tmp_path / "rows", ["random"], seeds=1, proposals=41)
    rows = (tmp_path / "rows").read_text()
    measure(tmp_path / "rows", ["random"], seeds=1, proposals=41)

    assert (tmp_path / "rows").read_text() == rows
    (found,), times = read_rows(tmp_path / "rows")
    assert set(times) == {("random", 7)}
    again = search(Sampler(name="random", startup=15), 0, 41)
    assert (found.sampler, found.seed, found.volumes) == (again.sampler, again.seed, again.volumes)
    assert len(found.volumes) == 1
    assert 0.5 < found.volumes[0] < DENSE_ACCURACY


def test_the_table_has_means_and_standard_errors() -> None:
    rows = [Search("tpe", 0, (0.7, 0.8), 1.0), Search("tpe", 1, (0.5,), 1.0), Search("gp", 0, (0.25,), 1.0)]
    text = table(rows, {("tpe", 100): 7.4}).splitlines()

    assert text[0].startswith("| sampler | " + " | ".join(f"after {count}" for count in COUNTS))
    assert text[2] == "| tpe | 0.6000 ± 0.1000 | 0.8000 |  | 2 | 7 |  |  |"
    assert text[3] == "| gp | 0.2500 |  |  | 1 |  |  |  |"


def test_a_proposal_takes_time() -> None:
    assert milliseconds("random", 11) > 0
