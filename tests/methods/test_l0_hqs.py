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
from nets import NETS, Depthwise, Residual, randomised
from splitting import HALF, WIDE, case, idle, press, row
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context, Stage
from autoprune.methods.l0_hqs import L0HQS, Schedule, Splitting, gates, saliency
from autoprune.recipe import Allocation, Target, Training
from autoprune.tasks import load_task
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime


def part(net: nn.Module, regulariser: Splitting, k: int) -> None:
    """The V-step of part k."""
    step = next(step for step, number in regulariser.schedule.starts.items() if number == k)
    regulariser.before_step(net, step, regulariser.schedule.steps)


def lone(regulariser: Splitting) -> Tensor:
    """tau_0 of the only group."""
    return regulariser.thresholds[regulariser.units.members[0]][0]


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
