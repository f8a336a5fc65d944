"""What the tests of methods that train share: small networks, contexts, stages, and steps without data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from nets import image
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune import methods
from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context, Method, Stage
from autoprune.recipe import Allocation, MethodChoice, Target, Training
from autoprune.training.protocols import Regulariser


def images(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images in batches of two."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(0, count, 2):
        yield torch.randn(2, 3, 9, 9, generator=generator), torch.randint(5, (2,), generator=generator)


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean loss of a batch of inputs and labels."""
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def predict(model: nn.Module, batch: tuple[Tensor, Any]) -> Tensor:
    """Logits of a batch of inputs and whatever belongs to them."""
    return model(batch[0])


def context(net: nn.Module) -> Context:
    """Of a network for 9 x 9 images and five classes."""
    return Context(net, trace(net, image()), images, cross_entropy, predict, 0)


def build(name: str, **params: Any) -> Any:
    """The method with these hyper-parameters."""
    return methods.build(MethodChoice(name=name, params=params))


def stage(method: Method, steps: int = 40, flops: float = 0.5, **training: Any) -> Stage:
    """Uniform allocation, so that every group loses the same share."""
    allocation = Allocation(name="uniform")
    return Stage(Target(flops=flops), allocation, method.stage_training(Training(**training)), steps)


def idle(net: nn.Module) -> None:
    """Gradients of zero, as if the loss were constant."""
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)


def drive(
    net: nn.Module, regulariser: Regulariser, steps: int, lr: float = 0.0, look: Callable[[int], None] | None = None
) -> None:
    """The steps of a stage under a constant loss, with plain SGD; `look` is called after each."""
    for step in range(steps):
        idle(net)
        regulariser.before_step(net, step, steps)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(lr * parameter.grad)
        regulariser.after_step(net, step, steps)
        if look is not None:
            look(step)


def resumed(make: Callable[[], tuple[nn.Module, Regulariser]], steps: int, at: int) -> bool:
    """Whether a stage that is interrupted after `at` steps ends with the same bits, weights and state."""
    torch.manual_seed(5)
    noise = [[torch.randn(()).item() for _ in range(200)] for _ in range(steps)]

    def go(net: nn.Module, regulariser: Regulariser, begin: int, end: int) -> None:
        for step in range(begin, end):
            for parameter, scale in zip(net.parameters(), noise[step], strict=False):
                parameter.grad = parameter.detach() * scale
            regulariser.before_step(net, step, steps)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.sub_(0.01 * parameter.grad)
            regulariser.after_step(net, step, steps)

    one, whole = make()
    go(one, whole, 0, steps)
    first, before = make()
    go(first, before, 0, at)
    weights, state = first.state_dict(), before.state_dict()
    second, after = make()
    second.load_state_dict(weights)
    after.load_state_dict(state)
    go(second, after, at, steps)
    same = all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in one.state_dict().items())
    return same and repr(whole.state_dict()) == repr(after.state_dict())


def norms(layer: nn.Module) -> np.ndarray:
    """Sum of |w| of each filter."""
    return layer.weight.detach().abs().flatten(1).sum(1).numpy()
