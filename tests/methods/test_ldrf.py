"""LDRF and channel pruning: decomposition, what is solved for, recomposition, and scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nets import NETS, Residual, block, image, randomised
from readers import TwoReaders, depthwise_between
from regularisers import cross_entropy, predict
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError
from autoprune.methods import Context, Method
from autoprune.methods.base.decomposition import capacity, lifted, root
from autoprune.methods.base.layer_pairs import find_pairs
from autoprune.methods.ldrf import LDRF, ChannelPruning, by_multiple
from autoprune.recipe import Allocation, Target

ALL = 10**6  # more places than any layer has


def on_image(model: nn.Module) -> Any:
    return model(image())


def data(images: int) -> Iterator[tuple[Tensor, None]]:
    """Batches of eleven without labels: nothing here may ask for them."""
    generator = torch.Generator().manual_seed(3)
    for start in range(0, images, 11):
        yield torch.randn(min(11, images - start), 3, 9, 9, generator=generator), None


def seen(images: int) -> Tensor:
    return torch.cat([inputs for inputs, _ in data(images)])


def case(net: nn.Module) -> Context:
    return Context(net, trace(net, image()), data, cross_entropy, predict, 0)  # type: ignore[arg-type]


class Padded(nn.Module):
    """Three 3x3 convolutions with zero padding, in between by functions; the last keeps its width."""

    def __init__(self, a: int = 13, b: int = 11) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, a, 3, padding=1, bias=False), nn.BatchNorm2d(a)
        self.two, self.three = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, 7, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.one(x)), inplace=True)
        return self.three(F.max_pool2d(F.relu(self.two(x)), 2))


def pair(width: int = 13, kernel: int = 1, norm: bool = True) -> nn.Sequential:
    """One layer pair: a 3x3 convolution, read by another convolution; its output is what readers make of it."""
    between = [nn.BatchNorm2d(width), nn.ReLU()] if norm else []
    layers = [nn.Conv2d(3, width, 3, bias=False), *between, nn.Conv2d(width, 7, kernel, bias=False)]
    return randomised(nn.Sequential(*layers))


def rebuilt(net: nn.Module, keep: dict[str, Any], method: Method | None = None, **fields: Any) -> nn.Module:
    method = method or LDRF(**{"images": 64, "locations": ALL, "eps": 0.0, **fields})
    return method.rebuild(case(net), Keep.of(keep))


@torch.no_grad()
def error(net: nn.Module, pruned: nn.Module, images: int = 64) -> float:
    """Squared difference of the outputs over the squared output."""
    expected = net(seen(images))
    return ((pruned(seen(images)) - expected).square().sum() / expected.square().sum()).item()


def test_a_network_without_layer_pairs_says_so() -> None:
    with pytest.raises(InputError, match="made by one layer"):
        LDRF().score(case(randomised(NETS["Concat"]())))


def test_groups_of_others_have_no_scores() -> None:
    for selector in ("topk", "random"):
        assert set(LDRF(images=20, selector=selector).score(case(randomised(Residual())))) == {"a1.0", "b1.0"}


NETWORKS = {
    "padded": Padded,
    "chain": NETS["Chain"],
    "depthwise": depthwise_between,
    "two readers": TwoReaders,
    "residual": Residual,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", [LDRF(images=20, eps=0.0, steps=3), ChannelPruning(images=20)])
def test_whole_ranks_and_all_channels_give_the_network_back(name: str, method: Method) -> None:
    net = randomised(NETWORKS[name]())
    context = case(net)
    keep = {one.group.id: range(one.group.size) for one in find_pairs(net, context.graph, on_image)}
    again = method.rebuild(context, Keep.of(keep))

    with torch.no_grad():
        for one, other in zip(_listed(net(image())), _listed(again(image())), strict=True):
            assert torch.allclose(one, other, atol=1e-4)


def _listed(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return out if isinstance(out, tuple) else (out,)


def test_the_decomposed_network_is_the_recomposed_one_under_zero_padding() -> None:
    """The second layer of the rebuilt network as 1x1 behind the activation and 3x3 with padding."""
    net = randomised(Padded())
    pruned = rebuilt(net, {"one": range(2, 11)}, eps=0.2, steps=3)
    weight = pruned.two.weight.detach().double()  # (11, 9, 3, 3)
    left, values, right = torch.linalg.svd(weight.movedim(1, 0).flatten(1), full_matrices=False)
    d = int((values > 1e-5 * values[0]).sum())
    narrow = (left[:, :d] * values[:d]).T[:, :, None, None]
    wide = right[:d].reshape(d, 11, 3, 3).movedim(0, 1)
    y = torch.randn(2, 9, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    assert 1 < d < 9
    assert torch.allclose(
        F.conv2d(F.conv2d(y, narrow), wide, padding=1), F.conv2d(y, weight, padding=1), atol=1e-4 * float(values[0])
    )


def test_depth_stays_and_layers_are_plain_ones_of_the_sliced_shape() -> None:
    net = randomised(Padded())
    pruned = rebuilt(net, {"one": range(5), "two": range(1, 10)}, eps=0.1, steps=3)

    assert [type(m) for m in pruned.modules()] == [type(m) for m in net.modules()]
    assert pruned.one.weight.shape == (5, 3, 3, 3)
    assert pruned.two.weight.shape == (9, 5, 3, 3)
    assert pruned.three.weight.shape == (7, 9, 3, 3)
    assert (pruned.two.in_channels, pruned.two.out_channels) == (5, 9)


def test_a_layer_that_reads_and_is_read_is_fitted_in_its_decomposed_form() -> None:
    net = randomised(Padded())
    net.two.weight.data.copy_(torch.einsum("ad,dbuv->bauv", torch.randn(13, 2), torch.randn(2, 11, 3, 3)))
    pruned = rebuilt(net, {"one": range(5), "two": range(1, 10)}, eps=1e-6, steps=60, lr=0.01)

    assert torch.linalg.matrix_rank(pruned.two.weight.detach().movedim(1, 0).flatten(1), rtol=1e-4) == 2
    assert not torch.allclose(pruned.two.bias, net.two.bias[1:10])


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("basis", ["responses", "weights"])
def test_both_factors_beat_one_and_one_beats_none(kernel: int, basis: str) -> None:
    net = pair(kernel=kernel)
    context = case(net)
    keep = {"0": range(3, 10)}
    none = error(net, prune(net, context.graph, Keep.of(keep), fold=False))
    one = error(net, rebuilt(net, keep, basis=basis, steps=0))
    both = error(net, rebuilt(net, keep, basis=basis, steps=300, lr=0.01))

    assert both < 0.8 * one < 0.8 * 0.8 * none


def test_without_steps_it_is_channel_pruning_and_for_1x1_the_least_squares_of_the_reader() -> None:
    net = pair()
    kept = [1, 4, 5, 9, 12]
    layer = rebuilt(net, {"0": kept}, ChannelPruning(images=64, locations=ALL))[-1].weight.detach()[:, :, 0, 0]
    with torch.no_grad():
        y = net[:3](seen(64)).movedim(1, -1).reshape(-1, 13).double().numpy()
    targets = y @ net[-1].weight.detach().double().numpy()[:, :, 0, 0].T
    expected = np.linalg.lstsq(y[:, kept], targets, rcond=None)[0]

    assert layer.T.numpy() == pytest.approx(expected, abs=2e-3)
    assert torch.allclose(rebuilt(net, {"0": kept}, steps=0)[-1].weight[:, :, 0, 0], layer, atol=1e-5)
    assert torch.equal(rebuilt(net, {"0": kept}, steps=0)[0].weight, net[0].weight[kept])


def test_targets_come_from_the_dense_network_and_inputs_from_the_pruned_one() -> None:
    """1x1 layers in a row: the second least squares by hand, on what the first has left."""
    net = randomised(nn.Sequential(*block(3, 11, 1), *block(11, 13, 1), nn.Conv2d(13, 7, 1, bias=False)))
    pruned = rebuilt(net, {"0": range(6), "3": range(5)}, ChannelPruning(images=64, locations=ALL))
    with torch.no_grad():
        whole, part = (n[:6](seen(64)).movedim(1, -1).flatten(0, -2).double() for n in (net, pruned))
    targets = whole @ net[-1].weight.detach().double()[:, :, 0, 0].T
    start = net[-1].weight.detach().double()[:, :5, 0, 0].T
    moment = part.T @ part / len(part)
    expected = start + torch.linalg.solve(lifted(moment), part.T @ (targets - part @ start) / len(part))

    assert torch.allclose(pruned[-1].weight[:, :, 0, 0].T.double(), expected, atol=1e-4)


def planted(rank: int) -> nn.Sequential:
    """Nothing lies between two 1x1 layers, and the second reads `rank` combinations of thirteen channels."""
    net = nn.Sequential(nn.Conv2d(3, 13, 3, bias=False), nn.Conv2d(13, 7, 1, bias=False))
    randomised(net)
    generator = torch.Generator().manual_seed(7)
    read = torch.randn(7, rank, generator=generator) @ torch.randn(rank, 13, generator=generator) / 5
    net[1].weight.data.copy_(read[:, :, None, None])
    return net


def test_as_many_channels_as_the_rank_are_enough_without_an_activation() -> None:
    net, keep = planted(3), {"0": [2, 3, 8]}

    assert error(net, rebuilt(net, keep, eps=1e-6, steps=600, lr=0.01)) < 1e-3
    assert error(net, rebuilt(net, keep, steps=0)) > 0.1  # the three channels themselves do not hold it


def test_twice_as_many_signed_copies_are_enough_behind_a_relu() -> None:
    """Six directions and their opposites, thrice and scaled: z = relu(z) - relu(-z) needs one pair of each."""
    generator = torch.Generator().manual_seed(7)
    once = torch.randn(3, 3, 3, 3, generator=generator) / 5
    net = nn.Sequential(nn.Conv2d(3, 18, 3, bias=False), nn.ReLU(), nn.Conv2d(18, 7, 1, bias=False))
    net[0].weight.data.copy_(torch.cat([once, -once, 2 * once, -2 * once, 3 * once, -3 * once]))
    signs = torch.tensor([1.0, -1]).repeat_interleave(3).repeat(3)
    read = (torch.randn(7, 3, generator=generator).repeat(1, 6) * signs)[:, :, None, None]
    net[2].weight.data.copy_(read)
    keep = range(6)

    assert error(net.eval(), rebuilt(net, {"0": keep}, eps=1e-6, steps=0)) < 1e-5
    assert error(net, rebuilt(net, {"0": range(3)}, eps=1e-6, steps=0)) > 0.1
    assert error(net, prune(net, case(net).graph, Keep.of({"0": keep}), fold=False)) > 0.1


def test_too_high_a_rate_is_no_worse_than_none() -> None:
    net, keep = pair(), {"0": range(3, 10)}

    assert error(net, rebuilt(net, keep, steps=101, lr=1.0)) <= error(net, rebuilt(net, keep, steps=0)) * (1 + 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_channel_may_be_all_that_stays(name: str) -> None:
    """A depthwise convolution of one channel looks like any other."""
    net = randomised(NETWORKS[name]())
    context = case(net)
    keep = {one.group.id: [2] for one in find_pairs(net, context.graph, on_image)}
    pruned = LDRF(images=20, steps=3).rebuild(context, Keep.of(keep))
    sliced = prune(net, context.graph, Keep.of(keep), fold=False)

    assert {k: v.shape for k, v in pruned.state_dict().items()} == {k: v.shape for k, v in sliced.state_dict().items()}
    assert not any(torch.equal(pruned.get_parameter(w), sliced.get_parameter(w)) for w in read_weights(net, context))


def read_weights(net: nn.Module, context: Context) -> list[str]:
    return [reader.weight for one in find_pairs(net, context.graph, on_image) for reader in one.readers]


def test_layers_that_lose_nothing_stay_as_they_are() -> None:
    net = randomised(Padded())
    pruned = rebuilt(net, {"one": range(5)}, steps=3)

    assert torch.equal(pruned.three.weight, net.three.weight)
    assert not torch.equal(pruned.one.weight, net.one.weight[:5])
    assert torch.equal(pruned.norm.running_mean, net.norm.running_mean[:5])


def test_the_model_before_the_cut_stays_as_it_was() -> None:
    net = randomised(Padded())
    before = copy.deepcopy(net.state_dict())
    rebuilt(net, {"one": range(5)}, steps=60)

    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())


def test_rebuilding_is_a_function_of_context_and_keep() -> None:
    one, two = (rebuilt(randomised(Padded()), {"one": range(5)}, steps=60, locations=7).state_dict() for _ in range(2))

    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_fewer_images_than_a_batch_and_images_that_do_not_fill_the_last() -> None:
    net = pair()
    for images in (5, 43):
        assert error(net, rebuilt(net, {"0": range(3, 10)}, images=images, steps=0)) < error(
            net, prune(net, case(net).graph, Keep.of({"0": range(3, 10)}), fold=False)
        )


def test_scores_by_hand() -> None:
    """s_i = ||Q_i|| rms(y_i) with Q = M X_d, X_d from E[y y^T]^(1/2) M."""
    net = pair(kernel=3)
    with torch.no_grad():
        y = net[:3](seen(40)).movedim(1, -1).reshape(-1, 13).double()
    matrix = net[-1].weight.detach().double().movedim(1, 0).flatten(1)
    moment = y.T @ y / len(y)
    values, right = torch.linalg.svd(root(lifted(moment)) @ matrix, full_matrices=False)[1:]
    d = next(d for d in range(14) if values[d:].square().sum() <= 0.1 * values.square().sum())
    expected = (matrix @ right[:d].T).norm(dim=1) * y.square().mean(0).sqrt()

    assert 1 < d < 13
    assert LDRF(images=40, eps=0.1).score(case(net))["0"] == pytest.approx(expected.numpy(), rel=1e-4)
    undecomposed = matrix.norm(dim=1) * y.square().mean(0).sqrt()
    assert ChannelPruning(images=40).score(case(net))["0"] == pytest.approx(undecomposed.numpy(), rel=1e-4)


def test_multiples_of_the_rank_by_hand() -> None:
    assert by_multiple(np.array([0.1, 0.7, 0.3, 0.5]), 2).tolist() == [2 / 4, 2 / 1, 2 / 3, 2 / 2]


def test_a_budget_by_the_range_of_relu_keeps_one_multiple_of_every_rank() -> None:
    net = randomised(Padded(61, 47))
    for layer, rank in ((net.two, 23), (net.three, 7)):
        rows = layer.weight.detach().movedim(1, 0)
        left, values, right = torch.linalg.svd(rows.flatten(1), full_matrices=False)
        low = (left[:, :rank] * values[:rank]) @ right[:rank]
        layer.weight.data.copy_(low.reshape(rows.shape).movedim(0, 1))
    context, method = case(net), LDRF(images=40, eps=1e-6, budget="relu")
    scores = method.score(context)
    widths = method.select(context, scores, Target(flops=0.15), Allocation()).keep.widths(context.graph)
    g = widths["one"] / 23

    assert 1 < g < 2
    assert abs(widths["two"] - g * 7) <= 1.01
    by_scores = LDRF(images=40, eps=1e-6).select(context, scores, Target(flops=0.15), Allocation()).keep
    assert by_scores.widths(context.graph) != widths


def test_a_target_below_all_ranks_leaves_more_energy_out() -> None:
    net = randomised(Padded(61, 47))
    context, method = case(net), LDRF(images=40, eps=1e-6, budget="relu")
    keep = method.select(context, method.score(context), Target(flops=0.2), Allocation()).keep
    found = keep.widths(context.graph)
    found = [found["one"], found["two"]]
    spectra = [spectrum(net, layer) for layer in (net.two, net.three)]
    ranks = [[capacity(values, 1e-6 * 2**k) for values in spectra] for k in range(20)]
    fits = [all(d <= n <= 2 * d + 1 for n, d in zip(found, at, strict=True)) for at in ranks]

    assert cost(context.graph, keep).ratios(cost(context.graph, Keep.all()))["flops"] == pytest.approx(0.2, abs=0.01)
    assert any(fits)
    assert not any(fits[:5])


@torch.no_grad()
def spectrum(net: nn.Module, reader: nn.Conv2d) -> Tensor:
    """Singular values of E[y y^T]^(1/2) M."""
    given: list[Tensor] = []
    handle = reader.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].movedim(1, -1).flatten(0, -2)))
    net(seen(40))
    handle.remove()
    y = given[0].double()
    return torch.linalg.svdvals(root(lifted(y.T @ y / len(y))) @ reader.weight.double().movedim(1, 0).flatten(1))
