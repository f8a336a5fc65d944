"""Study actor: where the workers meet and leave files; it is a small Ray actor on the driver's machine.

Files come and go as bytes, so driver and workers need no file system in common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autoprune.search.running.limits import PATIENCE_SECONDS, RETRY_SECONDS
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.trial_folders import TrialFolders
from autoprune.study.folder import StudyFolder
from autoprune.trial.cache import FolderStore

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher


class StudyActor:
    """What the workers of a search share: start barrier, attempts that timed out, models, paused trials, the cache.

    Args:
        study: folder of the study.
        models: folder for models.
        states: folder for what paused trials go on from.
        workers: how many there will be.
        clock: of the study, from a process of the same machine.
    """

    def __init__(self, study: str, models: str, states: str, workers: int, clock: StudyClock) -> None:
        self.folder, self.clock = StudyFolder(Path(study)), clock
        self.models, self.states = TrialFolders(Path(models)), TrialFolders(Path(states), sealed=True)
        self.shared = FolderStore(self.folder.shared)
        self.workers, self.arrived = workers, 0
        self.timed_out: set[int] = set()

    def now(self) -> float:
        """Seconds since the study began."""
        return self.clock.now()

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
        """Write a model into the study folder; raises `OSError` if it cannot be written now, as all of these do."""
        self.folder.check_there()
        self.models.write(number, files)

    def load_model(self, number: int) -> dict[str, bytes]:
        """The model of a trial that another one goes on from."""
        self.folder.check_there()
        return self.models.read(number)

    def store_state(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write what a paused trial goes on from into the study folder."""
        self.folder.check_there()
        self.states.write(number, files)

    def load_state(self, number: int) -> dict[str, bytes]:
        """What a paused trial goes on from; nothing if that is damaged."""
        self.folder.check_there()
        return self.states.read(number)

    def get(self, key: str) -> bytes | None:
        """The content under the key in the study's cache, if there is one and it can be read now."""
        try:
            return self.shared.get(key)
        except OSError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """Put a content that other workers will need into the study's cache; without room they find it themselves."""
        with suppress(OSError):
            self.folder.check_there()
            self.shared.put(key, content)


def ask_patiently(ask: Callable[[], Any]) -> Any:
    """What the study actor answers, once the study folder can be used and Ray's store has room for what travels.

    Args:
        ask: calls a method of the study actor.

    Raises:
        OSError, ObjectStoreFullError, OutOfDiskError: neither has come about for a long time.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ray.get(ask())
        except (OSError, ObjectStoreFullError, OutOfDiskError):
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_SECONDS)


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


def study_clock(study_actor: Any) -> StudyClock:
    """The study's clock for the machine of this process, whatever time of day that shows."""
    return StudyClock.at(ray.get(study_actor.now.remote()))


def start_study_actor(dispatcher: Dispatcher, workers: int) -> Any:
    """Start the study actor on the node of this process; a handle to it, which workers can be sent."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(StudyActor).options(num_cpus=0, scheduling_strategy=here)
    folders = (dispatcher.folder.path, dispatcher.models.path, dispatcher.states.path)
    return actor.remote(*(str(folder.resolve()) for folder in folders), workers, dispatcher.clock)
