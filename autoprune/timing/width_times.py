"""Measures what layers take by their width where a model will run: the tables that `round_to: auto` goes by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from autoprune.engine.allocation.width_times import WidthCurve
from autoprune.study.constraints import Latency
from autoprune.timing.passes import Pass, build_pass
from autoprune.training.runtime import Runtime

#: Every block of a kernel that is known has a multiple of 4 channels, and wide ones of 8.
WIDTHS = (*range(4, 32, 4), *range(32, 64, 8), *range(64, 193, 16))
#: Kind of layer, side of its output, side of its kernel.
LAYERS = (
    *(("spatial", side, 3) for side in (56, 28, 14, 7)),
    *(("pointwise", side, 1) for side in (56, 28, 14, 7)),
    *(("depthwise", side, 3) for side in (56, 28, 14)),
)
#: Layers in a row, each with its norm and activation: what surrounds them, such as another memory format, counts less.
ALIKE = 3
#: Rounds over all widths; the fastest pass of a width counts, so that a slow moment hits no width alone.
ROUNDS = 4
#: Passes of a width in a round, at least, and seconds.
LEAST, SECONDS = 8, 0.05


def measure_curves(
    latency: Latency,
    runtime: Runtime,
    *,
    widths: Sequence[int] = WIDTHS,
    layers: Iterable[tuple[str, int, int]] = LAYERS,
) -> Iterator[WidthCurve]:
    """A curve for each kind and size of layer, as it is measured.

    Args:
        latency: in which runtime, with how many images and threads.
        layers: kind, side of the output, side of the kernel.
    """
    for kind, side, kernel in layers:
        passes = {width: _pass_of(kind, width, side, kernel, latency, runtime) for width in widths}
        us = {str(width): 1e6 * seconds / ALIKE for width, seconds in _fastest(passes, runtime).items()}
        yield WidthCurve(kind=kind, positions=side * side, area=kernel * kernel, us=us)


def _pass_of(kind: str, width: int, side: int, kernel: int, latency: Latency, runtime: Runtime) -> Pass:
    groups = width if kind == "depthwise" else 1
    blocks = [
        (nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(width))
        for _ in range(ALIKE)
    ]
    network = nn.Sequential(*(layer for pair in blocks for layer in (*pair, nn.ReLU())))
    return build_pass(network, (torch.randn(latency.batch, width, side, side),), latency, runtime)


def _fastest(passes: dict[int, Pass], runtime: Runtime) -> dict[int, float]:
    """Seconds of the fastest pass of each width."""
    best = dict.fromkeys(passes, float("inf"))
    with runtime.limits():
        for round_number in range(ROUNDS):
            order = list(passes) if round_number % 2 else list(reversed(passes))
            for width in order:
                best[width] = min(best[width], *_some_passes(passes[width]))
    return best


def _some_passes(run: Pass) -> list[float]:
    run()  # caches fill
    found: list[float] = []
    while len(found) < LEAST or sum(found) < SECONDS:
        found.append(run())
    return found
