"""OrthoReg: penalty by hand and by autograd, scores by finite differences, rounds and Early-Bird tickets on digits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import NETS, Chain, Residual, randomised
from regularisers import build, context, cross_entropy, drive, idle, predict, stage
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError
from autoprune.methods import Context
from autoprune.methods.orthoreg import Orthonormality, add_penalty_gradient, diagonal_share, off_orthogonality
from autoprune.recipe import Allocation, Target, Training


def filled(layer: nn.Module, rows: object) -> nn.Module:
    """The convolution with these numbers as its weight, in the order in which it holds them."""
    layer.weight.data.copy_(torch.as_tensor(rows, dtype=torch.float32).reshape(layer.weight.shape))
    return layer


def orthonormal(rows: int, columns: int, seed: int = 0) -> Tensor:
    square = torch.randn(columns, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(square).Q[:rows].float()


def plain(rows: list[list[float]]) -> nn.Module:
    return filled(nn.Conv2d(len(rows[0]), len(rows), 1, bias=False), rows)


def value(*layers: nn.Module) -> float:
    return off_orthogonality(nn.ModuleList(layers)).item()


def test_nothing_keeps_orthonormal_filters_from_being_orthonormal() -> None:
    net = filled(nn.Conv2d(3, 5, 3, bias=False), orthonormal(5, 27))
    idle(net)
    add_penalty_gradient(net, 1.0)

    assert value(net) == pytest.approx(0, abs=1e-5)
    assert diagonal_share(net).item() == pytest.approx(1, abs=1e-5)
    assert value(filled(nn.Conv2d(5, 27, 1, bias=False), orthonormal(5, 27).T)) == pytest.approx(0, abs=1e-5)


def test_the_penalty_by_hand() -> None:
    net = plain([[1, 2, 0], [0, -1, 3]])
    idle(net)
    net.weight.grad.fill_(100)
    add_penalty_gradient(net, 0.5)

    # G = [[5, -2], [-2, 10]], so |G - I| = 4 + 2 + 2 + 9; its gradient is 2 * [[1, -1], [-1, 1]] W, here half of it
    assert value(net) == 17
    assert diagonal_share(net).item() == pytest.approx(15 / 19)
    assert net.weight.grad.reshape(2, 3).tolist() == [[101, 103, 97], [99, 97, 103]]


def test_the_gram_matrix_is_that_of_the_smaller_side() -> None:
    assert value(plain([[1, 0], [2, -1], [0, 3]])) == 17


def test_layers_count_by_the_square_root_of_their_side() -> None:
    four, nine = nn.Conv2d(5, 4, 1, bias=False), nn.Conv2d(11, 9, 1, bias=False)

    # weights of zero: |G - I| is the side, and w = 2/5 and 3/5
    assert value(filled(four, torch.zeros(20)), filled(nine, torch.zeros(99))) == pytest.approx(2 / 5 * 4 + 3 / 5 * 9)


def test_a_bias_is_one_more_column() -> None:
    net = filled(nn.Conv2d(2, 1, 1), [3, 4])
    net.bias.data.fill_(12)
    idle(net)
    add_penalty_gradient(net, 1.0)

    assert value(net) == 13**2 - 1
    assert (net.weight.grad.flatten().tolist(), net.bias.grad.tolist()) == ([6, 8], [24])


def test_groups_that_see_different_channels_are_not_compared() -> None:
    same = orthonormal(5, 7 * 9).repeat(3, 1)
    net = filled(nn.Conv2d(21, 15, 3, groups=3, bias=False), same)

    assert value(net) == pytest.approx(0, abs=1e-5)
    assert value(filled(net, torch.zeros_like(same))) == 15
    # 15 of 15 + 9 sides: each layer has its own w
    depthwise = filled(nn.Conv2d(11, 11, 3, groups=11, bias=False), torch.zeros(99))
    a, b = math.sqrt(15), math.sqrt(9)
    assert value(net, depthwise) == pytest.approx((15 * a + 9 * b) / (a + b))


def test_depthwise_filters_are_compared_with_each_other() -> None:
    columns = orthonormal(9, 11).T
    net = filled(nn.Conv2d(11, 11, 3, groups=11, bias=False), columns)

    assert value(net) == pytest.approx(0, abs=1e-5)
    assert value(filled(nn.ConvTranspose2d(11, 11, 3, groups=11, bias=False), columns)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_filters_of_a_transposed_convolution_are_its_outputs(groups: int) -> None:
    filters = torch.cat([orthonormal(2, 7 * 4, seed=group) for group in range(groups)]).reshape(groups, 2, 7, 4)
    net = filled(nn.ConvTranspose2d(7 * groups, 2 * groups, 2, groups=groups, bias=False), filters.transpose(1, 2))

    assert value(net) == pytest.approx(0, abs=1e-5)


def test_a_shared_weight_counts_once() -> None:
    one, other = nn.Conv2d(5, 4, 1, bias=False), nn.Conv2d(11, 9, 1, bias=False)
    twin = nn.Conv2d(5, 4, 1, bias=False)
    twin.weight = one.weight

    assert value(one, other, twin) == value(one, other)


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_is_that_of_the_value(name: str) -> None:
    net = randomised(NETS[name]()).double()
    expected = torch.autograd.grad(0.3 * off_orthogonality(net), list(net.parameters()), allow_unused=True)
    idle(net)
    add_penalty_gradient(net, 0.3)

    for (name, parameter), gradient in zip(net.named_parameters(), expected, strict=True):  # noqa: PLR1704
        in_convolution = isinstance(net.get_submodule(name.rpartition(".")[0]), (nn.Conv2d, nn.ConvTranspose2d))
        assert in_convolution == bool(parameter.grad.any()) == (gradient is not None), name
        assert gradient is None or torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12), name


def test_channels_last_makes_no_difference() -> None:
    one, two = randomised(Residual(5, 7)), randomised(Residual(5, 7)).to(memory_format=torch.channels_last)
    for net in (one, two):
        idle(net)
        add_penalty_gradient(net, 1.0)

    assert all(
        torch.allclose(p.grad, q.grad, rtol=1e-4) for p, q in zip(one.parameters(), two.parameters(), strict=True)
    )


def test_what_is_not_trained_is_left_alone() -> None:
    net = randomised(Chain())
    idle(net)
    net.first[0].weight.grad = None
    add_penalty_gradient(net, 1.0)

    assert net.first[0].weight.grad is None
    assert net.second[0].weight.grad.any()


def test_under_the_penalty_alone_filters_become_orthonormal() -> None:
    net = randomised(Chain())
    shares, lengths = [diagonal_share(net).item()], [lengths_of(net)]

    def look(step: int) -> None:
        if step % 100 == 99:
            shares.append(diagonal_share(net).item())
            lengths.append(lengths_of(net))

    drive(net, Orthonormality(1.0), 300, lr=2e-3, look=look)

    assert shares == sorted(shares)
    assert shares[0] < 0.6
    assert shares[-1] > 0.95
    assert np.abs(lengths[0] - 1).max() > 0.1
    assert lengths[-1] == pytest.approx(np.ones(7 + 11), abs=0.01)


def lengths_of(net: nn.Module) -> np.ndarray:
    rows = [layer.weight.detach().flatten(1).norm(dim=1) for layer in (net.first[0], net.second[0])]
    return torch.cat(rows).numpy()


def linear_net() -> nn.Module:
    """Without anything between the filters and what reads them."""
    net = nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 9), nn.Flatten())
    return randomised(net).double()


def given(net: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Context:
    """These batches, whatever is asked for."""
    example = batches[0][0]
    return Context(net, trace(net, example), lambda images: iter(batches), cross_entropy, predict, 0)


def uneven(sizes: tuple[int, ...] = (5, 2)) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(n, 3, 9, 9, generator=generator, dtype=torch.float64), torch.arange(n).sub(n).remainder(5))
        for n in sizes
    ]


def test_a_score_is_the_squared_change_of_the_mean_loss_when_a_filter_is_scaled() -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 9), nn.Flatten()))
    net, batches = net.double(), uneven()
    scores = build("orthoreg").score(given(net, batches))["0"]

    def loss(filter_: int, gate: float) -> float:
        weight, bias = net[0].weight.clone(), net[0].bias.clone()
        weight[filter_] *= gate
        bias[filter_] *= gate
        images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
        return F.cross_entropy(net[4](net[3](net[2](net[1](F.conv2d(images, weight, bias))))), labels).item()

    step = 1e-5
    with torch.no_grad():
        slopes = [(loss(i, 1 + step) - loss(i, 1 - step)) / (2 * step) for i in range(7)]
    assert scores == pytest.approx(np.square(slopes), rel=1e-4)
    assert min(scores) > 0


def test_a_filter_and_its_negative_score_the_same() -> None:
    net, batches = linear_net(), uneven()
    before = build("orthoreg").score(given(net, batches))["0"]
    for part in (net[0].weight[3], net[0].bias[3], net[1].weight[:, 3]):
        part.data.neg_()

    assert build("orthoreg").score(given(net, batches))["0"] == pytest.approx(before)


def test_gradients_that_were_there_before_do_not_count() -> None:
    net, batches = linear_net(), uneven()
    before = build("orthoreg").score(given(net, batches))["0"]
    idle(net)
    net[0].weight.grad.fill_(1)

    assert build("orthoreg").score(given(net, batches))["0"] == pytest.approx(before)


class Sum(nn.Module):
    """Filter i of `a` and filter i of `b` are one unit: they write to one channel."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.a, self.b = (filled(nn.Conv2d(11, 3, 1, bias=False), rows) for rows in (a, b))
        self.head = filled(nn.Conv2d(3, 1, 1, bias=False), torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x) + self.b(x))


def importance(a: Tensor, b: Tensor) -> np.ndarray:
    """The score of each unit, averaged over inputs that point everywhere alike: an orthonormal basis."""
    net = Sum(a, b).eval()
    graph = trace(net, torch.ones(1, 11, 1, 1))
    scores = []
    for direction in orthonormal(11, 11, seed=5):
        batch = (direction.reshape(1, 11, 1, 1), torch.zeros(1))
        case = Context(
            net,
            graph,
            lambda images, batch=batch: iter([batch]),
            lambda model, batch: model(batch[0]).sum(),
            predict,
            0,
        )
        scores.append(build("orthoreg").score(case)["a"])
    return np.mean(scores, axis=0)


def test_importance_adds_up_for_orthogonal_filters_and_not_for_copies() -> None:
    rows, nothing = orthonormal(6, 11), torch.zeros(3, 11)
    first, second = rows[:3], rows[3:]
    singles = [importance(first, nothing), importance(nothing, second)]

    assert singles[0] == pytest.approx(np.full(3, 1 / 11))
    assert importance(first, second) == pytest.approx(singles[0] + singles[1])
    assert importance(first, first) == pytest.approx(4 * singles[0])  # (1 + 1)^2, not 1 + 1


def test_the_faithful_scope_leaves_residual_streams_alone() -> None:
    case = context(randomised(Residual()))

    assert set(build("orthoreg", images=128).score(case)) == {"stem.0", "a1.0", "b1.0"}
    assert set(build("orthoreg", images=128, scope="faithful").score(case)) == {"a1.0", "b1.0"}


def test_units_are_ranked_across_groups_down_to_the_floor() -> None:
    case = context(randomised(Residual(stream=23, inner=31)))
    method, allocation = build("orthoreg", images=128), Allocation(normalise="none", max_ratio=0.7)
    scores = method.score(case)
    scores["b1.0"] *= 1e-9  # all of these would go first
    kept = dict(method.select(case, scores, Target(flops=0.3), allocation).keep.kept)
    assert len(kept["b1.0"]) == math.ceil(0.3 * 31)

    # where the target cuts the order off, a unit of each group may be exchanged
    ordered = {name: np.sort(scores[name][list(units)])[1:] for name, units in kept.items() if name != "b1.0"}
    lost = {name: np.sort(np.delete(scores[name], kept[name]))[:-1] for name in ordered}
    assert set(ordered) == {"stem.0", "a1.0"}
    assert all(len(values) > 1 for values in lost.values())
    assert np.concatenate([*lost.values()]).max() < np.concatenate([*ordered.values()]).min()


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
@pytest.mark.parametrize("left", [0.5, 0.3, 0.09])
def test_what_the_rounds_take_multiplies_out_to_the_target(left: float, rounds: int) -> None:
    method, pruned = build("orthoreg", rounds=rounds), 1 - left
    ratios = [pruned / (j * pruned + rounds * (1 - pruned)) for j in range(1, rounds + 1)]
    after = np.cumprod([1 - ratio for ratio in ratios])

    assert method.stage_shares == (0.4 / rounds,) * rounds
    assert [method.left_after(left, j) for j in range(1, rounds + 1)] == pytest.approx(after)
    assert after[-1] == pytest.approx(left)
    assert np.diff([1, *(1 / after)]) == pytest.approx(np.full(rounds, (1 / left - 1) / rounds))


def test_half_in_two_rounds_takes_a_third_and_then_a_quarter() -> None:
    method = build("orthoreg", rounds=2)

    assert 1 - method.left_after(0.5, 1) == pytest.approx(1 / 3)
    assert 1 - method.left_after(0.5, 2) / method.left_after(0.5, 1) == pytest.approx(1 / 4)


def begun(cut: int, **params: float) -> tuple[nn.Module, Orthonormality]:
    net, method = randomised(Residual()), build("orthoreg", **params)
    return net, method.sparsify(context(net), replace(stage(method), round=cut, weight_decay=0.07))


def added(net: nn.Module, regulariser: Orthonormality, step: int) -> dict[str, Tensor]:
    idle(net)
    regulariser.before_step(net, step, 40)
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_a_later_round_begins_with_plain_training() -> None:
    net, regulariser = begun(1, recover=0.7, strength=0.02)
    decay = {name: 0.07 * parameter.detach() for name, parameter in net.named_parameters()}
    idle(net)
    add_penalty_gradient(net, 0.02)
    penalty = {name: parameter.grad for name, parameter in net.named_parameters()}

    for step, expected in ((0, decay), (27, decay), (28, penalty), (39, penalty)):  # 28 of 40 steps
        actual = added(net, regulariser, step)
        assert all(torch.allclose(actual[name], expected[name]) for name in expected), step


@pytest.mark.parametrize(("cut", "recover"), [(0, 0.7), (1, 0.0)])
def test_the_first_round_is_all_penalty(cut: int, recover: float) -> None:
    net, regulariser = begun(cut, recover=recover)

    assert not added(net, regulariser, 0)["head.weight"].any()  # a linear layer: weight decay would be seen here
    assert added(net, regulariser, 0)["a1.0.weight"].any()


def test_no_weight_decay_and_a_constant_rate_if_there_are_rounds() -> None:
    training = Training(schedule="cosine", weight_decay=0.07, ema=0.9, distill=0.5)
    one, two = (build("orthoreg", rounds=rounds).stage_training(training) for rounds in (1, 2))

    assert one == replace(training, weight_decay=0.0, ema=0.0, distill=0.0)
    assert two == replace(one, schedule="constant")


def test_a_model_without_convolutions_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(243, 7), nn.Linear(7, 5))
    method = build("orthoreg")

    with pytest.raises(InputError, match="needs convolutions"):
        method.sparsify(context(net), stage(method))


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)
