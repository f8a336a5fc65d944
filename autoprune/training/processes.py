"""Processes that train one model together: what each adds, what all agree on, and how they meet.

All of them run the same program: each sees a part of every batch, gradients are added up, and whatever is decided is
decided by the first and told to the others. So all hold the same weights and the same state at every step.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from autoprune.training.batch_structure import rows_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that train one model together, as one of them sees it; they add up gradients, and one writes files.

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
        """Whether this process decides, and writes what all of them know."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other one."""
        return self.count == 1

    def part_of(self, batch: Any) -> Any:
        """The images of a batch that are this process's: as many as of any other, or one less or more."""
        return batch if self.alone else rows_of(batch, self.rank, self.count)

    def add_up(self, total: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if not self.alone:
            distributed.all_reduce(total)

    @torch.no_grad()
    def add_up_all(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message; all must have the same ones."""
        if self.alone:
            return
        listed = list(tensors)
        whole = torch.cat([tensor.reshape(-1) for tensor in listed])  # in whatever layout each lies
        self.add_up(whole)
        for tensor, sums in zip(listed, whole.split([tensor.numel() for tensor in listed]), strict=True):
            tensor.copy_(sums.view(tensor.shape))

    def agree(self, value: T) -> T:
        """What the first process has for this value; of the others any will do."""
        if self.alone:
            return value
        told: list[Any] = [value]
        distributed.broadcast_object_list(told, 0, device=torch.device("cpu"))
        return cast("T", told[0])

    def gather(self, value: T) -> list[T]:
        """What all processes have for this value, in their order."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    @torch.no_grad()
    def spread(self, model: nn.Module) -> None:
        """Give the model in all processes the first one's parameters and buffers."""
        if not self.alone:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)


#: A trial in one process.
ALONE = Processes()


def meet(
    address: tuple[str, int],
    processes: Processes,
    *,
    seconds: float,
    listener: socket.socket | None = None,
    nccl: bool = False,
) -> None:
    """Set up `torch.distributed`'s default group; all processes have to call this.

    Args:
        address: host and port of the first process, which the others reach. What is sent is not encrypted; of
            127.0.0.1 nothing listens on a network.
        seconds: a process that waits longer for another one raises.
        listener: of the first process: a socket that listens at the address; it is this function's from here on.
        nccl: tensors on GPUs travel by NCCL, which wants a GPU of its own for every process; else by gloo.
    """
    host, port = address
    if host == "127.0.0.1":
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
    wait = timedelta(seconds=seconds)
    options: dict[str, Any] = {} if listener is None else {"master_listen_fd": listener.detach()}
    # torch 2.6's libuv takes no open socket, and would listen on every network
    store = distributed.TCPStore(
        host, port, processes.count, processes.leads, wait, wait_for_workers=False, use_libuv=False, **options
    )
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if nccl else "gloo",
        store=store,
        rank=processes.rank,
        world_size=processes.count,
        timeout=wait,
    )


def part() -> None:
    """The inverse of `meet`."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
