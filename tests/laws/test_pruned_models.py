"""What one does with a model, one does with a pruned one: print, script, export, compile, train, save, prune again."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from nets import NETS, image, randomised
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.timing.muted import exporters_muted

# torch.jit goes out of fashion, but models are still shipped with it
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:FutureWarning")


class Normed(nn.Module):
    """Every layer whose attributes repeat the shape of its weights and that the other networks lack."""

    def __init__(self, width: int = 14) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2)
        self.group, self.act = nn.GroupNorm(2, width), nn.PReLU(width)
        self.grouped, self.instance = nn.Conv2d(width, 22, 1, groups=2), nn.InstanceNorm2d(22, affine=True)
        self.up = nn.ConvTranspose2d(22, 26, 2, 2, groups=2)
        self.layer, self.rms = nn.LayerNorm(26), nn.RMSNorm(26)
        self.attention = nn.MultiheadAttention(26, 2, batch_first=True)
        self.head = nn.Linear(26, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.instance(self.grouped(self.act(self.group(self.stem(x)))))
        x = self.layer(self.up(x).flatten(2).transpose(1, 2))
        x = self.rms(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(x.mean(1))


def resnet() -> nn.Module:
    """Bottlenecks of ResNeXt with 2 groups."""
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5, groups=2, width_per_group=7)


def mobilenet() -> nn.Module:
    rows = ((16, 3, 16, 16, True, "RE", 2, 1), (16, 3, 72, 24, False, "HS", 2, 1), (24, 5, 88, 24, True, "HS", 1, 1))
    return MobileNetV3([InvertedResidualConfig(*row, 1) for row in rows], last_channel=56, num_classes=5)


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(14, 22, 1), CNBlockConfig(22, None, 2)], num_classes=5)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual": NETS["Residual"],
    "depthwise": NETS["Depthwise"],
    "normed": Normed,
    "resnet": resnet,
    "mobilenet": mobilenet,
    "densenet": partial(DenseNet, 7, (2, 2), 14, 2, num_classes=5),
    "shufflenet": partial(ShuffleNetV2, [2, 2, 2], [14, 22, 26, 30, 34], num_classes=5),
    "convnext": convnext,
    "swin": partial(SwinTransformer, [2, 2], 12, [2, 2], [2, 3], [4, 4], num_classes=5),
    "vit": partial(VisionTransformer, 32, 8, 2, 2, 14, 22, num_classes=5),
}


@dataclass(frozen=True)
class Case:
    """A model, its graph, and the same cut to a random half of every group."""

    dense: nn.Module
    graph: ChannelGraph
    keep: Keep
    cut: nn.Module
    images: Tensor

    def logits(self, model: nn.Module | Callable[[Tensor], Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            return (self.cut if model is None else model)(self.images)


def half(graph: ChannelGraph, seed: int = 3) -> Keep:
    """A random half, rounded up, of every group."""
    draw = np.random.default_rng(seed)
    return Keep.of({g.id: draw.permutation(g.size)[: (g.size + 1) // 2] for g in graph.prunable})


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(2)
    dense, images = randomised(MODELS[request.param]()), image(32)
    graph = trace(dense, images)
    keep = half(graph)
    return Case(dense, graph, keep, prune(dense, graph, keep).eval(), images)


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


# ---- what it says ----------------------------------------------------------------------------------------------------


def _convolution(m: nn.modules.conv._ConvNd) -> nn.Module:
    return type(m)(m.in_channels, m.out_channels, m.kernel_size, groups=m.groups, bias=m.bias is not None)


def _attention(m: nn.MultiheadAttention) -> nn.Module:
    assert m.head_dim * m.num_heads == m.embed_dim
    return nn.MultiheadAttention(m.embed_dim, m.num_heads, bias=m.in_proj_bias is not None, kdim=m.kdim, vdim=m.vdim)


# Layer -> a new one made from what the layer says of itself.
TWINS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _convolution,
    nn.Linear: lambda m: nn.Linear(m.in_features, m.out_features, m.bias is not None),
    nn.BatchNorm2d: lambda m: nn.BatchNorm2d(m.num_features, m.eps, m.momentum, m.affine, m.track_running_stats),
    nn.InstanceNorm2d: lambda m: nn.InstanceNorm2d(m.num_features, affine=m.affine),
    nn.LayerNorm: lambda m: nn.LayerNorm(m.normalized_shape),
    nn.RMSNorm: lambda m: nn.RMSNorm(m.normalized_shape),
    nn.GroupNorm: lambda m: nn.GroupNorm(m.num_groups, m.num_channels),
    nn.PReLU: lambda m: nn.PReLU(m.num_parameters),
    nn.MultiheadAttention: _attention,
}


def twin(module: nn.Module) -> nn.Module | None:
    for kind in type(module).__mro__:
        if kind in TWINS:
            return TWINS[kind](module)
    return None


def test_a_layer_made_from_what_a_pruned_layer_says_has_its_shapes(case: Case) -> None:
    checked = 0
    for name, module in case.cut.named_modules():
        if (other := twin(module)) is not None:
            checked += 1
            assert shapes(other) == shapes(module), f"{name}: {module}"

    assert checked >= 5


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_printing_shows_the_sizes_that_are_left(case: Case) -> None:
    for (name, new), old in zip(case.cut.named_modules(), case.dense.modules(), strict=True):
        if isinstance(new, (nn.Conv2d, nn.ConvTranspose2d)) and new.weight.shape != old.weight.shape:
            assert f"({new.in_channels}, {new.out_channels}, " in repr(new), name
            assert repr(new) != repr(old), name


# ---- what others make of it ------------------------------------------------------------------------------------------


def test_a_pruned_model_is_scripted(case: Case) -> None:
    same(case.logits(torch.jit.script(case.cut)), case.logits())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # transformers compare sizes, pruned or not
def test_a_pruned_model_is_traced_by_torch_and_survives_a_file(case: Case) -> None:
    file = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(case.cut, case.images), file)
    file.seek(0)

    same(case.logits(torch.jit.load(file)), case.logits())


def exported(case: Case, **options: Any) -> nn.Module:
    with exporters_muted():
        return torch.export.export(case.cut, (case.images,), **options).module()


def test_a_pruned_model_is_exported(case: Case) -> None:
    same(case.logits(exported(case)), case.logits())


def test_a_pruned_model_is_exported_for_batches_of_any_size(case: Case) -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    program = exported(case, dynamic_shapes=({0: batch},))
    more = torch.cat([case.images] * 2)

    with torch.no_grad():
        same(program(more), case.cut(more))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_pruned_model_is_compiled(case: Case, backend: str) -> None:
    torch._dynamo.reset()

    same(case.logits(torch.compile(case.cut, backend=backend, fullgraph=True)), case.logits())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="inductor needs a C compiler")
@pytest.mark.filterwarnings("ignore:Skipping serialization:UserWarning")  # of torch 2.6, about its own settings
def test_inductor_compiles_a_pruned_model() -> None:
    dense, images = randomised(MODELS["depthwise"]()), image(32)
    graph = trace(dense, images)
    cut = prune(dense, graph, half(graph))
    torch._dynamo.reset()

    with torch.no_grad():
        same(torch.compile(cut)(images), cut(images), 1e-4)


# ---- what one does with it oneself -----------------------------------------------------------------------------------


def test_a_pruned_model_is_copied_and_pickled(case: Case) -> None:
    for twice in (copy.deepcopy(case.cut), pickle.loads(pickle.dumps(case.cut))):
        assert torch.equal(case.logits(twice), case.logits())


def test_weights_move_from_one_pruned_copy_to_another(case: Case) -> None:
    torch.manual_seed(4)
    other = prune(randomised(copy.deepcopy(case.dense), seed=5), case.graph, case.keep)
    assert not torch.equal(case.logits(other), case.logits())

    other.load_state_dict(case.cut.state_dict())

    assert torch.equal(case.logits(other), case.logits())


def test_a_pruned_model_trains(case: Case) -> None:
    model = copy.deepcopy(case.cut).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    targets = torch.arange(len(case.images)) % 5
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(6)

    nn.functional.cross_entropy(model(case.images), targets).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    optimiser.step()

    assert missing == []
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    with torch.no_grad():
        assert model.eval()(case.images).isfinite().all()


def test_a_pruned_model_takes_other_batches_and_memory_formats(case: Case) -> None:
    last = case.cut(case.images.contiguous(memory_format=torch.channels_last))
    model = copy.deepcopy(case.cut).to(memory_format=torch.channels_last)

    same(last, case.logits(), 1e-4)
    same(case.logits(model), case.logits(), 1e-4)
    same(case.cut(case.images[:1]), case.logits()[:1], 1e-4)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")  # torch's RMSNorm in autocast
def test_a_pruned_model_runs_in_half_precision(case: Case) -> None:
    model = copy.deepcopy(case.cut).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = case.cut(case.images)
    with torch.no_grad():
        low = model(case.images.bfloat16())

    assert low.dtype == torch.bfloat16
    same(mixed.float(), case.logits(), 0.1)
    same(low.float(), case.logits(), 0.2)


def test_a_double_precision_model_stays_one(case: Case) -> None:
    dense = copy.deepcopy(case.dense).double()
    graph = trace(dense, case.images.double())
    cut = prune(dense, graph, case.keep)

    assert {p.dtype for p in cut.parameters()} == {torch.float64}
    with torch.no_grad():
        same(cut(case.images.double()).float(), case.logits(), 1e-4)


def test_batch_norms_fuse_into_the_convolutions_of_a_pruned_model() -> None:
    dense, images = randomised(NETS["Chain"]()), image()
    graph = trace(dense, images)
    cut = prune(dense, graph, half(graph))
    for block in (cut.first, cut.second):
        block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()

    with torch.no_grad():
        same(cut(images), prune(dense, graph, half(graph))(images))


# ---- again -----------------------------------------------------------------------------------------------------------


def test_the_graph_of_a_pruned_model_is_what_the_keep_left(case: Case) -> None:
    again = trace(case.cut, case.images)
    left = case.keep.widths(case.graph)

    assert sorted(left.values()) == sorted(group.size for group in again.prunable)
    assert sum(left.values()) < sum(group.size for group in case.graph.prunable)


def test_a_pruned_model_is_pruned_again(case: Case) -> None:
    again = trace(case.cut, case.images)
    keep = half(again, seed=7)
    twice = prune(case.cut, again, keep)

    assert cost(again, keep).params == sum(p.numel() for p in twice.parameters())
    assert cost(again, keep).flops < cost(again, Keep.all()).flops < cost(case.graph, Keep.all()).flops
    assert all(shapes(other) == shapes(m) for m in twice.modules() if (other := twin(m)) is not None)
    assert case.logits(twice).isfinite().all()
