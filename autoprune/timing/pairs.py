"""How long a forward pass takes, measured: a pruned model and the dense one in turns, where they will run.

Milliseconds hold for one device and for what else it does meanwhile: trials on one machine share its cores, memory
bandwidth or GPU, so their milliseconds are larger than those of the model alone. The ratio to the dense model is the
better number to search by: both are timed in the same process and in the same moments, so that a slow moment, or a
node of another kind, hits both. In a block of passes it is that of the fastest ones, as other processes only ever add
time: a ResNet-20 at batch 1, timed twelve times on two cores with eight busy processes, had ratios of the fastest of 40
passes that deviated by 0.012, medians of the 40 ratios by 0.16, ratios of the medians by 0.44.

Blocks are repeated until the median of their ratios is known well enough, or the time is over: then the interval that
comes with the ratio is wide, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn

from autoprune.recipe import stable_hash
from autoprune.study.constraints import Latency
from autoprune.timing.device_lock import alone_on
from autoprune.timing.passes import Pass, build_pass
from autoprune.training.batch_structure import repeated
from autoprune.training.runtime import Runtime

#: Passes of each model that are not counted: caches fill, and cuDNN looks for its fastest kernels.
WARM_UP = 3
#: Passes of each model in a block, whose fastest are compared. They run in a row: where models have threads of their
#: own, as in onnxruntime, those of one that has just run go on spinning, and slow the other's next pass.
PASSES = 7
#: So many blocks are timed at least: of six, the lowest and the highest ratio enclose the median in 97 of 100 cases.
LEAST = 6
MOST = 60
#: Wanted: an interval of this share of the ratio; it is given up after so many seconds.
NARROW, SECONDS = 0.03, 2.0
#: The interval encloses the median with this probability.
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a model takes.

    Fields:
        ms: median of its milliseconds per forward pass.
        ratio: relative to the dense model: the median over blocks of passes of what the fastest took.
        low, high: the interval of that ratio, `CONFIDENCE` of it.
    """

    ms: float
    ratio: float
    low: float
    high: float


#: What a process has that leaves the timing to another one.
NOT_TIMED = Timing(ms=0.0, ratio=0.0, low=0.0, high=0.0)


def compare(own: Pass, dense: Pass, *, seconds: float = SECONDS, least: int = LEAST) -> Timing:
    """Time two models in turns.

    Args:
        seconds: of passes after which it is given up to narrow the interval.
        least: blocks that are timed at least.
    """
    for _ in range(WARM_UP):
        own(), dense()
    times: list[float] = []
    ratios: list[float] = []
    spent = 0.0
    while len(ratios) < least or (len(ratios) < MOST and spent < seconds and not _is_narrow(ratios)):
        mine, other = _block(own, dense, dense_first=len(ratios) % 2 == 1)
        times += mine
        ratios.append(min(mine) / min(other))
        spent += sum(mine) + sum(other)
    low, high = interval_of_median(ratios)
    return Timing(ms=1000 * median(times), ratio=median(ratios), low=low, high=high)


def _block(own: Pass, dense: Pass, *, dense_first: bool) -> tuple[list[float], list[float]]:
    """Seconds of some passes of each; who comes second finds another machine than who comes first."""
    if dense_first:
        other = [dense() for _ in range(PASSES)]
        return [own() for _ in range(PASSES)], other
    mine = [own() for _ in range(PASSES)]
    return mine, [dense() for _ in range(PASSES)]


def _is_narrow(ratios: Sequence[float]) -> bool:
    low, high = interval_of_median(ratios)
    return high - low <= NARROW * median(ratios)


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of values, equally far from both ends, that encloses the median with `CONFIDENCE`.

    Each of n values lies below the median with probability 1/2, so the number of those that do is binomial, whatever
    the values' distribution. Where even the lowest and the highest enclose it less often, they are what is returned.
    """
    ordered, count = sorted(values), len(values)
    outside, place = 0.0, -1
    while place + 1 < count / 2:
        outside += 2 * math.comb(count, place + 1) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        place += 1
    place = max(place, 0)
    return ordered[place], ordered[count - 1 - place]


class Timer:
    """Times pruned models against one dense model, one at a time on a device; models of the same widths once.

    Args:
        dense: is copied once something is timed.
        example: the inputs of a forward pass on one image; see `batch_structure.repeated`.
        runtime: see `passes.build_pass`.
    """

    def __init__(self, dense: Callable[[], nn.Module], example: tuple[Any, ...], runtime: Runtime) -> None:
        self.dense, self.example, self.runtime = dense, example, runtime
        self._dense_passes: dict[Latency, Pass] = {}
        self._known: dict[str, Timing] = {}

    def time(self, model: nn.Module, latency: Latency) -> Timing:
        """The timing of a pruned version of the dense model.

        Raises:
            InputError, ExportError: see `passes.build_pass`.
        """
        widths = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        key = stable_hash([vars(latency), widths])
        if key not in self._known:
            self._known[key] = self._compare(model, latency)
        return self._known[key]

    def roughly(self, model: nn.Module, latency: Latency) -> float:
        """The ratio of one model among many, which a prediction is fitted to: half as long as another timing."""
        return self._compare(model, latency, seconds=0.0, least=LEAST // 2).ratio

    def _compare(self, model: nn.Module, latency: Latency, **effort: Any) -> Timing:
        inputs = repeated(self.example, latency.batch)
        if latency not in self._dense_passes:
            self._dense_passes[latency] = build_pass(self.dense(), inputs, latency, self.runtime)
        own = build_pass(model, inputs, latency, self.runtime)
        asked = replace(self.runtime, threads=latency.threads or self.runtime.threads)
        with torch.inference_mode(), asked.limits(), alone_on(self.runtime.device):
            return compare(own, self._dense_passes[latency], **effort)
