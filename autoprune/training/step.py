"""One step of the optimiser, in three parts: the gradients, the optimiser's own step, and the moving average.

A regulariser acts between them. On a GPU each part is captured once as a graph and replayed from then on, which is
`CapturedStep`; it does what `Step` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.training.averaging import MovingAverage
from autoprune.training.captured import Replayed
from autoprune.training.processes import Processes
from autoprune.training.protocols import Batch

#: The batches of a step's passes, and what the teacher says to each of them; nothing without a teacher.
Parts = tuple[Batch, ...]
Taught = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A step, layer by layer.

    Fields:
        loss: a pass's share of the step's loss, of its batch and what the teacher says to it.
        clip: the largest norm of all gradients together; 0 = any.
        processes: which make the step together; each has its own part of the batches.
    """

    model: nn.Module
    loss: Callable[[Batch, Any], Tensor]
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    clip: float
    processes: Processes

    def gradients(self, parts: Parts, taught: Taught) -> Tensor:
        """The step's loss, float32 scalar; every parameter has its gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(part, said) for part, said in zip(parts, taught, strict=True)]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self.processes.add_up_all([loss, *(p.grad for p in self.model.parameters() if p.grad is not None)])
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        return loss

    def _backward(self, part: Batch, said: Any) -> Tensor:
        loss = self.loss(part, said)
        loss.backward()
        return loss.detach()

    def optimise(self) -> None:
        """The optimiser's own step, at the learning rate that was set."""
        self.optimizer.step()

    def follow(self) -> None:
        """Take the new weights into the moving average."""
        if self.average is not None:
            self.average.update(self.model)

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step; in place where a graph reads it."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


class CapturedStep:
    """The same step as graphs, for as long as it `takes` what comes.

    Nothing has changed when it has been made: weights, statistics, optimiser, average and random streams are as before.

    Args:
        step: of one process, on a GPU.
        parts, taught: of a first step.

    Raises:
        CaptureError: the step waits for the device or draws random numbers on the CPU.
    """

    def __init__(self, step: Step, parts: Parts, taught: Taught, device: str) -> None:
        self.step = step
        for group in step.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)  # a number would be the graph's for ever
            if "capturable" in group:
                group["capturable"] = True
        put_back = Snapshot(step, device).put_back
        self._gradients = Replayed(step.gradients, (parts, taught), device, put_back)
        self._optimise = Replayed(step.optimise, (), device, put_back)
        self._follow = Replayed(step.follow, (), device, put_back) if step.average is not None else None
        self._memory = [(parameter, parameter.grad) for parameter in step.model.parameters()]
        self._places = [parameter.data_ptr() for parameter, _ in self._memory]

    def takes(self, parts: Parts, taught: Taught) -> bool:
        """Whether the graphs are those of such a step: its batches have the same shapes, weights lie where they lay."""
        return self._gradients.takes((parts, taught)) and self._places == [p.data_ptr() for p, _ in self._memory]

    def gradients(self, parts: Parts, taught: Taught) -> Tensor:
        """See `Step.gradients`."""
        loss: Tensor = self._gradients(parts, taught)
        return loss.clone()

    def optimise(self) -> None:
        """See `Step.optimise`. A regulariser may have put new gradients in place of those that the graph reads."""
        for parameter, inside in self._memory:
            if inside is not None and parameter.grad is not inside:
                inside.copy_(torch.zeros_like(inside) if parameter.grad is None else parameter.grad)
                parameter.grad = inside
        self._optimise()

    def follow(self) -> None:
        """See `Step.follow`."""
        if self._follow is not None:
            self._follow()

    def set_rate(self, rate: float) -> None:
        """See `Step.set_rate`."""
        self.step.set_rate(rate)


class Snapshot:
    """What a step changes, as it is now, to be put back in place."""

    def __init__(self, step: Step, device: str) -> None:
        self.step, self.device = step, device
        self.before = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        self.random = torch.get_rng_state(), torch.cuda.get_rng_state(device)

    def put_back(self) -> None:
        """Give every tensor the values that it had; those that the optimiser has made since are its zeros."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(self.before[name]) if name in self.before else tensor.zero_()
        torch.set_rng_state(self.random[0])
        torch.cuda.set_rng_state(self.random[1], self.device)

    def _tensors(self) -> dict[tuple[str, ...], Tensor]:
        step = self.step
        found = {("model", name): tensor for name, tensor in step.model.named_parameters()}
        found |= {("model", name): tensor for name, tensor in step.model.named_buffers()}
        if step.average is not None:
            found |= {("average", name): tensor for name, tensor in step.average.tensors.items()}
        for number, parameter in enumerate(step.model.parameters()):
            state = step.optimizer.state.get(parameter, {})
            tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
            found |= {("optimizer", str(number), name): tensor for name, tensor in tensors.items()}
        return found
