"""What a search on several Ray nodes makes of what goes wrong around it; the nodes are real, and share this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import ray
from commands import write_space
from launching import HELPERS
from ray.cluster_utils import Cluster

from autoprune.search import search
from autoprune.search.on_ray import deaths, executor, room
from autoprune.search.on_ray.cluster import count_slots
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.search.running.limits import Limits
from autoprune.search.running.session import Session
from autoprune.study.folder import load_study
from autoprune.study.outcome import Outcome
from autoprune.study.progress import StudyProgress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("workers_see_fakes")]

STORE_BYTES = 80 * 2**20


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `struck.py` says what has happened."""
    return tmp_path_factory.mktemp("struck")


@pytest.fixture(scope="module")
def cluster(struck: Path) -> Iterator[Cluster]:
    """Three nodes with a core each, for all tests here; workers have the environment in which their node began."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("STRUCK", str(struck))
        patch.setenv("PYTHONPATH", os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")]))
        nodes = Cluster(initialize_head=True, head_node_args=node_arguments())
        for _ in range(2):
            nodes.add_node(**node_arguments())
        yield nodes
        nodes.shutdown()


def node_arguments() -> dict[str, Any]:
    return {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}


class Watching(fakes.Notes):
    """A view that lets something happen once, as soon as the search is there."""

    def __init__(self, due: Any, happen: Any) -> None:
        super().__init__()
        self.due, self.happen, self.happened = due, happen, False

    def update(self, progress: StudyProgress) -> None:
        super().update(progress)
        if not self.happened and self.due(progress):
            self.happened = True
            self.happen()


def run(session: Session, cluster: Cluster, **options: Any) -> list[Outcome]:
    """All outcomes, of which every recipe has one."""
    with RayExecutor(session.config.resources, cluster.address) as executor:
        executor.run(session, fakes.OpenFake(**options))
    session.close()
    return ended_once(session.folder.path)


def ended_once(folder: Path) -> list[Outcome]:
    study = load_study(folder)
    times = Counter(outcome.id for outcome in study.outcomes)
    assert times == dict.fromkeys((proposal.id for proposal in study.proposals), 1)
    return list(study.outcomes)


def test_workers_that_are_killed_given_notice_or_wrong_about_the_time_cost_no_recipe(
    cluster: Cluster, struck: Path, tmp_path: Path
) -> None:
    """In scoring, training, evaluation and while pausing; see `struck.py`."""
    space = {
        "method": {"choice": {"l1": {}, "random": {}}},
        "target": {"flops": {"float": [0.3, 0.7]}},
        "training": {"images": 1600, "batch_size": 64, "rungs": [0, 0.5, 1]},
    }
    data = {"name": "digits", "splits": {"train": "train", "validation": "validation", "test": "test"}}
    file = write_space(
        tmp_path / "s.yaml",
        task={"data": data, "model": {"factory": "struck:build"}},
        space=space,
        cascade={"keep": 0.5},
        budget={"trials": 10, "minutes": 60},
        resources={"workers": 3, "cpus_per_trial": 1},
    )
    search(file, out=tmp_path / "study", address=cluster.address)
    outcomes = ended_once(tmp_path / "study")
    happened = {path.name for path in struck.iterdir() if not path.name.startswith("recipe-")}

    assert happened == {"scoring", "training", "evaluation", "pausing", "notice", "clock", "went_on"}
    assert [outcome.error for outcome in outcomes] == [None] * 10
    assert "8" in (struck / "went_on").read_text().split()  # after the step that was under way at the notice
    taken_away = f"/proc/{(struck / 'notice').read_text()}"
    assert not Path(taken_away).exists()
    assert all(0 <= outcome.started <= outcome.finished < 3600 for outcome in outcomes)


def test_paused_recipes_outlive_the_node_on_which_they_paused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And recipes that run there are tried again however often: here nobody has a second attempt."""
    monkeypatch.setattr(deaths, "ATTEMPTS", 1)
    lost = cluster.worker_nodes.copy().pop()
    view = Watching(lambda progress: progress.paused >= 3, lambda: cluster.remove_node(lost, allow_graceful=False))
    config = fakes.study_config(trials=16, workers=3, rungs=(0.0, 0.25, 1.0), keep=0.34)
    session = fakes.open_session(tmp_path / "study", config, view=view)
    outcomes = run(session, cluster, rungs=(0.0, 0.25), seconds=0.3)
    cluster.add_node(**node_arguments())

    assert view.happened
    assert {outcome.status for outcome in outcomes} == {"completed", "stopped"}
    assert {outcome.error for outcome in outcomes} == {None}


@pytest.mark.parametrize("stay", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_node_that_joins_is_used(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stay: bool
) -> None:
    monkeypatch.setattr(executor, "workers_stay", lambda *_: stay)
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.5)
    config = fakes.study_config(trials=1000, workers=None)
    seen = lambda progress: progress.done and most_at_once(session.outcomes) == 4  # noqa: E731 - as the next
    view = Watching(seen, lambda: setattr(session.budget, "limits", Limits(trials=1)))
    session = fakes.open_session(tmp_path / "study", config, view=view)
    joined: list[Any] = []

    def count(*asked: Any) -> int:
        """As ever, but once two trials have ended a node joins; only the main thread may start one."""
        if session.progress().done >= 2 and not joined and threading.current_thread() is threading.main_thread():
            joined.append(cluster.add_node(**node_arguments()))
        return count_slots(*asked)

    monkeypatch.setattr(executor, "count_slots", count)
    outcomes = run(session, cluster, seconds=0.7)
    cluster.remove_node(joined[0])

    assert len(outcomes) < 1000
    assert most_at_once(outcomes) == 4


def most_at_once(outcomes: list[Outcome]) -> int:
    """How many trials ran at the same time."""
    moments = [(interval.started, 1) for outcome in outcomes for interval in outcome.run_intervals]
    moments += [(interval.finished, -1) for outcome in outcomes for interval in outcome.run_intervals]
    return int(max(np.cumsum([step for _, step in sorted(moments)])))


def test_a_damaged_checkpoint_lets_its_recipe_begin_anew(cluster: Cluster, tmp_path: Path) -> None:
    def damage() -> None:
        for state in (tmp_path / "study" / "states").glob("[0-9]*/deep/state"):
            state.write_text("")
        view.happened = False  # what pauses later is damaged too: nobody knows which of them go on

    view = Watching(lambda progress: progress.paused >= 3, damage)
    config = fakes.study_config(trials=16, workers=2, rungs=(0.0, 0.25, 1.0), keep=0.34)
    session = fakes.open_session(tmp_path / "study", config, view=view)
    outcomes = run(session, cluster, rungs=(0.0, 0.25), seconds=0.5)  # the view looks twice a second

    assert {outcome.error for outcome in outcomes} == {None}
    assert any("began_anew" in outcome.notes for outcome in (*outcomes, *load_study(tmp_path / "study").paused))


@pytest.mark.long
def test_a_search_waits_for_a_study_folder_that_is_out_of_reach(cluster: Cluster, tmp_path: Path) -> None:
    folder, away = tmp_path / "study", tmp_path / "away"

    def leave() -> None:
        folder.rename(away)
        folder.mkdir()  # as where nothing is mounted any more

        def come_back() -> None:
            folder.rmdir()
            away.rename(folder)

        threading.Timer(6.0, come_back).start()

    view = Watching(lambda progress: progress.done >= 4, leave)
    session = fakes.open_session(folder, fakes.study_config(trials=14, workers=3), view=view)
    outcomes = run(session, cluster, seconds=0.3)

    assert [outcome.error for outcome in outcomes] == [None] * 14
    assert [warning.split(":")[0] for warning in session.warnings][:1] == [
        "the study folder cannot be written, and the search waits"
    ]
    assert "could be written again" in session.warnings[1]
    kept = {int(model.name) for model in (folder / "models").iterdir()}
    assert {point.id for point in session.progress().front} <= kept


@pytest.mark.long
def test_models_come_home_where_the_object_stores_are_full(cluster: Cluster, tmp_path: Path) -> None:
    """What is in them cannot be dropped, and a model is half as large as a store."""
    session = fakes.open_session(tmp_path / "study", fakes.study_config(trials=4, workers=3))
    with RayExecutor(session.config.resources, cluster.address) as executor:
        executor.wait_until_ready()
        held = [ray.put(np.zeros(STORE_BYTES // 3, np.uint8)) for _ in range(2)]
        executor.run(session, fakes.OpenFake(model_bytes=STORE_BYTES // 2))
        assert len(held) == 2
    session.close()
    outcomes = ended_once(tmp_path / "study")

    assert [outcome.error for outcome in outcomes] == [None] * 4
    sizes = {model.stat().st_size for model in (tmp_path / "study" / "models").glob("*/weights")}
    assert sizes == {STORE_BYTES // 2}


FULL_DISK = """
import sys, threading, time
from pathlib import Path
import fakes
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.search.published_progress import published
from autoprune.study.folder import load_study

class Filling(fakes.Notes):
    ballast = Path(sys.argv[1]) / "ballast"

    def update(self, progress):
        super().update(progress)
        if progress.done >= 4 and not self.ballast.exists():
            threading.Thread(target=self.fill).start()
            time.sleep(0.5)

    def fill(self):
        with self.ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass
        end = time.monotonic() + 60
        while not self.seen[-1].warnings and time.monotonic() < end:
            time.sleep(0.2)
        self.ballast.write_bytes(b"")

config, view = fakes.study_config(trials=30, workers=2), Filling()
fakes.open_session(sys.argv[1], config)
with published(load_study(sys.argv[1]), view, {}) as told, RayExecutor(config.resources) as executor:
    session = fakes.open_session(sys.argv[1], config, view=told)
    executor.run(session, fakes.OpenFake(seconds=0.2))
    session.close()
print(view.seen[-1].warnings)
print(sorted(outcome.id for outcome in session.outcomes) == list(range(30)))
print({outcome.error for outcome in session.outcomes})
"""
MOUNTED = "mount -t tmpfs -o size=1m none {folder} && exec {python} -c '{code}' {folder}"
CAN_MOUNT = (
    shutil.which("unshare")
    and not subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
)


@pytest.mark.long
@pytest.mark.skipif(not CAN_MOUNT, reason="nobody may mount a small disk here")
def test_a_search_waits_while_the_heads_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    command = MOUNTED.format(folder=tmp_path / "study", python=sys.executable, code=FULL_DISK.replace("'", '"'))
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    warnings, all_ended, errors = ran.stdout.splitlines()
    assert "No space left on device" in warnings
    assert (all_ended, errors) == ("True", "{None}")
