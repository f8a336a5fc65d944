"""What the search leans on inside Ray and Tune, tried on the Ray that is installed, with our settings only.

Ray is not pinned to one minor version; a version that changes one of these fails here, in a test that names it.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray._private import ray_constants
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autoprune.search.on_ray.deaths import explain_death
from autoprune.search.on_ray.quiet import guarded_by_token, quiet_terminal, scratch_folder
from autoprune.search.on_ray.settings import _ENVIRONMENT, OBJECT_STORE_BYTES, QUIET_INIT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@dataclass
class Record:
    """What Tune did in a run of three trials, the second of which raises."""

    asked: list[str] = field(default_factory=list)  # what the searcher answered
    waiting: list[list[str]] = field(default_factory=list)  # states of the trials whenever the scheduler was asked
    steps: int = 0
    stops: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # trial -> why
    results: list[dict[str, Any]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    dashboard: str | None = None  # where Ray says that its dashboard is


class Worker(tune.Trainable):
    """Reports its process at once; number 1 raises."""

    def setup(self, config: dict[str, Any]) -> None:
        self.number, self.setups = config["number"], getattr(self, "setups", 0) + 1

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.number = new_config["number"]
        return True

    def step(self) -> dict[str, Any]:
        if self.number == 1:
            raise MemoryError("no room")
        return {"number": self.number, "process": os.getpid(), "folder": str(Path.cwd()), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""


class Asked(Searcher):
    """Number 0, nothing twice, 2 and then 1, and that is all."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record, self.answers = record, [{"number": 0}, None, None, {"number": 2}, {"number": 1}]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        answer = self.answers.pop(0) if self.answers else Searcher.FINISHED
        self.record.asked.append(answer if isinstance(answer, str) else "trial" if answer else "later")
        return answer

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error and result:
            self.record.results.append(result)


class Chooses(FIFOScheduler):
    """Takes the oldest waiting trial and remembers what it was shown."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        trials = list(tune_controller.get_trials())
        self.record.waiting.append([trial.status for trial in trials])
        return next((trial for trial in trials if trial.status == "PENDING"), None)


class Hears(tune.Callback):
    """Counts steps and takes down failures."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def on_step_end(self, **_: Any) -> None:
        self.record.steps += 1
        self.record.threads |= {thread.name for thread in threading.enumerate()}

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        self.record.failed[trial.trial_id] = explain_death(trial.error_file).reason


class Stops(tune.Stopper):
    """Counts how often it is asked."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, *_: Any) -> bool:
        return False

    def stop_all(self) -> bool:
        self.record.stops += 1
        return False


@pytest.fixture(scope="module")
def record() -> Record:
    """A run of Tune with one worker, set up as a search is."""
    found = Record()
    with quiet_terminal(), scratch_folder() as folder, guarded_by_token():
        context = ray.init(
            num_cpus=1, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, _temp_dir=str(folder / "ray"),
            **QUIET_INIT,
        )  # fmt: skip
        found.dashboard = context.dashboard_url
        try:
            run(found, folder)
        finally:
            ray.shutdown()
    return found


def run(record: Record, folder: Path) -> None:
    tune.Tuner(
        tune.with_resources(Worker, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=Asked(record),
            scheduler=Chooses(record),
            num_samples=-1,
            max_concurrent_trials=1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[Hears(record)],
            stop=Stops(record),
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def test_a_searcher_that_has_nothing_is_asked_again_until_it_says_that_it_has_finished(record: Record) -> None:
    assert record.asked[:5] == ["trial", "later", "later", "trial", "trial"]
    assert set(record.asked[5:]) == {Searcher.FINISHED}


def test_an_actor_that_has_ended_a_trial_runs_the_next_one(record: Record) -> None:
    assert [result["number"] for result in record.results] == [0, 2]
    assert len({result["process"] for result in record.results}) == 1


def test_the_scheduler_chooses_among_trials_that_wait(record: Record) -> None:
    assert ["PENDING"] in record.waiting
    assert ["TERMINATED", "PENDING"] in record.waiting


def test_a_trial_that_fails_too_often_is_reported_once_with_a_file_that_says_why(record: Record) -> None:
    (reason,) = record.failed.values()

    assert "no room" in reason


def test_callback_and_stopper_are_asked_at_every_step(record: Record) -> None:
    assert record.steps >= 5
    assert record.stops >= record.steps


def test_workers_stay_in_the_folder_of_the_search(record: Record) -> None:
    assert {result["folder"] for result in record.results} == {str(Path.cwd())}


def test_rays_threads_are_known_by_their_names(record: Record) -> None:
    ours = {thread.name for thread in threading.enumerate()}

    assert [name for name in record.threads - ours if name.startswith("ray_")]


def test_without_a_dashboard_ray_names_none(record: Record) -> None:
    assert not record.dashboard


def test_a_ray_that_is_no_cluster_is_one_of_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)

    assert ray.util.get_node_ip_address() == "127.0.0.1"


@pytest.mark.parametrize("name", [*_ENVIRONMENT, "TUNE_MAX_PENDING_TRIALS_PG"])
def test_ray_reads_the_variables_that_are_set_for_it(name: str) -> None:
    root = Path(ray.__file__).parent
    files = [
        file for folder in ("tune", "train", "air", "_private", "_common") for file in (root / folder).rglob("*.py")
    ]

    assert any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in files)
