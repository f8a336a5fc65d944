"""Trials of several processes on a real Ray: who dies, who fails alone, and who is left behind."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from together import OpenTogether

from autoprune.errors import StudyError
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.study.config import Resources
from autoprune.study.folder import load_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("workers_see_fakes")]


def run(path, trials, processes=2, **options):
    """Outcomes by number; and trial -> (rank, process) of everything that ran it."""
    resources = Resources(workers=1, processes_per_trial=processes, trial_timeout_minutes=2.0)
    session = fakes.open_session(path / "study", replace(fakes.study_config(trials=trials), resources=resources))
    with RayExecutor(resources) as executor:
        executor.run(session, OpenTogether(path, **options))
    session.close()
    return {outcome.id: outcome for outcome in load_study(path / "study").outcomes}, who_ran(path)


def who_ran(path):
    found = {}
    lines = (path / "ran").read_text().splitlines() if (path / "ran").exists() else []
    for number, rank, process in (map(int, line.split()) for line in lines):
        found.setdefault(number, []).append((rank, process))
    return found


def processes_left(found):
    """Those that ran trials and are still there half a minute later."""
    processes = {process for each in found.values() for _, process in each}
    end = time.monotonic() + 30
    while left := [process for process in processes if Path(f"/proc/{process}").exists()]:
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return left


def kill_when_it_sleeps(path, number, rank):
    """From outside, as a guard of a node's memory does, while the other process waits for a message."""
    end = time.monotonic() + 500
    while time.monotonic() < end:
        sleeping = [process for place, process in who_ran(path).get(number, []) if place == rank]
        if sleeping:
            time.sleep(1.0)
            os.kill(sleeping[0], signal.SIGKILL)
            return
        time.sleep(0.1)


def test_all_processes_run_every_trial_and_whoever_dies_ends_the_attempt_alone(tmp_path):
    trouble = {1: (0, "die once"), 3: (1, "sleep once")}
    killer = threading.Thread(target=kill_when_it_sleeps, args=(tmp_path, 3, 1))
    killer.start()
    outcomes, found = run(tmp_path, 5, processes=3, trouble=trouble)
    killer.join()

    assert {number: outcome.error for number, outcome in outcomes.items()} == dict.fromkeys(range(5))
    assert all(outcome.notes == {"sum": 6.0} for outcome in outcomes.values())
    assert {number: len(each) for number, each in found.items()} == {0: 3, 1: 6, 2: 3, 3: 6, 4: 3}
    assert all({rank for rank, _ in each} == {0, 1, 2} for each in found.values())
    assert set((tmp_path / "listening").read_text().split()) == {"127.0.0.1"}  # no other machine can reach them
    assert processes_left(found) == []


@pytest.mark.long
def test_a_process_that_fails_alone_is_why_the_trial_failed_and_others_take_its_place(tmp_path):
    trouble = {1: ("all", "raise"), 2: (0, "raise"), 3: (1, "raise")}
    outcomes, found = run(tmp_path, 5, processes=3, trouble=trouble)
    errors = {number: outcome.error for number, outcome in outcomes.items()}

    assert errors == {n: "ValueError: a bad shape" if n in trouble else None for n in range(5)}
    assert all(len(each) == 3 for each in found.values())
    ranks = {number: dict(each) for number, each in found.items()}
    assert len({each[0] for each in ranks.values()}) == 1  # the worker stays
    assert ranks[0][1] == ranks[1][1] == ranks[2][1]
    assert len({ranks[number][1] for number in (2, 3, 4)}) == 3
    assert processes_left(found) == []


@pytest.mark.parametrize("broken", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_process_that_cannot_load_the_task_ends_the_search_with_the_reason(tmp_path, broken):
    with pytest.raises(StudyError, match=f"cannot load the task: OSError: no data for process {broken}"):
        run(tmp_path, 2, broken=broken)
