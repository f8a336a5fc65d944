"""GReg: a penalty that grows on some filters, or first on all, by hand arithmetic and on quadratic losses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from nets import Chain, Depthwise, Residual, block, randomised
from regularisers import build, context, drive, idle, norms, resumed, stage
from torch import nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.tracing.trace import trace
from autoprune.methods.base.units import Units
from autoprune.methods.greg import Growth, Schedule
from autoprune.recipe import Allocation, Target


def growth(net: nn.Module, name: str = "greg1", steps: int = 40, **params: float) -> Growth:
    method = build(name, **params)
    return method.sparsify(context(net), stage(method, steps))


def test_the_penalty_of_a_pruned_filter_is_d_times_one_plus_the_floor_of_n_minus_one_over_k_until_tau() -> None:
    net = randomised(Chain())
    regulariser = growth(net, every=3, growth=0.5, steps=42)  # raised at steps 0, 3, ..., 18: seven times
    d, tau = regulariser.schedule.step, regulariser.schedule.ceiling
    seen: list[float] = []
    drive(net, regulariser, 42, look=lambda step: seen.append(float(regulariser.strength.max())))

    assert seen == pytest.approx([d * min(7, 1 + step // 3) for step in range(42)])
    assert seen[-1] == pytest.approx(tau)


def test_tau_shrinks_a_weight_without_a_gradient_by_the_factor_that_was_asked_for() -> None:
    net = randomised(Chain())
    method = build("greg1", shrink=100.0, growth=1.0, every=1, lr=0.001)
    case = context(net)
    regulariser = method.sparsify(case, stage(method, 400))
    before, pruned = norms(net.first[0]), regulariser.removed[torch.tensor(case.graph.by_id["first.0"].units)].numpy()
    drive(net, regulariser, 400, lr=0.001 / (1 - 0.9))  # what momentum of 0.9 makes of the rate in the long run

    assert before[pruned] / norms(net.first[0])[pruned] == pytest.approx(np.full(pruned.sum(), 100), rel=0.15)
    assert norms(net.first[0])[~pruned] == pytest.approx(before[~pruned])


def test_the_gradient_grows_by_penalty_times_weight_and_nothing_else_is_touched() -> None:
    net = randomised(Residual())
    regulariser = growth(net, press="filters")
    idle(net)
    regulariser.before_step(net, 0, 40)

    units = {name: units for name, _, units in regulariser.units.slots}
    for name in ("stem.0", "a2", "a1.0"):
        layer, strength = net.get_submodule(name), units[f"{name}.weight"]
        expected = regulariser.strength[strength][:, None, None, None] * layer.weight
        assert torch.equal(layer.weight.grad, expected.detach())
    touched = {name for name, p in net.named_parameters() if p.grad.any()}
    assert touched == {"stem.0.weight", "a1.0.weight", "a2.weight", "b1.0.weight", "b2.weight"}
    assert not net.a2.bias.grad.any()


def test_norms_are_pressed_as_their_filters_are() -> None:
    net = randomised(Residual())
    regulariser = growth(net)
    idle(net)
    regulariser.before_step(net, 0, 40)
    units = {name: units for name, _, units in regulariser.units.slots}
    strength = regulariser.strength[units["a1.0.weight"]]

    assert strength.any()
    assert torch.equal(net.a1[1].weight.grad, (strength * net.a1[1].weight).detach())
    assert torch.equal(net.a1[1].bias.grad, (strength * net.a1[1].bias).detach())


def test_the_filters_of_least_mean_magnitude_are_chosen_before_anything_is_trained() -> None:
    net = randomised(Chain())
    case = context(net)
    method = build("greg1")
    regulariser = method.sparsify(case, stage(method))
    expected = allocate(case.graph, method.score(case), Target(flops=0.5), Allocation(name="uniform"))

    assert regulariser.keep() == expected
    lost = sorted(set(range(11)) - set(dict(expected.kept)["second.0"]))
    assert lost == sorted(np.argsort(norms(net.second[0]))[: len(lost)].tolist())
    assert method.score(case)["second.0"] == pytest.approx(norms(net.second[0]) / (7 * 9))


def test_pruned_filters_fade_and_kept_ones_stay() -> None:
    net = randomised(Chain())
    method = build("greg1")
    case = context(net)
    regulariser = method.sparsify(case, stage(method, 300))
    before = norms(net.first[0])
    lost = regulariser.removed[torch.tensor(case.graph.by_id["first.0"].units)].numpy()
    seen: list[np.ndarray] = []
    drive(net, regulariser, 300, lr=0.1, look=lambda step: seen.append(norms(net.first[0])))

    assert all((later <= sooner)[lost].all() for sooner, later in itertools.pairwise(seen))
    assert (seen[-1][lost] < 1e-3 * before[~lost].mean()).all()
    assert (seen[-1][~lost] == before[~lost]).all()
    assert regulariser.separation(net) > 1000


def test_greg2_presses_on_all_alike_and_then_takes_what_has_become_smallest() -> None:
    net = randomised(Chain())
    regulariser = growth(net, "greg2", every=2, growth=1.0, pick=0.25, steps=40)  # 10 steps to pick, raised five times
    inside = regulariser.units.table[regulariser.units.table < regulariser.units.count]
    seen: list[list[float]] = []

    def look(step: int) -> None:
        if step == 9:  # the weights as they are when the first part ends
            net.first[0].weight.data.copy_(torch.arange(7, 0, -1)[:, None, None, None].expand(7, 3, 3, 3))
        seen.append(regulariser.strength[inside].tolist())

    drive(net, regulariser, 40, look=look)

    assert all(len(set(strengths)) == 1 for strengths in seen[:10])
    assert seen[9][0] == pytest.approx(regulariser.pick.ceiling)
    kept = dict(regulariser.keep().kept)["first.0"]
    assert kept == tuple(range(len(kept)))  # the largest stand first
    assert sorted(set(seen[10])) == pytest.approx([-5e-4, regulariser.pick.ceiling + regulariser.schedule.step])
    assert max(seen[-1]) == pytest.approx(regulariser.schedule.ceiling)


def test_under_an_equal_penalty_weights_follow_h_over_h_plus_lambda() -> None:
    """On a quadratic loss h / 2 (w - w0)^2 the minimum under a penalty is h / (h + lambda) w0: GReg-2, section 3.3."""
    curvature, penalty = torch.tensor([0.1, 1.0, 10.0]), 0.5
    net = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 5, 1), nn.Flatten())
    start = torch.full((3, 1, 1, 1), 2.0)
    net[0].weight.data.copy_(start)
    graph = trace(net, torch.zeros(1, 1, 9, 9))
    schedule = Schedule(every=1, step=penalty, ceiling=penalty)
    units = Units.of(net, graph, graph.prunable)
    regulariser = Growth(units, units, schedule, pick=schedule, choose=lambda scores: None)
    for step in range(4000):
        idle(net)
        net[0].weight.grad.copy_(curvature[:, None, None, None] * (net[0].weight.detach() - start))
        if step == 0:
            regulariser._raise_penalty(net)
        regulariser.units.pull(net, regulariser.strength)
        net[0].weight.data.sub_(0.05 * net[0].weight.grad)

    assert net[0].weight.flatten().tolist() == pytest.approx((2 * curvature / (curvature + penalty)).tolist(), rel=1e-3)


def test_a_stage_too_short_to_pick_still_chooses() -> None:
    net = randomised(Chain())
    regulariser = growth(net, "greg2", steps=2, every=5)
    drive(net, regulariser, 2)

    assert regulariser.keep().kept


@pytest.mark.parametrize("name", ["greg1", "greg2"])
def test_an_interrupted_stage_ends_with_the_same_bits(name: str) -> None:
    def make() -> tuple[nn.Module, Growth]:
        net = randomised(Depthwise())
        return net, growth(net, name, steps=23, every=2)

    assert resumed(make, 23, 5)
    assert resumed(make, 23, 17)


def test_the_rate_of_the_stage_is_its_own_and_constant() -> None:
    training = stage(build("greg1", lr=0.004), lr=0.5, schedule="cosine", warmup=0.3, ema=0.9, distill=0.5).training

    assert (training.lr, training.schedule, training.warmup, training.ema, training.distill) == (
        0.004,
        "constant",
        0,
        0,
        0,
    )


def test_the_faithful_scope_leaves_the_residual_stream_alone() -> None:
    net = randomised(Residual(stream=23, inner=31))
    method = build("greg1", scope="faithful")
    case = context(net)

    assert set(method.score(case)) == {"a1.0", "b1.0"}
    assert set(build("greg1").score(case)) == {"stem.0", "a1.0", "b1.0"}
    assert set(dict(method.sparsify(case, stage(method, flops=0.7)).keep().kept)) == {"a1.0", "b1.0"}


def test_a_depthwise_layer_follows_the_layer_before_it_into_the_faithful_scope() -> None:
    net = randomised(nn.Sequential(block(3, 7), block(7, 7, groups=7), nn.Flatten(), nn.Linear(7 * 25, 5)))

    assert set(build("greg1", scope="faithful").score(context(net))) == {"0.0"}
