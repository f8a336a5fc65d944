"""Masks that are multiplied in, and networks to put them in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nets import image
from regularisers import cross_entropy, images, predict
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context


def traced_as(net: nn.Module, grouped: str) -> Context:
    """The context of a network with a graph of this way."""
    return Context(net, trace(net, image(), grouped=grouped), images, cross_entropy, predict, 0)


@contextlib.contextmanager
def multiplied(net: nn.Module, inputs: dict[str, Tensor]) -> Iterator[None]:
    """Within it the inputs of these layers are multiplied by numbers of shape (images, channels)."""

    def multiply(layer: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        mask = inputs[names[layer]]
        ones = [1] * (args[0].dim() - 2)
        shape = (len(mask), *ones, mask.shape[1]) if isinstance(layer, nn.Linear) else (*mask.shape, *ones)
        return (args[0] * mask.reshape(shape),)

    names = {net.get_submodule(name): name for name in inputs}
    handles = [layer.register_forward_pre_hook(multiply) for layer in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Tokens(nn.Module):
    """Tokens that a linear layer widens and another one narrows."""

    def __init__(self, hidden: int = 11) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Conv2d(3, 7, 3, stride=3), nn.Linear(7, hidden), nn.Linear(hidden, 7)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


def count_hooks(net: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules())
