"""L0-HQS: the two halves of its steps, its schedule, what it does to gaps, where it cuts, and resuming to the bit."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import NETS, Depthwise, Residual, image, randomised
from regularisers import cross_entropy, predict
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context, Selection, Stage
from autoprune.methods.base.units import Units
from autoprune.methods.bn_scale import BNScale
from autoprune.methods.l0_hqs import CLEAR, L0HQS, LIFT, Schedule, Splitting, gaps, gates, saliency
from autoprune.recipe import Allocation, Target, Training
from autoprune.tasks import load_task
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime

HALF = Target(flops=0.5)
#: Widths at which a single unit is not worth more than the tolerance of a target.
WIDE = {
    "Chain": {"a": 23, "b": 31},
    "Residual": {"stream": 23, "inner": 31},
    "Concat": {"growth": 23},
    "Depthwise": {"width": 31},
    "Grouped": {"offset": 31},
    "Shuffle": {"half": 31},
    "Shared": {"width": 61},
}


def row(width: int = 61, norm: bool = True) -> nn.Sequential:
    """One prunable layer, `width` filters of 3 weights; scales and shifts rise from 1 to 3, in steps of equal ratio."""
    layers = [nn.Conv2d(3, width, 1, bias=not norm), nn.BatchNorm2d(width) if norm else nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(width, 5, 9), nn.Flatten()).eval()
    rise = torch.logspace(0, math.log10(3), width)
    for parameter in (net[1] if norm else net[0]).parameters():
        parameter.data.copy_(rise.view(-1, *[1] * (parameter.dim() - 1)).expand(parameter.shape))
    return net


def case(net: nn.Module, regulariser: Splitting | None = None) -> Context:
    return Context(net, trace(net, image()), lambda images: iter(()), cross_entropy, predict, 0, regulariser)


def press(net: nn.Module, method: L0HQS, steps: int = 400, **changes: object) -> Splitting:
    """The regulariser on a stage that is about to begin."""
    fields = {"target": HALF, "allocation": Allocation(), "training": method.stage_training(Training()), **changes}
    return method.sparsify(case(net), Stage(steps=steps, **fields))  # type: ignore[arg-type]


def idle(net: nn.Module, regulariser: Splitting) -> None:
    """The whole stage, under a loss that is constant."""
    for step in range(regulariser.schedule.steps):
        regulariser.before_step(net, step, regulariser.schedule.steps)
        regulariser.after_step(net, step, regulariser.schedule.steps)


def part(net: nn.Module, regulariser: Splitting, k: int) -> None:
    """The V-step of part k."""
    step = next(step for step, number in regulariser.schedule.starts.items() if number == k)
    regulariser.before_step(net, step, regulariser.schedule.steps)


def lone(regulariser: Splitting) -> Tensor:
    """tau_0 of the only group."""
    return regulariser.thresholds[regulariser.units.members[0]][0]


# ---- saliency --------------------------------------------------------------------------------------------------------


def test_with_a_norm_a_unit_is_its_scale_and_shift() -> None:
    net = row(7)
    net[1].weight.data[3], net[1].bias.data[3] = 7.0, -1.0

    assert L0HQS().score(case(net))["0"][3] == pytest.approx(5.0)  # sqrt((49 + 1) / 2)


def test_without_a_norm_a_unit_is_its_filter_and_bias() -> None:
    net = row(7, norm=False)
    net[0].weight.data[3] = torch.tensor([1.0, -3, 5])[:, None, None]
    net[0].bias.data[3] = 1.0

    assert L0HQS().score(case(net))["0"][3] == pytest.approx(3.0)  # sqrt((1 + 9 + 25 + 1) / 4)


def test_a_coupled_unit_is_all_its_norms_together() -> None:
    net = randomised(Depthwise())
    norms = [net.expand[1].weight, net.expand[1].bias, net.depthwise[1].weight, net.depthwise[1].bias]
    expected = torch.stack(norms).square().mean(0).sqrt()

    assert L0HQS().score(case(net))["expand.0"] == pytest.approx(expected.detach().numpy(), rel=1e-6)


def test_in_one_net_some_units_have_norms_and_others_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1), nn.BatchNorm2d(11), nn.Conv2d(11, 5, 1))
    scores = L0HQS().score(case(randomised(net)))
    bare = torch.cat([net[0].weight.flatten(1), net[0].bias[:, None]], 1).square().mean(1).sqrt()
    normed = torch.stack([net[2].weight, net[2].bias]).square().mean(0).sqrt()

    assert scores["0"] == pytest.approx(bare.detach().numpy(), rel=1e-6)
    assert scores["1"] == pytest.approx(normed.detach().numpy(), rel=1e-6)


# ---- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "ratio"), [(4, 2.0), (7, 10.0), (40, 30.0)])
def test_strengths_are_geometric_and_thresholds_go_with_their_roots(stages: int, ratio: float) -> None:
    schedule = Schedule(stages, 11 * stages, ratio, 3.0, 0.01)
    strengths = [schedule.strength(k) for k in range(stages)]
    falls = [schedule.fall(k) for k in range(stages)]

    steps_up = np.divide(strengths[1:], strengths[:-1])
    assert steps_up == pytest.approx(np.full(stages - 1, ratio ** (2 / (stages - 1))))
    assert np.multiply(falls, np.sqrt(strengths)) == pytest.approx(np.full(stages, math.sqrt(strengths[0])))
    assert falls[0] == 1
    assert falls[-1] == pytest.approx(1 / ratio)


def test_the_first_strength_is_the_capture_condition_to_first_order() -> None:
    schedule = Schedule(7, 7 * 1100, 10.0, 3.0, 0.01)

    assert schedule.strength(0) == pytest.approx(3 * math.log(10) / (6 * 1100 * 0.01), rel=1e-3)


def test_parts_are_equal_to_one_step() -> None:
    assert list(Schedule(7, 50, 10.0, 3.0, 0.01).starts.items()) == [
        (0, 0), (7, 1), (14, 2), (21, 3), (28, 4), (35, 5), (42, 6)
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 13])
def test_a_stage_with_fewer_steps_than_parts_has_a_part_per_step(steps: int) -> None:
    net = row()
    regulariser = press(net, L0HQS(stages=20, capture=1.1), steps)
    last, count = float(lone(regulariser)) / (10 if steps > 1 else 1), int(regulariser.attracted.sum())

    idle(net, regulariser)

    assert regulariser.schedule.starts == {step: step for step in range(steps)}
    assert (saliency(net, regulariser.units)[regulariser.units.members[0]] < last).sum() == count > 20


def test_the_stage_trains_at_a_constant_rate() -> None:
    training = L0HQS(lr=0.07).stage_training(
        Training(lr=1.0, schedule="cosine", warmup=0.2, ema=0.9, weight_decay=0.03)
    )

    assert training == Training(lr=0.07, schedule="constant", warmup=0.0, weight_decay=0.03)


# ---- V-step and W-step -----------------------------------------------------------------------------------------------


def minimiser(s: float, weight: float, strength: float) -> float:
    """argmin over v of weight [v != 0] + strength / 2 (s - v)^2, by trying."""
    v = np.union1d(np.linspace(0, 2 * s, 2001), [s])
    return float(v[np.argmin(weight * (v != 0) + strength / 2 * (s - v) ** 2)])


@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_v_step_is_the_exact_hard_threshold(k: int) -> None:
    net = row()
    regulariser = press(net, L0HQS(stages=7))
    tau, schedule = float(lone(regulariser)), regulariser.schedule
    weight, strength = schedule.strength(0) * tau**2 / 2, schedule.strength(k)
    flip = math.sqrt(2 * weight / strength)
    wanted = flip * np.concatenate([[0.0, 0.999, 1.001], np.geomspace(0.1, 10, 58)])
    for parameter in net[1].parameters():  # scale and shift of one size, so that their root mean square is that
        parameter.data.copy_(torch.tensor(wanted))

    part(net, regulariser, k)

    expected = [minimiser(s, weight, strength) for s in wanted]
    assert [v > 0 for v in expected] == [s > flip for s in wanted]
    assert all(anchor.tolist() == pytest.approx(expected, rel=1e-6) for anchor in regulariser.anchors)
    assert len(regulariser.anchors) == 2


def test_the_first_threshold_lies_half_way_between_what_is_cut_and_what_is_kept() -> None:
    net = row()
    regulariser = press(net, L0HQS())
    gone = regulariser.units.outside(allocate(case(net).graph, L0HQS().score(case(net)), HALF))[
        regulariser.units.members[0]
    ]
    sizes = net[1].weight.detach()  # scale = shift, so that this is the saliency

    assert float(lone(regulariser)) == pytest.approx(math.sqrt(sizes[gone].max() * sizes[~gone].min()), rel=1e-6)
    part(net, regulariser, 0)
    assert regulariser.anchors[0].tolist() == torch.where(gone, 0.0, sizes).tolist()


def test_what_is_kept_is_not_pulled_and_what_is_attracted_goes_as_the_formula_says() -> None:
    net = row()
    regulariser = press(net, L0HQS())
    before = net[1].weight.detach().clone()
    gone = regulariser.attracted[regulariser.units.members[0]]
    pull = regulariser.schedule.rate * regulariser.schedule.strength(0)

    part(net, regulariser, 0)
    regulariser.after_step(net, 0, 400)

    assert torch.equal(net[1].weight[~gone], before[~gone])
    torch.testing.assert_close(net[1].weight[gone].detach(), before[gone] / (1 + pull), rtol=1e-6, atol=0)
    moved = (before - net[1].weight.detach())[gone] / regulariser.schedule.rate
    torch.testing.assert_close(moved, regulariser.schedule.strength(0) * before[gone], rtol=1.1 * pull, atol=0)


def test_what_is_kept_is_drawn_back_to_where_the_part_began() -> None:
    net = row()
    regulariser = press(net, L0HQS())
    before = net[1].bias.detach().clone()
    kept = ~regulariser.attracted[regulariser.units.members[0]]
    part(net, regulariser, 5)
    net[1].bias.data.add_(0.7)
    pull = regulariser.schedule.rate * regulariser.schedule.strength(5)

    regulariser.after_step(net, 0, 400)

    expected = (before + 0.7 + pull * before) / (1 + pull)
    torch.testing.assert_close(net[1].bias[kept].detach(), expected[kept], rtol=1e-6, atol=0)


def test_v_holds_still_within_a_part() -> None:
    net = row()
    regulariser = press(net, L0HQS(stages=4), steps=40)
    part(net, regulariser, 1)
    anchors = [anchor.clone() for anchor in regulariser.anchors]

    for step in range(11, 20):
        net[1].weight.data.mul_(0.5)
        regulariser.before_step(net, step, 40)

    assert all(torch.equal(one, two) for one, two in zip(anchors, regulariser.anchors, strict=True))


def test_equal_saliencies_are_told_apart_by_the_allocation() -> None:
    net = row()
    for parameter in net[1].parameters():
        parameter.data.fill_(1.0)
    regulariser = press(net, L0HQS())
    chosen = regulariser.attracted.clone()

    idle(net, regulariser)

    assert 20 < chosen.sum() < 41
    assert torch.equal(net[1].weight < 0.1, chosen[regulariser.units.members[0]])
    assert torch.equal(net[1].weight == 1, ~chosen[regulariser.units.members[0]])


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("scope", ["coupled", "faithful"])
def test_nothing_else_is_touched(kind: str, scope: str) -> None:
    net = randomised(NETS[kind](**WIDE[kind]))
    before = copy.deepcopy(net)
    regulariser = press(net, L0HQS(scope=scope), steps=40, target=Target(flops=0.86 if kind == "Shared" else 0.8))
    owned = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    for name, dim, units in regulariser.units.slots:
        owned[name].movedim(dim, 0)[units < regulariser.units.count] = 1
    gone = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    for name, dim, units in regulariser.units.slots:
        gone[name].movedim(dim, 0)[regulariser.attracted[units]] = 1

    part(net, regulariser, 0)
    for parameter in net.parameters():
        parameter.data.add_(0.3)
    regulariser.after_step(net, 0, 40)

    assert any(mask.any() for mask in gone.values())
    pull = regulariser.schedule.rate * regulariser.schedule.strength(0)
    for name, parameter in before.named_parameters():
        shifted = parameter.detach() + 0.3
        anchored = (shifted + pull * parameter.detach() * (1 - gone[name])) / (1 + pull)
        expected = torch.where(owned[name] > 0, anchored, shifted)
        torch.testing.assert_close(net.get_parameter(name).detach(), expected, rtol=1e-6, atol=1e-6)


class Dense(nn.Module):
    """A norm over the image, which stays whatever is cut, and over what a layer makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 61, 1), nn.BatchNorm2d(64), nn.Conv2d(64, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.cat([x, self.conv(x)], 1))).mean((2, 3))


def test_of_a_norm_that_is_prunable_in_part_the_rest_is_left_alone() -> None:
    net = randomised(Dense())
    regulariser = press(net, L0HQS(), target=Target(flops=0.8))
    part(net, regulariser, 0)
    net.norm.weight.data.fill_(7.0)

    regulariser.after_step(net, 0, 400)

    assert regulariser.pulled == ("conv",)
    assert (net.norm.weight[:3] == 7).all()
    assert (net.norm.weight[3:] < 7).all()


def test_a_residual_stream_is_its_norm_and_in_the_faithful_scope_it_is_left_alone() -> None:
    net = randomised(Residual())
    coupled, faithful = (gates(net, case(net).graph, scope) for scope in ("coupled", "faithful"))

    assert {name for name, _, _ in coupled.slots} == {
        f"{a}.1.{b}" for a in ("stem", "a1", "b1") for b in ("weight", "bias")
    }
    assert {name for name, _, _ in faithful.slots} == {f"{a}.1.{b}" for a in ("a1", "b1") for b in ("weight", "bias")}
    expected = torch.stack([net.stem[1].weight, net.stem[1].bias]).square().mean(0).sqrt().detach().numpy()
    assert L0HQS().score(case(net))["stem.0"] == pytest.approx(expected, rel=1e-6)


def test_a_group_that_is_to_lose_nothing_is_neither_pulled_nor_cut() -> None:
    net = randomised(Residual(**WIDE["Residual"]))
    allocation = Allocation(name="ratios", ratios={"a1.0": 1.0})
    regulariser = press(net, L0HQS(), target=Target(flops=0.8), allocation=allocation)

    idle(net, regulariser)
    end = case(net, regulariser)
    keep = L0HQS().select(end, L0HQS().score(end), Target(flops=0.8), allocation).keep

    assert regulariser.pulled == ("a1.0",)
    assert [group for group, _ in keep.kept] == ["a1.0"]
    assert torch.equal(net.b1[1].weight, randomised(Residual(**WIDE["Residual"])).b1[1].weight)


# ---- what it does to saliencies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [1.1, 3.0])
@pytest.mark.parametrize("ratio", [2.0, 10.0, 30.0])
@pytest.mark.parametrize(("stages", "steps"), [(4, 30), (8, 8), (20, 39), (40, 460)])
def test_under_a_constant_loss_all_below_the_first_threshold_end_below_the_last(
    stages: int, steps: int, ratio: float, capture: float
) -> None:
    net = row()
    regulariser = press(net, L0HQS(stages=stages, ratio=ratio, capture=capture), steps)
    start = net[1].weight.detach().clone()
    last = float(lone(regulariser)) / ratio

    idle(net, regulariser)

    below = start < lone(regulariser)
    assert 20 < below.sum() < 41
    assert (net[1].weight[below] < last).all()
    assert torch.equal(net[1].weight[~below], start[~below])


@pytest.mark.parametrize(("stages", "ratio"), [(4, 3.0), (20, 10.0), (40, 30.0)])
def test_too_weak_a_pull_lets_those_just_below_the_first_threshold_escape(stages: int, ratio: float) -> None:
    net = row()
    method = L0HQS(stages=stages, ratio=ratio)
    object.__setattr__(method, "capture", 0.3)
    regulariser = press(net, method)
    start = net[1].weight.detach().clone()

    idle(net, regulariser)

    below = start < lone(regulariser)
    escaped = net[1].weight[below] > float(lone(regulariser)) / ratio
    assert 0 < escaped.sum() < below.sum()
    assert escaped[-1]
    assert not escaped[0]


class Weights:
    """Half the square of the filters' entries, as a penalty: an L2 regulariser to compare with."""

    def __init__(self, units: Units, penalty: float) -> None:
        self.units, self.penalty = units, penalty

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.units.pull(model, self.units.full(self.penalty))

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        pass


def toy() -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier of points in 13 dimensions by a random network with 11 hidden units; it has learnt that with 61."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        inputs, teacher = torch.randn(512, 13, 1, 1), nn.Sequential(nn.Linear(13, 11), nn.Tanh(), nn.Linear(11, 5))
        labels = teacher(inputs.flatten(1)).argmax(1)
        net = nn.Sequential(nn.Conv2d(13, 61, 1), nn.BatchNorm2d(61), nn.ReLU(), nn.Conv2d(61, 5, 1), nn.Flatten())
        learn(net, inputs, labels, 200, 0.1)
    return net.eval(), inputs, labels


def learn(
    net: nn.Module, inputs: Tensor, labels: Tensor, steps: int, lr: float, regulariser: object = None
) -> nn.Module:
    optimizer = torch.optim.SGD(net.train().parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step in range(steps):
        rows = torch.arange(step * 128, step * 128 + 128) % len(inputs)
        optimizer.zero_grad()
        F.cross_entropy(net(inputs[rows]), labels[rows]).backward()
        if regulariser is not None:
            regulariser.before_step(net, step, steps)  # type: ignore[attr-defined]
        optimizer.step()
        if regulariser is not None:
            regulariser.after_step(net, step, steps)  # type: ignore[attr-defined]
    return net.eval()


def test_on_a_toy_task_the_gap_grows_tenfold_and_wider_than_under_l1_and_l2() -> None:
    net, inputs, labels = toy()
    graph = trace(net, inputs[:1])
    context = Context(net, graph, lambda images: iter(()), cross_entropy, predict, 0)
    method = L0HQS()
    stage = Stage(HALF, Allocation(), method.stage_training(Training()), 300)

    def widest(make: Callable[[Context], object]) -> tuple[float, Context]:
        one = replace(context, model=copy.deepcopy(net))
        regulariser = make(one)
        learn(one.model, inputs, labels, 300, method.lr, regulariser)
        one = replace(one, regulariser=regulariser if isinstance(regulariser, Splitting) else None)
        return float(gaps(method.score(one)["0"])[3:-1].max()), one

    def square(one: Context, penalty: float) -> Weights:
        return Weights(gates(one.model, one.graph, "coupled"), penalty)

    before = float(gaps(method.score(context)["0"])[3:-1].max())
    gap, trained = widest(lambda one: method.sparsify(one, stage))
    others = [widest(lambda one, p=p: square(one, p))[0] for p in (0.01, 0.1, 1.0, 3.0, 10.0)]
    others += [
        widest(lambda one, p=p: BNScale(penalty=p).sparsify(one, stage))[0] for p in (0.001, 0.01, 0.03, 0.1, 0.3)
    ]

    assert gap > 10 * before
    assert gap > 3 * max(others)
    scores = method.score(trained)
    selection = method.select(trained, scores, HALF, Allocation())
    keep, notes = selection.keep, selection.notes
    lost, ordered = 61 - len(dict(keep.kept)["0"]), np.sort(scores["0"])
    between = np.geomspace(ordered[lost - 1] * (1 + 1e-9) + 1e-30, ordered[lost] * (1 - 1e-9), 7)
    assert {tuple(np.flatnonzero(scores["0"] > t).tolist()) for t in between} == {dict(keep.kept)["0"]}
    assert notes["gap_violated"] is False
    assert notes["gap_after"] == pytest.approx(gap)
    assert notes["gap_before"] == pytest.approx(gaps(method.score(context)["0"])[lost - 1])


# ---- the cut ---------------------------------------------------------------------------------------------------------


def test_gaps_by_hand() -> None:
    # ascending 0, 1, 3, 7; a thousandth of 7 on each
    assert gaps(np.array([7.0, 0, 1, 3])) == pytest.approx([1.007 / 0.007, 3.007 / 1.007, 7.007 / 3.007])
    assert gaps(np.zeros(3)).tolist() == [1, 1]
    assert gaps(np.array([0.0, 7.0])).tolist() == pytest.approx([1 + 1 / LIFT])


def ended(
    small: int, by: float, width: int = 61, allocation: Allocation | None = None
) -> tuple[Context, Keep, dict[str, object]]:
    """A stage that ends with `small` saliencies `by` times smaller than the others; what is kept and told."""
    net, method, allocation = row(width), L0HQS(), allocation or Allocation()
    regulariser = press(net, method, allocation=allocation)
    for parameter in net[1].parameters():
        parameter.data.fill_(1.0)
        parameter.data[:small] /= by
        parameter.data.mul_(torch.linspace(1, 1.01, width))
    end = case(net, regulariser)
    selection = method.select(end, method.score(end), HALF, allocation)
    return end, selection.keep, dict(selection.notes)


def lost_of(net: nn.Module) -> int:
    """How many units of `row()` the target asks for."""
    keep = allocate(case(net).graph, L0HQS().score(case(net)), HALF)
    return net[0].out_channels - len(dict(keep.kept)["0"])


def test_the_cut_is_made_at_a_clear_gap() -> None:
    lost = lost_of(row())
    end, keep, notes = ended(lost, 100.0)

    assert dict(keep.kept)["0"] == tuple(range(lost, 61))
    assert notes["gap_violated"] is False
    values = L0HQS().score(end)["0"]
    dense = L0HQS().score(case(row()))["0"]
    ratio = [(v[lost] + LIFT * v.max()) / (v[lost - 1] + LIFT * v.max()) for v in (values, dense)]
    assert (notes["gap_after"], notes["gap_before"]) == pytest.approx(tuple(ratio))
    assert notes["gap_after"] > 80


@pytest.mark.parametrize("moved", [-2, 2])
def test_the_gap_decides_where_the_target_leaves_room(moved: int) -> None:
    lost = lost_of(row(251)) + moved  # a unit is 0.4 % of the cost
    end, keep, notes = ended(lost, 100.0, 251)

    assert dict(keep.kept)["0"] == tuple(range(lost, 251))
    assert keep != allocate(end.graph, L0HQS().score(end), HALF)
    assert notes["gap_violated"] is False


@pytest.mark.parametrize(("moved", "by"), [(0, 0.9 * CLEAR), (7, 100.0), (-7, 100.0)])
def test_without_a_clear_gap_at_the_target_the_scores_are_allocated_and_it_is_said(moved: int, by: float) -> None:
    end, keep, notes = ended(lost_of(row()) + moved, by)

    assert keep == allocate(end.graph, L0HQS().score(end), HALF)
    assert notes["gap_violated"] is True
    ratio = cost(end.graph, keep).ratios(cost(end.graph, Keep.all()))["flops"]
    assert ratio == pytest.approx(0.5, abs=0.01)


def test_the_cut_has_a_width_that_the_allocation_allows() -> None:
    allocation = Allocation(round_to=2)
    (_, even, clear), (_, moved, unclear) = (ended(lost, 100.0, 127, allocation) for lost in (63, 64))

    assert (len(dict(even.kept)["0"]), clear["gap_violated"]) == (64, False)
    assert (len(dict(moved.kept)["0"]), unclear["gap_violated"]) == (64, True)  # 63 are not allowed


def test_allowed_widths_by_hand() -> None:
    graph = case(row()).graph

    assert allowed_widths(graph, Allocation(round_to=4), {"0": 1})["0"].tolist() == [*range(4, 61, 4), 61]
    assert allowed_widths(graph, Allocation(max_ratio=0.1), {"0": 1})["0"].tolist() == list(range(55, 62))
    assert allowed_widths(graph, Allocation(), {})["0"].tolist() == [61]


def test_a_stage_that_pulled_nothing_apart_says_so() -> None:
    net = row()
    end = case(net, press(net, L0HQS()))
    selection = L0HQS().select(end, L0HQS().score(end), HALF, Allocation())
    notes = selection.notes

    assert selection.keep == allocate(end.graph, L0HQS().score(end), HALF)
    assert notes["gap_violated"] is True
    assert notes["gap_after"] == notes["gap_before"] > 1


def test_gaps_of_several_groups_are_averaged_geometrically() -> None:
    net = randomised(Residual(**WIDE["Residual"]))
    regulariser = press(net, L0HQS())
    end = case(net, regulariser)
    idle(net, regulariser)
    scores = L0HQS().score(end)
    selection = L0HQS().select(end, scores, HALF, Allocation())
    cuts = [gaps(scores[group])[len(scores[group]) - len(kept) - 1] for group, kept in selection.keep.kept]

    assert len(cuts) == 3
    assert selection.notes["gap_after"] == pytest.approx(np.prod(cuts) ** (1 / 3))


def test_a_target_that_takes_nothing_keeps_all() -> None:
    net = row()
    regulariser = press(net, L0HQS(), target=Target(flops=1.0))
    end = case(net, regulariser)
    idle(net, regulariser)
    selection = L0HQS().select(end, L0HQS().score(end), Target(flops=1.0), Allocation())

    assert selection.keep == Keep.all()
    assert selection.notes == {"gap_before": 1.0, "gap_after": 1.0, "gap_violated": False}
    assert torch.equal(net[1].weight, row()[1].weight)


def test_without_a_stage_the_scores_are_allocated_and_nothing_is_told() -> None:
    plain = case(row())
    scores = L0HQS().score(plain)
    selection = L0HQS().select(plain, scores, HALF, Allocation())

    assert selection == Selection(allocate(plain.graph, scores, HALF))


# ---- resuming --------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def interrupt(images: int, accuracy: float) -> bool:
    if images >= 600:
        raise Interrupted
    return True


@pytest.mark.parametrize("norm", [True, False])
def test_a_resumed_stage_gives_the_same_bits_and_tells_the_same(tmp_path: object, norm: bool) -> None:
    task = load_task({"data": {"name": "digits"}, "model": {"name": "digits_net"}})
    layers = [
        nn.Conv2d(1, 61, 3),
        *([nn.BatchNorm2d(61)] if norm else []),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(61 * 36, 10),
    ]
    dense, method = randomised(nn.Sequential(*layers)), L0HQS(stages=4, lr=0.05)
    context = Context(
        dense,
        trace(dense, torch.zeros(1, 1, 8, 8)),
        lambda images: iter(()),
        lambda model, batch: task.loss(model, batch).value,
        task.predict,
        0,
    )
    training = replace(method.stage_training(Training(batch_size=100)), rungs=(0.2, 0.4, 0.8))
    stage = Stage(HALF, Allocation(), training, 15)

    def run(on_rung: Callable[[int, float], bool], file: object) -> tuple[nn.Module, Splitting]:
        model = copy.deepcopy(dense)
        regulariser = method.sparsify(replace(context, model=model), stage)
        options = {"images": 1500, "seed": 3, "regulariser": regulariser, "on_rung": on_rung, "checkpoint": file}
        fit(model, task, training, Runtime(channels_last=True), **options)  # type: ignore[arg-type]
        return model, regulariser

    file = tmp_path / "state.pt"  # type: ignore[operator]
    whole, expected = run(lambda *_: True, None)
    with pytest.raises(Interrupted):
        run(interrupt, file)
    resumed, regulariser = run(lambda *_: True, file)

    assert expected.schedule.starts == {0: 0, 3: 1, 7: 2, 11: 3}  # the interruption, at 6, is in the middle of a part
    assert all(torch.equal(t, resumed.state_dict()[name]) for name, t in whole.state_dict().items())
    assert regulariser.state_dict() == expected.state_dict()
    ends = [replace(context, model=m, regulariser=p) for m, p in ((whole, expected), (resumed, regulariser))]
    selections = [method.select(end, method.score(end), HALF, Allocation()) for end in ends]
    assert selections[0] == selections[1]


def test_the_state_is_all_there_is() -> None:
    net, other = row(), row()
    for parameter in other[1].parameters():
        parameter.data.copy_(parameter.data.flip(0) * 7)
    regulariser = press(net, L0HQS())
    for step in range(47):
        regulariser.before_step(net, step, 400)
        regulariser.after_step(net, step, 400)
    stranger = press(other, L0HQS(), target=Target(flops=1.0))

    part(other, stranger, 7)
    stranger.after_step(other, 140, 400)

    stranger.load_state_dict(json.loads(json.dumps(regulariser.state_dict())))
    assert stranger.state_dict() == regulariser.state_dict()
    twin = copy.deepcopy(net)
    for step in range(47, 90):
        for one, by in ((net, regulariser), (twin, stranger)):
            one[1].weight.data.mul_(1.01)
            by.before_step(one, step, 400)
            by.after_step(one, step, 400)

    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    assert stranger.state_dict() == regulariser.state_dict()
    scores = L0HQS().score(case(net))
    one, same = (L0HQS().select(case(net, by), scores, HALF, Allocation()) for by in (regulariser, stranger))
    assert one.notes["gap_before"] == same.notes["gap_before"]
    assert stranger.pulled == ("0",)
