"""IncReg: penalties by mean rank, the curve of increments, removal for good and in number."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from nets import Chain, Depthwise, Residual, randomised
from regularisers import build, context, drive, norms, resumed, stage
from torch import nn

from autoprune.methods.increg import RankPenalty, increment


def penalty(net: nn.Module, steps: int = 40, flops: float = 0.5, **params: float) -> RankPenalty:
    method = build("increg", **params)
    return method.sparsify(context(net), stage(method, steps, flops))


def curve(places: list[int], left: int, bend: float = 0.25) -> list[float]:
    return increment(torch.tensor(places).double(), torch.tensor(float(left)).double(), 1.0, bend).tolist()


def test_the_increments_that_were_computed_by_hand() -> None:
    # u = 1/4, R = 20: a = ln 8 / 20, N1 = 40/3; e.g. D(21) = 1/2 - exp(-a (80/3 - 21)) = -0.055
    assert curve([0, 20, 21, 30, 40], 20) == pytest.approx([1, 0, -0.0548, -0.914, -3.5], abs=1e-3)
    assert curve([10], 20) == pytest.approx([8**-0.5])


@pytest.mark.parametrize("left", [1, 2, 7, 60])
@pytest.mark.parametrize("bend", [0.1, 0.25, 0.5])
def test_the_curve_is_the_whole_increment_for_the_weakest_zero_at_the_last_and_falls(left: int, bend: float) -> None:
    values = curve(list(range(3 * left + 2)), left, bend)

    assert values[0] == pytest.approx(1)
    assert values[left] == pytest.approx(0, abs=1e-12)
    assert all(later < sooner for sooner, later in itertools.pairwise(values))


def test_the_mean_rank_is_the_mean_of_all_ranks_so_far() -> None:
    net = randomised(Chain())
    regulariser = penalty(net, every=1, first=0.9)
    units = context(net).graph.by_id["first.0"].units
    history = []
    random = np.random.default_rng(0)
    for step in range(9):
        net.first[0].weight.data.copy_(torch.from_numpy(random.random((7, 1, 1, 1)).astype("f")).expand(7, 3, 3, 3))
        history.append(np.argsort(np.argsort(norms(net.first[0]))))
        regulariser.before_step(_idle(net), step, 40)

    assert regulariser.mean_rank[torch.tensor(units)].tolist() == pytest.approx(np.mean(history, axis=0).tolist())


def _idle(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return net


def test_a_unit_that_recovers_loses_its_penalty_and_none_is_ever_negative() -> None:
    net = randomised(Chain())
    case = context(net)
    units = torch.tensor(case.graph.by_id["second.0"].units)
    regulariser = penalty(net, every=1, first=0.9, steps=100)
    weakest = int(norms(net.second[0]).argmin())
    seen: list[float] = []
    least: list[float] = []

    def look(step: int) -> None:
        seen.append(float(regulariser.penalty[units[weakest]]))
        least.append(float(regulariser.penalty.min()))
        if step == 20:
            net.second[0].weight.data[weakest] = 10.0

    drive(net, regulariser, 80, look=look)

    peak = int(np.argmax(seen))
    assert 20 <= peak < 40
    assert seen[peak] > 0 == seen[-1]
    assert all(later <= sooner for sooner, later in itertools.pairwise(seen[peak:]))
    assert min(least) == 0


def test_with_weights_that_do_not_move_the_weakest_goes_when_its_penalty_reaches_the_ceiling() -> None:
    net = randomised(Chain())
    regulariser = penalty(net, every=1, first=0.25, steps=40)
    assert math.ceil(regulariser.ceiling / regulariser.amount - 1e-6) == 10
    removed: list[int] = []
    drive(net, regulariser, 39, look=lambda step: removed.append(int(regulariser.removed.sum())))

    assert removed[8] == 0
    assert removed[9] == len(regulariser.units.groups)  # the weakest of every group, at the tenth update


def test_after_a_removal_the_next_weakest_takes_its_place_on_the_curve() -> None:
    net = randomised(Chain())
    case = context(net)
    units = torch.tensor(case.graph.by_id["second.0"].units)
    regulariser = penalty(net, every=1, first=0.25, steps=40, flops=0.3)
    for step in range(10):
        regulariser.before_step(_idle(net), step, 40)
    order = units[np.argsort(norms(net.second[0]), kind="stable").copy()]
    assert regulariser.removed[order[0]]
    left = int(regulariser.lost[units[0]]) - int(regulariser.removed[units].sum())
    assert left > 1
    before = regulariser.penalty[order[1]].clone()
    regulariser._update_penalties(net)

    assert float(regulariser.penalty[order[1]] - before) == pytest.approx(regulariser.amount * curve([0], left)[0])


def test_exactly_as_many_as_the_target_asks_for_end_zero_and_none_comes_back() -> None:
    net = randomised(Residual(stream=23, inner=31))
    case = context(net)
    regulariser = penalty(net, steps=60, first=0.3, every=2)
    gone: list[set[int]] = []

    def look(step: int) -> None:
        gone.append(set(torch.nonzero(regulariser.removed).flatten().tolist()))
        net.a1[0].weight.data += 0.01  # what momentum and gradients may do

    drive(net, regulariser, 60, look=look)
    kept = {group.id: len(dict(regulariser.keep().kept)[group.id]) for group in case.graph.prunable}

    assert all(sooner <= later for sooner, later in itertools.pairwise(gone))
    for group in case.graph.prunable:
        assert group.size - kept[group.id] == int(regulariser.lost[group.units[0]]) > 0
    assert (
        len(gone[-1])
        == regulariser.at_ceiling + regulariser.at_end
        == int(sum(g.size - kept[g.id] for g in case.graph.prunable))
    )
    assert regulariser.at_ceiling > 0
    lost = sorted(set(range(31)) - set(dict(regulariser.keep().kept)["b1.0"]))
    assert not net.b1[0].weight[lost].any()


def test_a_group_that_is_done_is_under_no_penalty() -> None:
    net = randomised(Chain())
    regulariser = penalty(net, steps=400, first=0.05, every=1)
    drive(net, regulariser, 399)

    assert (
        regulariser.at_ceiling
        == int(regulariser.removed.sum())
        == int((regulariser.units.full(0) > 0).sum())
        + sum(int(regulariser.lost[g.units[0]]) for g in regulariser.units.groups)
    )
    assert not regulariser.penalty.any()


def test_the_gradient_grows_by_penalty_times_weight_of_every_coupled_filter() -> None:
    net = randomised(Residual())
    regulariser = penalty(net)
    regulariser.before_step(_idle(net), 0, 40)
    units = {name: units for name, _, units in regulariser.units.slots}
    assert float(regulariser.penalty.max()) > 0

    for name in ("stem.0", "a2", "b2"):
        weight = net.get_submodule(name).weight
        strength = regulariser.penalty.float()[units[f"{name}.weight"]][:, None, None, None]
        assert torch.equal(weight.grad, (strength * weight).detach())
    assert not net.a2.bias.grad.any()


def test_an_interrupted_stage_ends_with_the_same_bits() -> None:
    def make() -> tuple[nn.Module, RankPenalty]:
        net = randomised(Depthwise())
        return net, penalty(net, steps=30, every=2, first=0.2)

    assert resumed(make, 30, 9)
    assert resumed(make, 30, 22)
