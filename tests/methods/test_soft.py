"""Soft pruning: what is shrunk when, by how much, and that it can come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import Chain, Residual, image, randomised
from regularisers import build, context, drive, resumed, stage
from torch import nn

from autoprune.engine.surgery.masking import silence
from autoprune.engine.surgery.prune import prune
from autoprune.methods.soft import SoftPruning, limit_rows, rise

FAMILY = ("sfp", "asfp", "srfp", "asrfp")


def soft(net: nn.Module, name: str, steps: int = 40, **params: float) -> SoftPruning:
    method = build(name, **params)
    return method.sparsify(context(net), stage(method, steps))


def lengths(layer: nn.Module) -> np.ndarray:
    return layer.weight.detach().flatten(1).norm(dim=1).numpy()


@pytest.mark.parametrize(("name", "rate", "factor"), [
    ("sfp", [1, 1, 1, 1], [0, 0, 0, 0]),
    ("asfp", [0, 0.75, 0.984, 1], [0, 0, 0, 0]),
    ("srfp", [1, 1, 1, 1], [0.8, 0.2, 0.0125, 0]),
    ("asrfp", [0, 0.75, 0.984, 1], [0.8, 0.2, 0.0125, 0]),
])  # fmt: skip
def test_rate_and_factor_at_the_beginning_the_knee_three_knees_and_the_end(
    name: str, rate: list[float], factor: list[float]
) -> None:
    method = build(name, **{} if name in ("sfp", "asfp") else {"start": 0.8})

    assert [method.rate(t) for t in (0, 0.125, 0.375, 1)] == pytest.approx(rate, abs=1e-3)
    assert [method.factor(t) for t in (0, 0.125, 0.375, 1)] == pytest.approx(factor, abs=1e-3)


@pytest.mark.parametrize("knee", [0.02, 0.125, 0.5, 0.7])
def test_the_course_goes_through_three_quarters_at_its_knee(knee: float) -> None:
    values = [rise(t, knee) for t in np.linspace(0, 1, 101)]

    assert (rise(0, knee), rise(1, knee)) == (0, 1)
    assert rise(knee, knee) == pytest.approx(0.75)
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("name", FAMILY)
def test_a_moment_shrinks_the_smallest_filters_as_many_as_the_rate_says(name: str) -> None:
    net = randomised(Chain())
    method = build(name, prunes=4)
    case = context(net)
    regulariser = method.sparsify(case, stage(method))
    before = lengths(net.second[0])
    lost = int(regulariser.lost[case.graph.by_id["second.0"].units[0]])
    assert 0 < lost < 11
    regulariser._shrink_smallest(net, 0.3)
    ratio = lengths(net.second[0]) / before
    smallest = np.argsort(before)[: int(lost * method.rate(0.3))]

    assert ratio[smallest] == pytest.approx(np.full(len(smallest), method.factor(0.3)), abs=1e-6)
    assert np.delete(ratio, smallest) == pytest.approx(np.ones(11 - len(smallest)), abs=1e-6)


def test_moments_are_before_the_first_step_and_after_equal_parts() -> None:
    net = randomised(Chain())
    regulariser = soft(net, "sfp", prunes=3, steps=7)
    seen: list[float] = []
    shrink = regulariser._shrink_smallest
    regulariser._shrink_smallest = lambda model, done: (seen.append(done), shrink(model, done))  # type: ignore[method-assign,assignment]
    when: list[int] = []
    drive(net, regulariser, 7, look=lambda step: when.append(len(seen)))

    assert seen == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert when == [1, 1, 2, 2, 3, 3, 4]


def test_a_zeroed_filter_can_come_back_and_another_one_goes() -> None:
    net = randomised(Chain())
    regulariser = soft(net, "sfp", prunes=2, steps=4)
    regulariser.before_step(net, 0, 4)
    first = regulariser.keep()
    zero = torch.nonzero(net.second[0].weight.flatten(1).norm(dim=1) == 0).flatten().tolist()
    assert zero
    net.second[0].weight.data[zero[0]] = 5.0  # what a gradient and momentum may do
    regulariser.after_step(net, 3, 4)

    assert zero[0] in dict(regulariser.keep().kept)["second.0"]
    assert len(dict(regulariser.keep().kept)["second.0"]) == len(dict(first.kept)["second.0"])
    assert (net.second[0].weight[zero[0]] == 5).all()


def test_nothing_blocks_the_gradient_of_a_zeroed_filter() -> None:
    net = randomised(Chain())
    net.second[1].bias.data.fill_(0.7)  # behind it a filter of zeros still gives something, and so gets a gradient
    regulariser = soft(net, "sfp", prunes=2, steps=10)
    regulariser.before_step(net, 0, 10)
    zero = net.second[0].weight.flatten(1).norm(dim=1) == 0
    torch.manual_seed(0)
    net.train()(torch.randn(4, 3, 9, 9)).square().sum().backward()
    gradient = net.second[0].weight.grad.clone()
    regulariser.before_step(net, 1, 10)
    after = net.second[0].weight.grad

    assert zero.any()
    assert (after[zero].flatten(1).norm(dim=1) > 0).all()
    assert torch.equal(gradient[~zero], after[~zero])
    assert torch.nn.functional.cosine_similarity(gradient[zero].flatten(1), after[zero].flatten(1)).min() > 0.9999


def test_no_shrunk_filter_moves_faster_than_the_fastest_of_the_others() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 2.0], [60.0, 80.0], [0.3, 0.4]])
    limit_rows(gradient, torch.tensor([False, False, True, True]))

    assert torch.allclose(gradient, torch.tensor([[3, 4], [0, 2], [3, 4], [0.3, 0.4]]))


def test_a_factor_of_one_is_plain_training_and_of_zero_is_sfp_and_a_constant_rate_of_asfp_is_sfp() -> None:
    def ends(rate: float, factor: float) -> list[torch.Tensor]:
        net = randomised(Chain())
        plain = soft(net, "sfp", prunes=3)
        drive(net, SoftPruning(plain.units, plain.lost, 3, lambda t: rate, lambda t: factor), 12)
        return list(net.state_dict().values())

    untouched, sfp = randomised(Chain()), randomised(Chain())
    drive(sfp, soft(sfp, "sfp", prunes=3), 12)

    def same(ended: list[torch.Tensor], net: nn.Module) -> bool:
        return all(torch.equal(a, b) for a, b in zip(ended, net.state_dict().values(), strict=True))

    assert same(ends(1, 1), untouched)
    assert same(ends(1, 0), sfp)
    assert same(ends(0, 0), untouched)
    assert not same(ends(1, 0), untouched)


@pytest.mark.parametrize("name", FAMILY)
def test_the_end_is_hard_and_the_cut_model_computes_the_same(name: str) -> None:
    net = randomised(Residual(stream=23, inner=31))
    method = build(name, prunes=5)
    case = context(net)
    regulariser = method.sparsify(case, stage(method, flops=0.4))
    drive(net, regulariser, 20)
    keep = regulariser.keep()
    lost = {group.id: group.size - len(dict(keep.kept)[group.id]) for group in case.graph.prunable}
    silent = silence(net, case.graph, keep)

    assert int((net.a1[0].weight.flatten(1).norm(dim=1) == 0).sum()) == lost["a1.0"] > 0
    assert int((net.stem[0].weight.flatten(1).norm(dim=1) == 0).sum()) == lost["stem.0"] > 0
    assert all(torch.equal(net.get_parameter(n), silent.get_parameter(n)) for n in ("a1.0.weight", "stem.0.weight"))
    with torch.no_grad():  # biases of a2 and b2 are still there in the masked model, 1 x 1 kernels have no borders
        assert torch.allclose(silent(image()), prune(net, case.graph, keep)(image()), atol=1e-5)


def test_the_most_that_go_are_decided_by_target_and_first_weights_the_which_by_the_last() -> None:
    net = randomised(Chain())
    regulariser = soft(net, "asfp", prunes=2, steps=4)
    before = regulariser.lost.clone()
    drive(net, regulariser, 2)
    net.second[0].weight.data.copy_(torch.arange(11, 0, -1)[:, None, None, None].expand(11, 7, 3, 3))
    regulariser.after_step(net, 3, 4)
    kept = dict(regulariser.keep().kept)["second.0"]

    assert torch.equal(before, regulariser.lost)
    assert kept == tuple(range(len(kept)))


@pytest.mark.parametrize("name", FAMILY)
def test_an_interrupted_stage_ends_with_the_same_bits(name: str) -> None:
    def make() -> tuple[nn.Module, SoftPruning]:
        net = randomised(Residual())
        return net, soft(net, name, steps=11, prunes=4)

    assert resumed(make, 11, 1)
    assert resumed(make, 11, 7)
