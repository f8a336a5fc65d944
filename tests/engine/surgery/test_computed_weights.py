"""Networks whose weights are computed from parameters: cut through, and what is left of a weight is as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cuts import lawful_graph, prunable
from nets import image, randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.artifact import load, save
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning"),
]

NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm's hook": weight_norm,
    "weight norm": parametrizations.weight_norm,
    "weight norm over all": partial(weight_norm, dim=None),
    "spectral norm's hook": spectral_norm,
    "spectral norm": parametrizations.spectral_norm,
}


def normed(norm: Callable[[nn.Module], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 7, 3), nn.Conv2d(7, 11, 3, padding=1), nn.ConvTranspose2d(11, 13, 2)]
    up = nn.Sequential(*(step for layer in layers for step in (norm(layer), nn.ReLU())))
    return nn.Sequential(up, nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm(nn.Linear(13, 9)), nn.Linear(9, 5)).eval()


@pytest.mark.parametrize("name", NORMS)
def test_normed_weights_are_pruned_through(name: str) -> None:
    graph = lawful_graph(normed(NORMS[name]), image(7))

    assert prunable(graph) == {"0.0": 7, "0.2": 11, "0.4": 13, "3": 9}


@pytest.mark.parametrize("name", NORMS)
def test_what_stays_of_a_normed_weight_is_as_it_was(name: str) -> None:
    net = normed(NORMS[name])
    graph = trace(net, image(7))
    keep = Keep.of({"0.0": [0, 3, 4, 6], "0.2": [1, 2, 7, 10], "3": [0, 8]})
    cut = prune(net, graph, keep)

    with torch.no_grad():
        net(image(7)), cut(image(7))  # hooks compute weights when the model runs
        torch.testing.assert_close(cut[0][2].weight, net[0][2].weight[[1, 2, 7, 10]][:, [0, 3, 4, 6]])
        torch.testing.assert_close(cut[3].weight, net[3].weight[[0, 8]])
    assert (cut[0][2].in_channels, cut[0][2].out_channels) == (4, 4)
    assert sum(p.numel() for p in cut.parameters()) == cost(graph, keep).params


@pytest.mark.parametrize("name", NORMS)
def test_a_pruned_model_with_normed_weights_trains_and_is_stored(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    net = normed(NORMS[name])
    graph = trace(net, image(7))
    keep = Keep.of({group.id: range(2, group.size) for group in graph.prunable})
    cut = prune(net, graph, keep)
    loaded = load(save(tmp_path / "cut", cut, graph, keep), partial(normed, NORMS[name], 1))

    with torch.no_grad():
        torch.testing.assert_close(loaded(image(7)), cut(image(7)))
    cut.train()(image(7)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in cut.parameters())


def test_cutting_a_model_in_train_mode_leaves_its_power_iteration_alone() -> None:
    net = normed(parametrizations.spectral_norm).train()
    before = copy.deepcopy(net.state_dict())
    graph = trace(net, image(7))
    prune(net, graph, Keep.of({"0.0": range(3)}))

    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


class Standardised(nn.Conv2d):
    """Filters of mean 0 and variance 1 (BiT, NF-ResNet)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        scale = flat.std(1, unbiased=False) + 1e-5
        weight = (self.weight - flat.mean(1)[:, None, None, None]) / scale[:, None, None, None]
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Positive(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return F.softplus(weight)


def test_standardised_and_parametrised_weights_are_pruned_through() -> None:
    net = nn.Sequential(Standardised(3, 7, 3), nn.ReLU(), Standardised(7, 11, 3), nn.ReLU(), nn.Conv2d(11, 5, 1))
    parametrize.register_parametrization(net[2], "bias", Positive())
    parametrize.register_parametrization(net[4], "weight", Positive())

    assert prunable(lawful_graph(randomised(net), image())) == {"0": 7, "2": 11}


class Rotated(nn.Module):
    """A weight that is mixed by an operation without a rule."""

    def forward(self, weight: Tensor) -> Tensor:
        return torch.linalg.lu_factor(weight)[0] if weight.dim() == 2 else weight.flip(0)


def test_weights_that_are_computed_in_a_way_that_cannot_be_followed_are_frozen_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 11, 3), nn.ReLU(), nn.Conv2d(11, 5, 1))
    parametrize.register_parametrization(net[2], "weight", Rotated())
    graph = trace(net.eval(), image())

    reasons = {group.id: group.frozen for group in graph.groups}
    assert reasons["0"] is None
    assert "flip" in str(reasons["2"])


def test_networks_for_quantisation_aware_training_are_pruned_through() -> None:
    quantisation = pytest.importorskip("torch.ao.quantization")
    net = nn.Sequential(
        quantisation.QuantStub(), nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 11, 3),
        nn.Conv2d(11, 5, 1), quantisation.DeQuantStub(),
    ).train()  # fmt: skip
    net.qconfig = quantisation.get_default_qat_qconfig("x86")
    net = quantisation.prepare_qat(quantisation.fuse_modules_qat(net, [["1", "2", "3"]]))
    for _ in range(2):
        net(image())
    net.eval()
    graph = trace(net, image())
    keep = Keep.of({"1": [0, 2, 3, 6], "4": [1, 4, 5, 9, 10]})
    cut = prune(net, graph, keep, fold=False)

    assert prunable(graph) == {"1": 7, "4": 11}
    with torch.no_grad():
        torch.testing.assert_close(cut(image()), mask(net, graph, keep)(image()), rtol=1e-3, atol=1e-3)
    quantised = quantisation.convert(cut)
    assert quantised(image()).shape == (2, 5, 5, 5)
