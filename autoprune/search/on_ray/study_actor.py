"""Study actor: where the workers meet and leave files; it is a small Ray actor on the driver's machine.

Files come and go as bytes, so driver and workers need no file system in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autoprune.search.running.trial_folders import TrialFolders
from autoprune.study.folder import StudyFolder
from autoprune.trial.cache import FolderStore


class StudyActor:
    """What the workers of a search share: start barrier, attempts that timed out, models, paused trials, the cache.

    Args:
        study: folder of the study.
        models: folder for models.
        workers: how many there will be.
    """

    def __init__(self, study: str, models: str, workers: int) -> None:
        folder = StudyFolder(Path(study))
        self.models, self.states = TrialFolders(Path(models)), TrialFolders(folder.states)
        self.shared = FolderStore(folder.shared)
        self.workers, self.arrived = workers, 0
        self.timed_out: set[int] = set()

    def arrive(self) -> None:
        """Take note that one more worker is up."""
        self.arrived += 1

    def all_arrived(self) -> bool:
        """Whether all workers are up."""
        return self.arrived >= self.workers

    def has_timed_out(self, number: int) -> bool:
        """Whether an earlier attempt at this trial took too long."""
        return number in self.timed_out

    def time_out(self, number: int) -> None:
        """Take note that an attempt at this trial took too long; its worker is about to end itself."""
        self.timed_out.add(number)

    def store_model(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write a model into the study folder."""
        self.models.write(number, files)

    def load_model(self, number: int) -> dict[str, bytes]:
        """The model of a trial that another one goes on from."""
        return self.models.read(number)

    def store_state(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write what a paused trial goes on from into the study folder."""
        self.states.write(number, files)

    def load_state(self, number: int) -> dict[str, bytes]:
        """What a paused trial goes on from."""
        return self.states.read(number)

    def get(self, key: str) -> bytes | None:
        """The content under the key in the study's cache, if there is one."""
        return self.shared.get(key)

    def put(self, key: str, content: bytes) -> None:
        """Put a content that other workers will need into the study's cache."""
        self.shared.put(key, content)


class StudyActorStore:
    """The study's cache, from a worker."""

    def __init__(self, study_actor: Any) -> None:
        self.study_actor = study_actor

    def get(self, key: str) -> bytes | None:
        """The content that some worker has put under the key."""
        found: bytes | None = ray.get(self.study_actor.get.remote(key))
        return found

    def put(self, key: str, content: bytes) -> None:
        """Keep it for the others."""
        ray.get(self.study_actor.put.remote(key, content))


def start_study_actor(study: StudyFolder, models: Path, workers: int) -> Any:
    """Start the study actor on the node of this process; a handle to it, which workers can be sent."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(StudyActor).options(num_cpus=0, scheduling_strategy=here)
    return actor.remote(str(study.path.resolve()), str(models.resolve()), workers)
