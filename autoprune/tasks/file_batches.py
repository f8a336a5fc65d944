"""Batches of files that are decoded in processes of their own: which image is augmented how depends on seeds alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from autoprune.errors import DataError, first_line
from autoprune.training.processes import ALONE, Processes
from autoprune.training.seeds import random_stream

#: Processes that decode for one training, if nobody says how many.
MOST_PROCESSES = 16


class Decoder(Protocol):
    """Reads one image of a split and what belongs to it."""

    def name(self, index: int) -> str:
        """The file of an image, for error messages."""

    def decode(self, index: int, stream: torch.Generator | None) -> Any:
        """The image, augmented with what `stream` draws; None = as it is."""


def decoded_batches(
    decoder: Decoder,
    order: Tensor,
    batch_size: int,
    collate: Callable[[list[Any]], Any],
    *,
    workers: int | None,
    seed: int | None,
    start: int,
    device: str = "cpu",
    processes: Processes = ALONE,
) -> Iterator[Any]:
    """What `collate` makes of the images of `order`, batch by batch, on the CPU; arguments as of `Split.batches`.

    Args:
        workers: processes that decode, see `decoding_processes`.
        device: where batches will go; those for a GPU lie in memory that it reads while it computes.
        processes: of every batch this one decodes its part.

    Raises:
        DataError: an image cannot be read; it names the file.
    """
    from torch.utils.data import DataLoader

    chosen = order.tolist()[start * batch_size :]
    jobs = [(index, None if seed is None else (seed, start * batch_size + k)) for k, index in enumerate(chosen)]
    batches = [processes.part_of(jobs[low : low + batch_size]) for low in range(0, len(jobs), batch_size)]
    loader = DataLoader(
        _Decoded(decoder),
        batch_sampler=batches,
        num_workers=decoding_processes(workers, device),
        pin_memory=device != "cpu",
        collate_fn=_Collated(collate),  # type: ignore[arg-type]
        generator=torch.Generator(),  # of its own: else going through it would draw from the training's stream
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def decoding_processes(asked: int | None, device: str = "cpu") -> int:
    """How many processes decode files: at most as many as this one has CPUs, as more are slower, and torch warns.

    Args:
        asked: None = of the CPUs that torch computes on here half, and all but one beside a training on a GPU; at most
            `MOST_PROCESSES`. 0, this process itself, where that is one: a single process beside a training that has a
            CPU of its own is slower than none.
        device: where the training computes.
    """
    cpus = len(os.sched_getaffinity(0))
    if asked is not None:
        return min(asked, cpus)
    own = min(torch.get_num_threads(), cpus)  # of a trial its `cpus_per_trial`: others run beside it
    spare = own // 2 if device == "cpu" else own - 1
    return 0 if spare < 2 else min(MOST_PROCESSES, spare)


@dataclass(frozen=True)
class _Decoded:
    """A decoder as a map from (index, seeds of its augmentation or None) to the image, or why it cannot be read.

    A value and no exception: torch would hand on a traceback of the worker as the message.
    """

    decoder: Decoder

    def __getitem__(self, job: tuple[int, tuple[int, int] | None]) -> Any:
        index, seeds = job
        try:
            return self.decoder.decode(index, None if seeds is None else random_stream(*seeds))
        except DataError as error:
            return error
        except Exception as error:  # noqa: BLE001 - image libraries may raise anything on a torn file
            return DataError(f"cannot be read: {first_line(error)}", where=self.decoder.name(index))


@dataclass(frozen=True)
class _Collated:
    """A batch, or the first reason why there is none."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> Any:
        return next((item for item in items if isinstance(item, DataError)), None) or self.collate(items)
