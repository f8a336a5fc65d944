"""Models by name: the networks of the pruning papers for small images, and everything torchvision and timm have.

No forward pass knows a channel number, so that a pruned model runs the same code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.errors import AutopruneError, ModelError, one_of


def _square_conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)


def _conv_bn_relu(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [_square_conv(c_in, c_out, kernel, stride, groups), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


class PadShortcut(nn.Module):
    """Option A of He et al. 2016 (section 4.2): every `stride`-th pixel, new channels zero, half of them on each side.

    The zeros are buffers and not counted padding: a tensor can be cut together with the channels it lies beside.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        added = c_out - c_in
        self.register_buffer("front", torch.zeros(1, added // 2, 1, 1), persistent=False)
        self.register_buffer("back", torch.zeros(1, added - added // 2, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, ceil(H / stride), ceil(W / stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        sides = [side.to(x.dtype).expand(x.shape[0], -1, x.shape[2], x.shape[3]) for side in (self.front, self.back)]
        return torch.cat([sides[0], x, sides[1]], 1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: identity, zero-padded (option A) or a 1x1 convolution (option B)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, option: str = "A") -> None:
        super().__init__()
        self.conv1, self.bn1 = _square_conv(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = _square_conv(c_out, c_out), nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            projection = nn.Sequential(_square_conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))
            self.shortcut = PadShortcut(c_in, c_out, stride) if option == "A" else projection

    def forward(self, x: Tensor) -> Tensor:
        """relu(residual(x) + shortcut(x))."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Residual network for small images: 3x3 stem, one stage per width (the first at full resolution), mean, linear."""

    def __init__(
        self, shape: Sequence[int], classes: int, *, blocks: Sequence[int], widths: Sequence[int], option: str
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _square_conv(shape[0], widths[0]), nn.BatchNorm2d(widths[0])
        c_in = widths[0]
        for i, (count, c_out) in enumerate(zip(blocks, widths, strict=True), 1):
            first = BasicBlock(c_in, c_out, 1 if i == 1 else 2, option=option)
            rest = [BasicBlock(c_out, c_out, option=option) for _ in range(count - 1)]
            setattr(self, f"layer{i}", nn.Sequential(first, *rest))
            c_in = c_out
        self.stages = len(widths)
        self.linear = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.linear(x.mean((2, 3)))


class Features(nn.Module):
    """A chain of layers, mean over the image, one linear layer."""

    def __init__(self, layers: Sequence[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return self.classifier(self.features(x).mean((2, 3)))


_VGG = {
    13: (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    19: (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0),
}


def vgg_bn(shape: Sequence[int], classes: int, *, depth: int, width: float = 1.0) -> nn.Module:
    """VGG with batch norm and one linear layer, as pruning papers use it on CIFAR (0 in the table = max pooling).

    Args:
        width: channels of every layer over those of the paper.
    """
    if not 0 < width <= 8:
        raise ModelError(f"width {width!r}", where=f"vgg{depth}_bn", allowed="above 0, at most 8")
    layers: list[nn.Module] = []
    c_in = shape[0]
    for full in _VGG[depth]:
        channels = max(1, round(width * full))
        layers += _conv_bn_relu(c_in, channels) if full else [nn.MaxPool2d(2)]
        c_in = channels if full else c_in
    return Features(layers, c_in, classes)


def mobilenet_v1(shape: Sequence[int], classes: int) -> nn.Module:
    """MobileNet (Howard et al. 2017, table 1) with a stem of stride 1 for 32x32 images."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    layers, c_in = _conv_bn_relu(shape[0], 32), 32
    for width, stride in plan:
        layers += _conv_bn_relu(c_in, c_in, 3, stride, c_in) + _conv_bn_relu(c_in, width, 1)
        c_in = width
    return Features(layers, c_in, classes)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; with a shortcut where the shape stays (Sandler et al. 2018, table 1)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        expand = _conv_bn_relu(c_in, hidden, 1) if expansion > 1 else []
        project = [_square_conv(hidden, c_out, 1), nn.BatchNorm2d(c_out)]
        self.body = nn.Sequential(*expand, *_conv_bn_relu(hidden, hidden, 3, stride, hidden), *project)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """body(x), plus x where the shape stays."""
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2(shape: Sequence[int], classes: int) -> nn.Module:
    """MobileNet-V2 (Sandler et al. 2018, table 2) with strides of 1 in the stem and the second stage for 32x32."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    layers, c_in = _conv_bn_relu(shape[0], 32), 32
    for expansion, width, count, stride in plan:
        for i in range(count):
            layers.append(InvertedResidual(c_in, width, stride if i == 0 else 1, expansion))
            c_in = width
    return Features([*layers, *_conv_bn_relu(c_in, 1280, 1)], 1280, classes)


class LeNet5(nn.Module):
    """LeNet-5 as in Caffe's example (20-50-500, no ReLU after the convolutions); 431,080 parameters for 1x28x28."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        height, width = (((side - 4) // 2 - 4) // 2 for side in shape[1:])
        if min(height, width) < 1:
            raise ModelError(f"images of {shape[1]}x{shape[2]} are too small", where="lenet5", allowed="16x16 and more")
        self.conv1, self.conv2 = nn.Conv2d(shape[0], 20, 5), nn.Conv2d(20, 50, 5)
        self.ip1, self.ip2 = nn.Linear(50 * height * width, 500), nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.ip2(F.relu(self.ip1(x.flatten(1))))


def digits_net(shape: Sequence[int], classes: int) -> nn.Module:
    """Small network for 8x8 digits with all that couples channels: plain, residual and depthwise convolutions."""
    layers = [
        *_conv_bn_relu(shape[0], 24),
        BasicBlock(24, 24),
        BasicBlock(24, 48, 2, option="B"),
        *_conv_bn_relu(48, 48, groups=48),
        *_conv_bn_relu(48, 96, 1),
        *_conv_bn_relu(96, 96),
    ]
    return Features(layers, 96, classes)


def resnet_cifar(shape: Sequence[int], classes: int, *, depth: int, widths: Sequence[int] = (16, 32, 64)) -> nn.Module:
    """ResNet of depth 6n + 2 with option-A shortcuts (He et al. 2016, section 4.2)."""
    if len(widths) != 3 or not 0 < widths[0] <= widths[1] <= widths[2]:
        raise ModelError(f"widths {list(widths)!r}", where=f"resnet{depth}", allowed="three widths that do not fall")
    return ResNet(shape, classes, blocks=[(depth - 2) // 6] * 3, widths=widths, option="A")


def resnet_small(shape: Sequence[int], classes: int, *, blocks: Sequence[int]) -> nn.Module:
    """ImageNet's ResNet-18/34 with a 3x3 stem and no pooling, for 32x32 to 64x64 images; 1x1 shortcuts (option B)."""
    return ResNet(shape, classes, blocks=blocks, widths=(64, 128, 256, 512), option="B")


ZOO: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(resnet_cifar, depth=depth) for depth in (20, 32, 56, 110)},
    **{f"vgg{depth}_bn": partial(vgg_bn, depth=depth) for depth in _VGG},
    "resnet18_small": partial(resnet_small, blocks=(2, 2, 2, 2)),
    "resnet34_small": partial(resnet_small, blocks=(3, 4, 6, 3)),
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "lenet5": LeNet5,
    "digits_net": digits_net,
}


def names() -> list[str]:
    """The names of our own models; torchvision's and timm's come on top of them."""
    return sorted(ZOO)


def build(name: str, shape: Sequence[int], classes: int, arguments: Mapping[str, Any], where: str) -> nn.Module:
    """The model `name` (one of `names()`, `torchvision/NAME`, `timm/NAME`, or such a NAME alone).

    Args:
        shape: (C, H, W) of an input.
        arguments: passed on to the model's constructor.

    Raises:
        ModelError: there is no such model, or its constructor refuses the arguments.
    """
    library, short = find(name, where)
    try:
        return _LIBRARIES[library](short, shape, classes, arguments)
    except AutopruneError:
        raise
    except Exception as error:  # any constructor of any library; the reason is the user's to read
        raise ModelError(f"{name} cannot be built: {error}", where=where) from error


def find(name: str, where: str) -> tuple[str, str]:
    """Which library has the model, and its name there: ours first, then torchvision's, then timm's.

    Raises:
        ModelError: none has it.
    """
    if name in ZOO:
        return "autoprune", name
    library, _, short = name.rpartition("/")
    has = {"torchvision": _in_torchvision, "timm": _in_timm}
    found = [key for key, known in has.items() if library in ("", key) and known(short)]
    if found:
        return found[0], short
    hint = "" if importlib.util.find_spec("timm") else " (timm is not installed)"
    raise ModelError(
        f"unknown model {name!r}", where=where, allowed=f"{one_of(ZOO)}, torchvision/NAME, timm/NAME{hint}, factory"
    )


def _in_torchvision(name: str) -> bool:
    from torchvision import models

    return name in models.list_models(models)


def _in_timm(name: str) -> bool:
    if not importlib.util.find_spec("timm"):  # an optional extra
        return False
    import timm

    return timm.is_model(name)


def _build_ours(name: str, shape: Sequence[int], classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    return ZOO[name](shape, classes, **arguments)


def _build_torchvision(name: str, shape: Sequence[int], classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    if shape[0] != 3:
        raise ModelError(f"torchvision/{name} takes 3 channels, the data have {shape[0]}", allowed="timm/NAME, factory")
    return models.get_model(name, **{"num_classes": classes, **arguments})


def _build_timm(name: str, shape: Sequence[int], classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, **{"num_classes": classes, "in_chans": shape[0], **arguments})


_LIBRARIES = {"autoprune": _build_ours, "torchvision": _build_torchvision, "timm": _build_timm}
