"""Masks on what layers read of a unit: the groups that can be masked so, and squared gradients of the loss by masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph, Group, Ints
from autoprune.errors import InputError
from autoprune.methods.base.method import Context
from autoprune.methods.base.units import in_scope, units_of
from autoprune.training.batch_structure import images_in


def maskable_groups(context: Context, scope: str) -> tuple[tuple[Group, ...], dict[str, Tensor]]:
    """The groups that can be masked where they are read, and the unit of every input channel of their readers.

    Raises:
        InputError: there are none.
    """
    model, graph = context.model, context.graph
    readers = _units_of_readers(model, graph)
    masked, not_maskable = _units_by_maskability(context, readers)
    groups = tuple(
        g for g in in_scope(model, graph, scope) if masked[g.units].all() and not not_maskable[g.units].any()
    )
    if not groups:
        allowed = "a model with channels that only convolutions and linear layers read"
        raise InputError("no prunable channels can be masked where they are read", where="method", allowed=allowed)
    own, device = units_of(graph, groups), next(model.parameters()).device
    found = {name: own[units] for name, units in readers.items()}
    return groups, {
        name: torch.from_numpy(units).to(device) for name, units in found.items() if units.min() < graph.unit_count
    }


def _units_by_maskability(context: Context, readers: Mapping[str, Ints]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which units some reader could mask, and which units something reads that cannot mask them; tables of units."""
    model, graph = context.model, context.graph
    called = _called_layers(context, readers)
    masked, not_maskable = graph.per_unit(fill=False), graph.per_unit(fill=False)
    for name, units in readers.items():
        (masked if name in called else not_maskable)[units] = True
    for slot in graph.slots:  # keys of attention are `in` as well: they lie where others have inputs, but along filters
        read_as_input = slot.layer in called and slot.dim == _input_dim(model.get_submodule(slot.layer))
        if slot.role == "in" and not read_as_input:
            not_maskable[slot.units] = True
    return masked, not_maskable


def _units_of_readers(model: nn.Module, graph: ChannelGraph) -> dict[str, Ints]:
    """Convolutions and linear layers by name, with the unit of every input channel, or -1."""
    readers = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            units = _units_of_inputs(layer, graph, f"{name}.weight")
            if units is not None:
                readers[name] = units
    return readers


def _input_dim(layer: nn.Module) -> int:
    """Along which dimension of its weight a layer has its inputs."""
    return 0 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 1


def _units_of_inputs(layer: nn.Module, graph: ChannelGraph, weight: str) -> Ints | None:
    """The unit of every input channel; None if the inputs belong to no units.

    The weight of a grouped layer has the inputs of one group for all. A layer that loses whole groups, a depthwise one
    included, has no slot for its inputs: its filters belong to the units of the inputs.
    """
    channels = layer.in_channels if isinstance(layer, nn.modules.conv._ConvNd) else layer.in_features
    inputs, filters = graph.slot(weight, _input_dim(layer)), graph.slot(weight, 0)
    if inputs is not None and inputs.role == "in":
        return np.tile(inputs.units, channels // len(inputs.units))
    groups = getattr(layer, "groups", 1)
    if groups == 1 or filters is None or filters.role != "out":
        return None
    by_group = filters.units.reshape(groups, -1)
    owner = np.where((by_group == by_group[:, :1]).all(axis=1), by_group[:, 0], -1)
    return np.repeat(owner, channels // groups)


def _called_layers(context: Context, readers: Mapping[str, Ints]) -> set[str]:
    """The readers that are called as modules: some models use the weights of a layer without calling it."""
    model, called = context.model, set[str]()
    was_training = model.training

    def note_call(name: str, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args:  # `_observe_inputs` changes the first
            called.add(name)

    handles = [model.get_submodule(name).register_forward_pre_hook(partial(note_call, name)) for name in readers]
    try:
        with torch.no_grad():
            next(context.passes(1))(model.eval())
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return called


class MaskGradients:
    """Observes the passes of a model and gives sum over images n of (dL_n/dm_u / N)^2, L_n the loss of image n of N.

    The masks themselves are never made: dL_n/dm = sum over positions of x dL_n/dx at every input x of a reader, which
    the backward pass has at hand. That of the mean loss is dL_n / N, N all its images, in whatever processes they are.

    Args:
        readers: by name, the unit of every input channel, `count` for none.
        count: units of the graph.
    """

    def __init__(self, readers: Mapping[str, Tensor], count: int) -> None:
        self.readers, self.count = readers, count
        self.on, self.images = True, 0
        self.observed: list[tuple[Tensor, Tensor]] = []

    @contextlib.contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Within it passes that build a graph are observed while `on`."""
        handles = [model.register_forward_pre_hook(self._start_pass, with_kwargs=True)]
        for name, units in self.readers.items():
            layer = model.get_submodule(name)
            dim = -1 if isinstance(layer, nn.Linear) else 1
            handles.append(layer.register_forward_pre_hook(partial(self._observe_inputs, units, dim)))
        try:
            yield
        finally:
            self.observed.clear()
            for handle in handles:
                handle.remove()

    def _start_pass(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.images = images_in((*args, kwargs))
        self.observed.clear()

    def _observe_inputs(self, units: Tensor, dim: int, _layer: nn.Module, args: tuple[Any, ...]) -> Any:
        if not (self.on and torch.is_grad_enabled()):
            return None
        x = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        return (_GradientHook.apply(x, dim, lambda sums: self.observed.append((units, sums))), *args[1:])

    def take(self) -> Tensor:
        """The numbers of the last backward pass, a vector over units with one more entry at the end, float32."""
        assert self.observed, "the pass was not observed: it must run within `protocols.listening`"
        units = torch.cat([units for units, _ in self.observed])
        sums = torch.cat([self._sum_by_image(sums).t() for _, sums in self.observed])
        self.observed.clear()
        gradients = sums.new_zeros(self.count + 1, self.images).index_add_(0, units, sums)
        gradients[-1] = 0
        return gradients.square_().sum(1)

    def _sum_by_image(self, sums: Tensor) -> Tensor:
        """(rows, channels) -> (images, channels): a layer may see an image as several rows, one after the other."""
        return sums.float().reshape(self.images, -1, sums.shape[1]).sum(1)


class _GradientHook(torch.autograd.Function):
    """The identity; its backward pass hands sums over positions of x dL/dx, shape (rows, channels), to `give`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, give: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.dim, ctx.give = dim, give
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        positions = [d for d in range(1, x.dim()) if d != ctx.dim % x.dim()]
        product = x * grad
        # torch adds up bfloat16 in float32; asking for float32 sums takes as long again as the product itself
        ctx.give(product.sum(positions) if positions else product)
        return grad, None, None
