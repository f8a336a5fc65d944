"""Functions of tensors on a GPU, captured once as a CUDA graph and replayed from then on.

Layer by layer a small network mostly waits for its kernels to be launched: of ResNet-20 with distillation an H100 made
7,600 images a second so, and 49,100 where a sketch of the step was one graph. This code has not been timed there yet:
`analysis/benchmarks/gpu.py` is to do that.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from autoprune.errors import AutopruneError, first_line

#: Calls before the capture: libraries allocate and choose their kernels in them, the optimiser makes its state.
BEFORE_CAPTURE = 3


class CaptureError(AutopruneError):
    """What a function does cannot be held by a graph, with the reason."""


def capture(function: Callable[[], Any], device: str, put_back: Callable[[], None]) -> tuple[Callable[[], None], Any]:
    """What replays all that `function` does on the device, and its outputs, which every replay writes anew.

    A function that waits for the device is found in the calls before the capture: a capture that breaks leaves the
    allocator and the random generators of the process in a state that nothing mends.

    Args:
        function: reads and writes the same memory at every call.
        put_back: undoes what the calls before the capture have changed; the capture itself changes nothing.

    Raises:
        CaptureError: the function waits for the device, draws random numbers elsewhere, or fails in the capture.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            for _ in range(BEFORE_CAPTURE - 1):
                function()
            with _waiting_refused(), _draws_elsewhere_refused():
                function()
    finally:
        torch.cuda.current_stream(device).wait_stream(stream)
        put_back()
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads of the process may allocate meanwhile: with `global`, the default, that would break the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function()
    except Exception as error:  # torch's own, and whatever a model raises when it meets the capture
        raise CaptureError(f"cannot be captured: {first_line(error, 160)}") from error
    return graph.replay, outputs


@contextlib.contextmanager
def _waiting_refused() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is new
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        raise CaptureError(f"waits for the device: {first_line(error, 160)}") from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextlib.contextmanager
def _draws_elsewhere_refused() -> Iterator[None]:
    """A graph repeats what was drawn on the CPU while it was captured; what is drawn on the device is drawn anew."""

    def drawn() -> tuple[object, ...]:
        legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - what models draw from, if at all
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(legacy)

    before = drawn()
    yield
    if drawn() != before:
        raise CaptureError("draws random numbers on the CPU")


class Replayed:
    """A function of tensors whose graph is captured with its first inputs; later ones are copied to where these lie.

    Args:
        function: of tensors in any structure; what else is in them must be equal at every call.
        inputs: of a call, on `device`.
        put_back: see `capture`.

    Raises:
        CaptureError: see `capture`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        device: str,
        put_back: Callable[[], None] = lambda: None,
    ) -> None:
        self._inputs = tree_map_only(Tensor, Tensor.clone, inputs)
        self._replay, self._outputs = capture(lambda: function(*self._inputs), device, put_back)

    def takes(self, inputs: tuple[Any, ...]) -> bool:
        """Whether these inputs are as those that it was captured with: in structure, shape and type."""
        return _kind_of(inputs) == _kind_of(self._inputs)

    def __call__(self, *inputs: Any) -> Any:
        """The function's outputs; they are overwritten by the next call."""
        for inside, given in zip(_tensors_in(self._inputs), _tensors_in(inputs), strict=True):
            inside.copy_(given, non_blocking=True)
        self._replay()
        return self._outputs


def _tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, Tensor)]


def _kind_of(values: Any) -> tuple[Any, ...]:
    leaves, structure = tree_flatten(values)
    kinds = [(leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return structure, kinds
