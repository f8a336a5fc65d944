"""Processes: with whom a trial runs. A trial has one process today; what several must agree on goes through here."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, distributed, nn


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that train one model together, as one of them sees it; they share gradients, and one writes files.

    Fields:
        rank: number of this process, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Those of `torch.distributed`'s default group where it was set up, else this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return ALONE
        return cls(rank=distributed.get_rank(), count=distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them know."""
        return self.rank == 0

    def add_up(self, total: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(total)

    def average_gradients(self, model: nn.Module) -> None:
        """Replace all gradients of a model by their mean over all processes; all must have the same ones."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        whole = nn.utils.parameters_to_vector(gradients)
        self.add_up(whole)
        nn.utils.vector_to_parameters(whole / self.count, gradients)


#: A trial in one process.
ALONE = Processes()
