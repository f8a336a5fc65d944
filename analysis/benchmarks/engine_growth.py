"""How time and memory of `trace` grow with a network's layers and channels.

    python -m autoprune.analysis.benchmarks.engine_growth [--rounds N]

DenseNet-121/169/201/264, where every layer reads all before it, and bottleneck ResNets of three depths and four widths.
The work is given in three measures: layers (convolutions and linear layers), channels (inputs and outputs of all layers
added up, which is what their weights have along the first two dimensions), and labels (the same for all tensors, norms
included). An exponent is the slope of the straight line through the logarithms: 1 is linear, 2 quadratic. Memory is the
peak that `tracemalloc` sees while tracing, numpy's arrays included; tensors on the meta device have none.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models import DenseNet, ResNet
from torchvision.models.resnet import Bottleneck

from autoprune.analysis.benchmarks.markdown import table_head, table_row
from autoprune.engine.tracing.trace import trace

DENSE_BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
RES_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)


def densenet(depth: int) -> nn.Module:
    """DenseNet of that depth, growth 32; 264 as its paper has it, which torchvision leaves out."""
    return DenseNet(32, DENSE_BLOCKS[depth], 64)


def wide_resnet(depth: int, width: int) -> nn.Module:
    """Bottleneck ResNet of that depth whose 3x3 convolutions have `width` / 64 times as many channels."""
    return ResNet(Bottleneck, list(RES_BLOCKS[depth]), width_per_group=width)


FAMILIES: Mapping[str, Mapping[str, Callable[[], nn.Module]]] = {
    "DenseNet, deeper": {f"DenseNet-{depth}": lambda d=depth: densenet(d) for depth in DENSE_BLOCKS},
    "wide ResNet, deeper": {f"ResNet-{depth}, width 128": lambda d=depth: wide_resnet(d, 128) for depth in RES_BLOCKS},
    "wide ResNet, wider": {f"ResNet-50, width {width}": lambda w=width: wide_resnet(50, w) for width in WIDTHS},
}


@dataclass(frozen=True)
class Size:
    """One network: its measures, and the time and memory of tracing it."""

    family: str
    model: str
    layers: int
    channels: int
    labels: int
    seconds: float
    bytes: int


def measure(family: str, name: str, rounds: int) -> Size:
    """Median processor time, peak memory and measures of one network; it has no weights, only shapes."""
    with torch.device("meta"):
        model = FAMILIES[family][name]().eval()
    image = torch.empty(1, 3, 224, 224, device="meta")
    trace(model, image)
    seconds = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        trace(model, image)
        seconds.append(time.process_time() - began)
    weights = [module.weight.shape for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    labels = sum(sum(tensor.shape[:2]) for tensor in (*model.parameters(), *model.buffers()))
    channels = sum(shape[0] + shape[1] for shape in weights)
    return Size(family, name, len(weights), channels, labels, statistics.median(seconds), peak(model, image))


def peak(model: nn.Module, image: torch.Tensor) -> int:
    """Bytes that a trace holds at most."""
    gc.collect()
    tracemalloc.start()
    try:
        trace(model, image)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure_all(rounds: int = 5) -> list[Size]:
    """Every network of every family."""
    return [measure(family, name, rounds) for family, models in FAMILIES.items() for name in models]


def exponent(sizes: Sequence[Size], work: str, cost: str) -> float:
    """p in cost = c * work ** p, least squares in the logarithms."""
    x, y = (np.log([getattr(size, name) for size in sizes]) for name in (work, cost))
    return float(np.polyfit(x, y, 1)[0])


def table(sizes: Sequence[Size]) -> str:
    """Two tables in Markdown: the networks, and the exponents of each family."""
    networks = [
        table_row([s.model, *(f"{n:,.0f}" for n in (s.layers, s.channels, s.labels, s.seconds * 1e3, s.bytes / 2**20))])
        for s in sizes
    ]
    exponents = [_exponents_row(family, [s for s in sizes if s.family == family]) for family in FAMILIES]
    return "\n".join(
        [
            *table_head(["traced", "layers", "channels", "labels", "ms", "peak, MiB"]),
            *networks,
            "",
            *table_head(
                [
                    *("exponent of", "time by layers", "by channels", "by labels"),
                    *("memory by layers", "by channels", "by labels"),
                ]
            ),
            *exponents,
        ]
    )


def _exponents_row(family: str, sizes: Sequence[Size]) -> str:
    works = [work for work in ("layers", "channels", "labels") if len({getattr(s, work) for s in sizes}) > 1]
    cells = [
        f"{exponent(sizes, work, cost):.2f}" if work in works else ""
        for cost in ("seconds", "bytes")
        for work in ("layers", "channels", "labels")
    ]
    return table_row([family, *cells])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, 1 thread\n")
    print(table(measure_all(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
