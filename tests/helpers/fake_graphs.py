"""CUDA graphs without a GPU: what stands in for torch.cuda, and graphs that call their function again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoprune.training.captured import BEFORE_CAPTURE


class Nothing:
    """A stream, or a context, that does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
    def wait_stream(self, _other: Any) -> None: ...


#: Of torch.cuda, what a capture needs; `CUDAGraph` and events are the test's own.
FAKES_OF_CUDA: dict[str, Any] = {
    "Stream": Nothing,
    "stream": Nothing,
    "graph": Nothing,
    "current_stream": Nothing,
    "get_sync_debug_mode": lambda: 0,
    "set_sync_debug_mode": lambda _mode: None,
    "get_rng_state": lambda _device: torch.zeros(1),
    "set_rng_state": lambda _state, _device: None,
}


def capture_on_cpu(
    function: Callable[[], Any], _device: str, put_back: Callable[[], None]
) -> tuple[Callable[[], None], Any]:
    """As `captured.capture`: a replay calls the function, and writes where its first outputs lie."""
    for _ in range(BEFORE_CAPTURE):
        function()
    put_back()
    outputs = function()
    put_back()  # a capture only records

    def replay() -> None:
        for inside, value in zip(tree_leaves(outputs), tree_leaves(function()), strict=True):
            if isinstance(inside, Tensor):
                inside.copy_(value)

    return replay, outputs
