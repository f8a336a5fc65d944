"""Chains of cuts on the digits: what a link costs, where a chain ends, which links count, what a space says of it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.analysis.benchmarks import plain_chain
from autoprune.analysis.benchmarks.plain_chain import (
    Link,
    chain,
    chains,
    cuts_of_torch_pruning,
    finished_in_time,
    own_cuts,
    training_of,
)
from autoprune.errors import TargetError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState
from tests.helpers.commands import DIGITS_DATA, UNTRAINED

BRIEF = Training(images=64, batch_size=64, distill=0.5, rungs=(1.0,))


@pytest.fixture(scope="module")
def digits() -> SharedState:
    return SharedState.of(load_task({"data": DIGITS_DATA, "model": UNTRAINED}), Runtime())


def plan_of(**changes: Any) -> plain_chain.Plan:
    plain = {"network": "resnet20", "seed": 7, "factor": 0.3, "cuts": None, "training": BRIEF, "runtime": Runtime()}
    return plain_chain.Plan(**{**plain, "began": 0.0, "seconds": 11.0, **changes})


def links_of(shared: SharedState, factor: float) -> Iterator[Link]:
    return chain(shared, BRIEF, own_cuts(shared, factor, seed=3), seed=3)


def test_every_cut_goes_on_from_the_last_down_to_the_floor(digits: SharedState) -> None:
    links = list(links_of(digits, 0.5))

    # 1/2, 1/4, 1/8, 1/16, each within 1 % of what the model before it cost; half of the last is below the floor
    assert [link.flops for link in links] == pytest.approx([0.5, 0.25, 0.125, 0.0625], rel=0.08)
    assert links[-1].flops * 0.5 < plain_chain.FLOOR
    sizes = [sum(weights.numel() for weights in link.model.parameters()) for link in links]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_a_link_is_what_was_measured_and_not_what_the_next_cut_made_of_it(digits: SharedState) -> None:
    first, second = itertools.islice(links_of(digits, 0.5), 2)

    for link in (first, second):
        assert plain_chain.evaluate(link.model, digits.task.validation, digits.task, digits.exact) == link.accuracy


def test_a_chain_ends_where_no_widths_meet_the_target_but_not_before_the_first_cut(
    digits: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, left = plain_chain._cut, [True, True]

    def refuses_at_last(*arguments: Any) -> nn.Module:
        if not left:
            raise TargetError("no widths")
        left.pop()
        return cut(*arguments)

    monkeypatch.setattr(plain_chain, "_cut", refuses_at_last)
    assert len(list(links_of(digits, 0.7))) == 2
    with pytest.raises(TargetError, match="no widths"):
        next(links_of(digits, 0.7))


def test_a_chain_that_has_ended_begins_again_with_another_seed(
    digits: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def two_cuts(_shared: object, factor: float, seed: int) -> list[str]:
        assert factor == 0.3
        seeds.append(seed)
        return ["wide", "narrow"]

    monkeypatch.setattr(plain_chain, "own_cuts", two_cuts)
    monkeypatch.setattr(plain_chain, "chain", lambda _shared, _training, cuts, seed: [(cut, seed) for cut in cuts])
    links: list[Any] = list(itertools.islice(chains(digits, plan_of(), 0), 5))
    list(itertools.islice(chains(digits, plan_of(), 1), 1))

    assert links == [
        *itertools.product(["wide", "narrow"], seeds[:1]),
        *itertools.product(["wide", "narrow"], seeds[1:2]),
        ("wide", seeds[2]),
    ]
    assert len(seeds) == len(set(seeds)) == 4  # three chains of one worker, one of another


class ZeroingPruner:
    """In place of Torch-Pruning's: a step only empties the first layer, in place."""

    made: dict[str, Any]

    def __init__(self, model: nn.Module, _example: object, criterion: object, **options: Any) -> None:
        ZeroingPruner.made = {"criterion": criterion, **options}
        self.model = model

    def step(self) -> None:
        with torch.no_grad():
            next(self.model.parameters()).zero_()


def test_another_tool_cuts_so_often_ranked_as_the_worker_does(
    digits: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake: Any = ModuleType("torch_pruning.pruner")
    fake.MagnitudePruner = ZeroingPruner
    fake.importance = SimpleNamespace(GroupMagnitudeImportance=lambda p: f"l{p}", FPGMImportance=lambda: "fpgm")
    monkeypatch.setitem(sys.modules, "torch_pruning", ModuleType("torch_pruning"))
    monkeypatch.setitem(sys.modules, "torch_pruning.pruner", fake)
    ranked = []
    for rank in range(4):
        models = list(cuts_of_torch_pruning(digits, 3, rank))
        ranked.append(ZeroingPruner.made["criterion"])

    assert ranked == ["l1", "fpgm", "l2", "l1"]
    assert len(models) == 3
    assert not next(models[0].parameters()).any()
    assert next(digits.model.parameters()).any()  # a copy is cut
    made = ZeroingPruner.made
    assert made["ignored_layers"] == [models[0].classifier]
    assert (made["iterative_steps"], made["pruning_ratio"], made["global_pruning"]) == (3, 0.95, True)
    assert next(chains(digits, plan_of(cuts=1), 0)).flops == 1.0  # a chain of them, measured as ours


def test_what_is_finished_too_late_does_not_count() -> None:
    links = [Link(nn.Identity(), 0.5, 0.7), Link(nn.Identity(), 0.25, 0.5), Link(nn.Identity(), 0.125, 0.3)]
    clock = iter([5.0, 11.0, 11.5])

    assert list(finished_in_time(links, lambda: next(clock), 11.0)) == [(5.0, links[0]), (11.0, links[1])]


def test_the_front_of_a_worker_is_measured_on_images_that_nothing_was_selected_by(
    digits: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = [Link(digits.model, 0.5, 0.7), Link(digits.model, 0.3, 0.8), Link(digits.model, 0.1, 0.2)]
    clock = iter([3.0, 5.0, 7.0])
    monkeypatch.setattr(plain_chain, "_task_of", lambda _: digits.task)
    monkeypatch.setattr(plain_chain, "chains", lambda *_: links)
    monkeypatch.setattr(plain_chain.Plan, "elapsed", lambda _: next(clock))
    rows = plain_chain.run_worker(plan_of(seconds=7.0, runtime=Runtime(threads=torch.get_num_threads())), 0)
    unseen = plain_chain.evaluate(digits.model, digits.task.test, digits.task, digits.exact)

    # the first is beaten by the second
    assert rows == [(3.0, 0.7, 0.5, None), (5.0, 0.8, 0.3, unseen), (7.0, 0.2, 0.1, unseen)]


def test_training_is_that_of_the_ready_space_but_for_its_length_and_rate() -> None:
    training = training_of("resnet20", 1700, 0.07)

    assert (training.images, training.lr, training.rungs) == (1700, 0.07, (1.0,))
    assert (training.batch_size, training.distill, training.ema) == (128, 0.5, 0.97)
    assert replace(training, images=3400) == training_of("resnet20", 3400, 0.07)
