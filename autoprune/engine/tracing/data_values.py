"""What a forward pass reads off its data: numbers, and shapes that depend on values: boxes that are counted and kept.

A detector cannot run on meta tensors alone. It runs once with data, and what it has read is played back in every later
pass: these run on meta tensors, and all take the same branches with the same boxes, whatever channels are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from autoprune.engine.operations import operation_name
from autoprune.engine.tracing.meta_kernels import meta_call

_NAMES = frozenset(["torchvision::nms", "nonzero", "masked_select", "_local_scalar_dense", "equal", "is_nonzero"])

_TAGS = frozenset([torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output])


@dataclass
class DataValues:
    """Results that depend on data, by operation and number of the call.

    Fields:
        kept: the results of the pass with data.
        complete: whether that pass has ended; until then results are kept, from then on they are played back.
    """

    kept: dict[tuple[str, int], Any] = field(default_factory=dict)
    complete: bool = False


class DataReader:
    """One pass that keeps what it reads off its data, or is told what another has read."""

    def __init__(self, values: DataValues) -> None:
        self.values = values
        self.counts: Counter[str] = Counter()

    def call(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """The arguments and the result of an operation; masks among indices become the numbers they pick."""
        name = operation_name(func)
        args = tuple(args)
        if name in ("index", "_unsafe_index", "index_put", "_index_put_impl"):
            device = args[0].device
            args = (args[0], [number for i in args[1] for number in self._as_numbers(i, device)], *args[2:])
            return args, meta_call(func, args, kwargs)
        if name not in _NAMES and not _TAGS & set(func.tags):
            return args, meta_call(func, args, kwargs)
        if not self.values.complete:
            return args, self._kept(name, meta_call(func, args, kwargs))
        device = next((arg.device for arg in args if isinstance(arg, Tensor)), torch.device("meta"))
        return args, self._played_back(name, device)

    def _as_numbers(self, index: Tensor | None, device: torch.device) -> Sequence[Tensor | None]:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            return [index]
        if self.values.complete:
            return list(self._played_back("mask", device))
        return list(self._kept("mask", index.nonzero().unbind(1)))

    def _kept(self, name: str, result: Any) -> Any:
        self.values.kept[name, self.counts[name]] = result
        self.counts[name] += 1
        return result

    def _played_back(self, name: str, device: torch.device) -> Any:
        result = self.values.kept[name, self.counts[name]]
        self.counts[name] += 1
        return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, result)
