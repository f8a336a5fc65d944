"""The search on a real Ray, small: placement, crashes, hangs, kills; evaluators are fakes unless a task is named."""

import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fakes
import numpy as np
import pytest

from autoprune.errors import InputError, SearchInterrupted, StudyError
from autoprune.search.on_ray import cluster
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.search.running.limits import CUT_OFF_SECONDS, Limits
from autoprune.study.config import Finalists, Resources
from autoprune.study.finalists import by_member
from autoprune.study.folder import load_study
from autoprune.study.metric import ACCURACY
from autoprune.study.worker_name import WorkerName

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers_see_fakes")]


def run(session, **options):
    with RayExecutor(session.config.resources) as executor:
        executor.run(session, fakes.OpenFake(**options))
    session.close()
    return executor.folder


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.timeout(1200)
def test_a_search_with_every_kind_of_failure(tmp_path, capfd):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=12, timeout=0.05))
    folder = run(session, trouble={3: "raise", 4: "memory", 5: "nan", 6: "exit", 7: "hang", 8: "hold"})
    outcomes = {outcome.id: outcome for outcome in load_study(tmp_path).outcomes}
    errors = {number: outcome.error for number, outcome in outcomes.items() if outcome.status == "failed"}

    assert set(outcomes) == set(range(12))
    assert errors.pop(3) == "ValueError: a bad"
    assert errors.pop(4) == "MemoryError; with the batch in 2 passes: MemoryError"
    assert errors.pop(5) == "the metric is nan"
    assert errors.pop(6).startswith("the worker process died 3 times: it crashed")
    assert errors.pop(7) == "no end after 0.05 minutes (resources.trial_timeout_minutes)"
    assert errors.pop(8).startswith("the worker process died 3 times: it crashed")
    assert errors == {}
    assert {path.name for path in session.folder.models.iterdir()} <= {str(n) for n in outcomes}
    assert not folder.exists()
    assert not (Path.home() / ".ray" / "auth_token").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"study.yaml", "proposals.jsonl", "outcomes.jsonl", "models"}
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_the_logs_say_on_which_gpu_a_trial_ran_and_where_the_dashboard_is(tmp_path, monkeypatch):
    """The GPUs are Ray's alone: this machine has none."""
    monkeypatch.setattr(cluster, "_count_local_gpus", lambda _resources: 2)
    session = fakes.open_session(tmp_path, fakes.study_config(trials=6, gpus=1.0))
    run(session, seconds=0.2)
    workers = [WorkerName.parse(outcome.worker) for outcome in load_study(tmp_path).outcomes]

    assert {worker.node for worker in workers} == {socket.gethostname()}
    assert {worker.gpus for worker in workers} == {("0",), ("1",)}
    assert session.progress().dashboard is None  # a search's own Ray runs without


def test_workers_get_the_models_that_recipes_go_on_from(tmp_path):
    """The fake evaluator compares the parent's file with its number."""
    config = fakes.study_config(trials=14, weights={"choice": ["trained", "front"]})
    run(fakes.open_session(tmp_path, config))
    study = load_study(tmp_path)

    assert [outcome.error for outcome in study.outcomes] == [None] * 14
    assert sum(proposal.recipe.parent is not None for proposal in study.proposals) >= 6


def test_workers_that_cannot_load_the_task_end_the_search_with_the_reason(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=40))

    with pytest.raises(StudyError, match="cannot load the task: OSError: no data here"):
        run(session, broken=True)
    assert len(session.outcomes) < 15


def test_trials_that_do_not_report_are_cut_off_after_the_grace(tmp_path):
    class Ending(fakes.Notes):
        def update(self, progress):
            if progress.running == 2:
                session.budget.limits = Limits(deadline=0.0, grace=-CUT_OFF_SECONDS)

    session = fakes.open_session(tmp_path, fakes.study_config(trials=4), view=Ending())
    with pytest.raises(StudyError, match="the search's time was over"):
        run(session, trouble=dict.fromkeys(range(4), "hang"))

    assert [outcome.status for outcome in session.outcomes] == ["stopped", "stopped"]


def test_every_slot_gets_one_actor_and_no_more(tmp_path):
    """With no-op trials Tune's own order gives running actors to waiting trials and kills the actors that start."""
    config = fakes.study_config(trials=45, workers=9)
    ran = tmp_path / "ran"
    run(fakes.open_session(tmp_path / "study", config), ran=ran, seconds=0.2)
    processes = Counter(line.split()[2] for line in ran.read_text().splitlines())

    assert sum(processes.values()) == 45
    assert len(processes) == 9


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("ray://127.0.0.1:1", "a Ray client address; allowed: auto, or HOST:PORT of the head"),
        ("127.0.0.1:1", "no Ray cluster answers: .*refused"),
        ("auto", "no Ray cluster answers: `ray start` has left no address on this machine"),
    ],
)
def test_an_address_that_nobody_answers_is_the_users_to_mend(tmp_path, monkeypatch, address, what):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # no `ray start` has left a note there
    with RayExecutor(Resources(), address) as executor, pytest.raises(InputError, match=what):
        executor.wait_until_ready()


def test_a_trial_that_fits_nowhere_is_the_users_to_mend():
    executor = RayExecutor(Resources(workers=1, gpus_per_trial=64.0))

    with pytest.raises(InputError, match="a trial needs 64 GPUs, this machine has"):
        executor.__enter__()  # before the task is loaded


def test_a_gpu_that_fails_in_a_recipe_costs_no_other_recipe(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=6))
    run(session, trouble={2: "gpu"})
    outcomes = {outcome.id: outcome for outcome in load_study(tmp_path).outcomes}

    fault = "CUDA error: unspecified launch failure"
    died = f"the worker process died 3 times: GpuFaultError: {socket.gethostname()}: {fault}; RuntimeError: {fault}"
    assert outcomes.pop(2).error == died
    assert sorted(outcomes) == [0, 1, 3, 4, 5]
    assert all(outcome.completed for outcome in outcomes.values())


def test_a_gpu_that_cannot_be_used_costs_no_recipe(tmp_path):
    unusable = tuple(tmp_path / str(number) for number in range(2))
    for file in unusable:
        file.touch()
    session = fakes.open_session(tmp_path / "study", fakes.study_config(trials=5))
    run(session, without_gpu=unusable)

    assert all(outcome.completed for outcome in load_study(tmp_path / "study").outcomes)
    assert not any(file.exists() for file in unusable)


DRIVER = """
import sys
import fakes
from pathlib import Path
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.errors import SearchInterrupted

def main(folder):
    session = fakes.open_session(folder / "study", fakes.study_config(trials=14))
    with RayExecutor(session.config.resources) as executor:
        executor.run(session, fakes.OpenFake(seconds=0.7, ran=folder / "ran"))
    session.close()

try:
    main(Path(sys.argv[1]))
except SearchInterrupted as error:
    sys.exit(str(error))
"""


def start(folder):
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(folder)], stderr=subprocess.PIPE, text=True)


def finish(driver):
    """Exit code and what was said."""
    said = driver.communicate(timeout=90)[1]
    return driver.returncode, said


def ended(folder):
    log = folder / "study" / "outcomes.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def executions(folder):
    return Counter(int(line.split()[0]) for line in (folder / "ran").read_text().splitlines())


def test_a_killed_driver_loses_nothing_and_repeats_only_what_had_not_ended(tmp_path):
    driver = start(tmp_path)
    wait_for(lambda: ended(tmp_path) >= 5)
    os.kill(driver.pid, signal.SIGKILL)
    finish(driver)
    study = load_study(tmp_path / "study")
    finished, unfinished = {o.id: o for o in study.outcomes}, {p.id: p.recipe for p in study.unfinished()}
    assert unfinished
    time.sleep(3)  # Ray's workers outlive their driver by a moment

    assert finish(start(tmp_path)) == (0, "")
    after = load_study(tmp_path / "study")
    assert sorted(outcome.id for outcome in after.outcomes) == list(range(14))
    assert [proposal.id for proposal in after.proposals] == list(range(14))
    assert [o for o in after.outcomes if o.id in finished] == list(finished.values())
    assert {o.id: o.recipe for o in after.outcomes if o.id in unfinished} == unfinished
    ran = executions(tmp_path)
    assert {number for number, times in ran.items() if times > 1} <= set(unfinished)
    assert all(ran[number] == 1 for number in finished)


def test_ctrl_c_ends_the_search_at_once_and_says_how_to_go_on(tmp_path):
    driver = start(tmp_path)
    wait_for(lambda: ended(tmp_path) >= 3)
    driver.send_signal(signal.SIGINT)
    code, said = finish(driver)

    assert code == 1
    assert f"go on with `autoprune resume {tmp_path / 'study'}`" in said
    assert len(said.splitlines()) == 1
    assert 3 <= ended(tmp_path) < 14
    assert SearchInterrupted.exit_code == 1


def test_recipes_that_paused_go_on_where_they_were(tmp_path):
    config = fakes.study_config(trials=20, rungs=(0.0, 0.25, 1.0), keep=0.34)
    session = fakes.open_session(tmp_path / "study", config)
    run(session, rungs=(0.0, 0.25), ran=tmp_path / "ran")
    segments = Counter(int(line.split()[0]) for line in (tmp_path / "ran").read_text().splitlines())
    searched = [outcome for outcome in load_study(tmp_path / "study").outcomes if not outcome.control]

    assert len(searched) == 18
    assert {outcome.status for outcome in searched} == {"completed", "stopped"}
    # one segment to every rung, and one more to the end; nothing is run twice
    assert all(segments[o.id] == (3 if o.completed else len(o.rungs)) for o in searched)
    assert list(session.folder.states.iterdir()) == []


def test_final_retraining_after_a_search_on_the_same_ray(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=8))
    with RayExecutor(session.config.resources) as executor:
        executor.run(session, fakes.OpenFake())
        study = load_study(tmp_path)
        retraining = fakes.open_retraining(study, Finalists(seeds=2), clock=session.clock)
        executor.run(retraining, fakes.OpenFake(final=True, trouble={3: "exit"}))
    retraining.close()
    after = load_study(tmp_path)

    assert len(after.finalists) == retraining.planned
    assert {run.id for run in after.finalists if not run.completed} == {3}
    assert {path.name for path in study.folder.final_models.iterdir()} == {
        str(one.best.id) for one in by_member(after.finalists, ACCURACY)
    }


def test_a_job_beside_the_trials_runs_in_a_process_of_its_own(tmp_path):
    with RayExecutor(Resources(workers=1)) as executor:
        assert executor.call(os.getpid) != os.getpid()
        with pytest.raises(ValueError, match="invalid literal for int"):
            executor.call(functools.partial(int, "no number"))
        with pytest.raises(StudyError, match="a process beside the trials has died"):
            executor.call(functools.partial(os._exit, 3))
        assert executor.call(functools.partial(sum, (3, 4))) == 7


def test_what_the_driver_has_loaded_is_not_copied_into_workers(tmp_path):
    """It is more than the store of a search's own Ray holds."""
    pixels = np.arange(50 * 2**20, dtype=np.uint32)  # 200 MiB
    with RayExecutor(Resources(workers=1)) as executor:
        found = executor.call(functools.partial(fakes.look_at, executor.once_per_node(pixels)))

    assert found["sum"] == int(pixels.sum(dtype=np.uint64))
    assert not found["writeable"]
    assert found["own_mib"] < 20
