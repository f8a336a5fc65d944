"""Operations channel by channel, or along other dimensions than that of the channels, leave them prunable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import Between, image, randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace

KEEP = Keep.of({"a": [1, 2, 6]})


def check(net: nn.Module) -> None:
    graph = trace(net, image())
    with torch.no_grad():
        masked, cut = (model(image()) for model in (mask(net, graph, KEEP), prune(net, graph, KEEP, fold=False)))

    assert graph.by_id["a"].size == 7
    torch.testing.assert_close(cut, masked)


VALUES_OF: dict[str, Callable[[Tensor], Tensor]] = {
    "max over channels": lambda y: y * torch.max(y, 1, keepdim=True)[0],
    "median over channels": lambda y: y - y.median(1, keepdim=True).values,
    "nansum over channels": lambda y: y - y.nansum(1, keepdim=True),
    "mode": lambda y: y - y.round().mode(3, keepdim=True).values,
    "kthvalue": lambda y: y - y.flatten(2).kthvalue(3, 2).values[..., None, None],
    "quantile": lambda y: y - y.quantile(0.3, dim=3, keepdim=True),
    "aminmax": lambda y: y - torch.aminmax(y.flatten(2), dim=2).max[..., None, None],
    "cummax": lambda y: y.cummax(3).values,
    "logcumsumexp": lambda y: y.logcumsumexp(2),
    "fft": lambda y: torch.fft.irfft2(torch.fft.rfft2(y) * 0.5, s=y.shape[2:]),
    "complex numbers": lambda y: torch.view_as_complex(torch.view_as_real(torch.fft.fft2(y)).contiguous()).abs(),
    "rot90": lambda y: torch.rot90(y, 1, (2, 3)) + y.flip(3),
    "triangles": lambda y: y.tril() + 2 * y.triu(1),
    "diagonal": lambda y: y * torch.diagonal(y, 0, 2, 3)[..., None],
    "diagonal matrices": lambda y: torch.diag_embed(y.mean(3)) @ y,
    "inverse": lambda y: torch.linalg.inv(y + 10 * torch.eye(9, device=y.device)),
    "gather": lambda y: y.gather(3, y.argsort(3)),
    "scatter": lambda y: torch.zeros_like(y).scatter(3, y.argsort(3), y),
    "scatter_add": lambda y: torch.zeros(y.shape, device=y.device).scatter_add(3, torch.ones_like(y).long(), y),
    "index_add": lambda y: torch.zeros_like(y).index_add(2, torch.arange(9, device=y.device), y),
    "distances": lambda y: y * torch.cdist(y.flatten(2).mT, y.flatten(2).mT).mean(2)[:, None].unflatten(2, (9, 9)),
    "response norm": lambda y: F.local_response_norm(10 * y, 4, alpha=1),
    "response norm 1d": lambda y: F.local_response_norm(10 * y.flatten(2), 3, alpha=1).view_as(y),
    "fold": lambda y: F.fold(F.unfold(y, 3, padding=1), y.shape[2:], 3, padding=1),
    "grid": lambda y: F.grid_sample(y[:, :, None], y.new_zeros(2, 1, 9, 9, 3), align_corners=False)[:, :, 0],
    "reflection": lambda y: F.pad(y[:, :, None].expand(-1, -1, 3, -1, -1), (1,) * 6, mode="reflect")[:, :, 1],
    "replication": lambda y: F.pad(y[:, :, None], (1,) * 6, mode="replicate")[:, :, 1],
    "adaptive maximum": lambda y: F.adaptive_max_pool3d(y[:, :, None], (1, 3, 2))[:, :, 0],
    "random leak": F.rrelu,
}


@pytest.mark.parametrize("name", VALUES_OF)
def test_channels_before_it_are_pruned_and_masked_is_cut(name: str) -> None:
    check(randomised(Between(VALUES_OF[name])))


def test_windows_of_random_places_leave_channels_prunable() -> None:
    net = Between(lambda y: F.fractional_max_pool2d(y, 2, output_ratio=(0.7, 0.7)))

    assert trace(net, image()).by_id["a"].size == 7


class Deformed(nn.Module):
    """A deformable convolution of 11 filters over 7 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.places, self.b = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 18, 3, padding=1), nn.Conv2d(11, 5, 1)
        self.deform = DeformConv2d(7, 11, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(self.deform(x, self.places(x)))


def test_a_deformable_convolution_loses_inputs_and_filters_but_no_places() -> None:
    net = Deformed().eval()
    check(net)
    graph = trace(net, image())

    assert {group.id: group.size for group in graph.prunable} == {"a": 7, "deform": 11}
    assert {g.id: g.frozen for g in graph.groups}["places"] == "places of a deformable convolution in deform"
    small = Keep.of({"a": [0, 1, 2], "deform": range(5)})
    assert cost(graph, small).params == sum(p.numel() for p in prune(net, graph, small).parameters())
