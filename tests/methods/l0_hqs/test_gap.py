"""The gap at which L0-HQS cuts: where it lies, how clear it is, and what is said where there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import Residual, randomised
from regularisers import cross_entropy, predict
from splitting import HALF, WIDE, case, idle, press, row
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
from autoprune.methods.l0_hqs import CLEAR, L0HQS, LIFT, Splitting, gaps, gates
from autoprune.recipe import Allocation, Target, Training


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
