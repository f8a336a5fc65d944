"""Study actor: the small actor on the driver's machine that the workers talk to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autoprune.files import read_files, write_files
from autoprune.trial.cache import FolderStore


class Desk:
    """A small actor on the driver's machine that the workers talk to: start barrier, attempts, models, paused recipes.

    Files come and go as bytes, so driver and workers need no file system in common.
    """

    def __init__(self, models: str, states: str, shared: str, workers: int) -> None:
        self.models, self.states, self.shared = Path(models), Path(states), FolderStore(Path(shared))
        self.workers = workers
        self.arrived = 0
        self.expired: set[int] = set()

    def arrive(self) -> None:
        """A worker is up."""
        self.arrived += 1

    def complete(self) -> bool:
        """Whether all workers are up."""
        return self.arrived >= self.workers

    def arrivals(self) -> int:
        """How many workers ever came up; more than there are slots means some had to be replaced."""
        return self.arrived

    def has_expired(self, number: int) -> bool:
        """Whether an earlier attempt at this recipe took too long."""
        return number in self.expired

    def expire(self, number: int) -> None:
        """An attempt at this recipe took too long; its worker is about to end itself."""
        self.expired.add(number)

    def store(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write a model into the study folder."""
        write_files(self.models, number, files)

    def pause(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write what a paused recipe goes on from into the study folder."""
        write_files(self.states, number, files)

    def paused(self, number: int) -> dict[str, bytes]:
        """What a paused recipe goes on from."""
        return read_files(self.states / str(number))

    def get(self, key: str) -> bytes | None:
        """What some worker found, see `store`."""
        return self.shared.get(key)

    def put(self, key: str, content: bytes) -> None:
        """A worker has found something that others will need."""
        self.shared.put(key, content)


class DeskStore:
    """The study's store, from a worker."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk

    def get(self, key: str) -> bytes | None:
        """What was put under the key, by whichever worker."""
        found: bytes | None = ray.get(self.desk.get.remote(key))
        return found

    def put(self, key: str, content: bytes) -> None:
        """Keep it for the others."""
        ray.get(self.desk.put.remote(key, content))


def _open_desk(models: Path, states: Path, shared: Path, workers: int) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here)
    return desk.remote(str(models.resolve()), str(states.resolve()), str(shared.resolve()), workers)
