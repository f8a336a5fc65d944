"""slurm: the job on a real SLURM of two nodes on this machine; it ends by itself, by a signal, and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from launching import Place, left_over, place
from slurm import is_installed, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,  # two minutes
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_installed(), reason="no SLURM here: apt-get install slurmctld slurmd slurm-client munge"),
]


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder to submit from."""
    made = place(tmp_path, workers=2, trials=5)
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield replace(made, environment={**environment, **made.environment, "SLURM_CONF": environment["SLURM_CONF"]})


def submit(here: Place, **values: object) -> int:
    """Submit a job of two nodes with one core each; returns its number."""
    values = {"nodes": 2, "cpus": 1, "gpus": 0, "time": "00:10:00", "search": "s.yaml", "study": "study", **values}
    return int(here.run("sbatch", "--parsable", here.write("slurm", "search.sbatch", values)))


def state(here: Place, job: int) -> str:
    return here.run("scontrol", "--oneliner", "show", "job", str(job)).partition("JobState=")[2].split()[0]


def wait_until(here: Place, job: int, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not condition():
        output = here.folder / f"slurm-{job}.out"
        assert time.monotonic() < until, output.read_text() if output.exists() else state(here, job)
        time.sleep(0.5)


def has_ended(here: Place, job: int) -> bool:
    return state(here, job) not in {"PENDING", "RUNNING", "COMPLETING"}


def test_a_job_searches_on_both_nodes_and_the_next_one_goes_on(here: Place) -> None:
    first = submit(here, search="s.yaml --trials 17")
    wait_until(here, first, lambda: len(here.outcomes("study")) >= 1 or has_ended(here, first))
    here.run("scancel", "--batch", "--signal=TERM", str(first))  # what --signal sends before the time is up
    wait_until(here, first, lambda: has_ended(here, first))
    ended = len(here.outcomes("study"))

    output = (here.folder / f"slurm-{first}.out").read_text()
    assert "go on with `autoprune resume study`" in output
    assert state(here, first) == "FAILED"  # by the search's own exit code
    assert 1 <= ended < 17
    assert here.nodes() == 2
    assert left_over(f"/tmp/ray-{first}") == []

    second = submit(here, search="s.yaml --trials 17")
    wait_until(here, second, lambda: has_ended(here, second))
    assert state(here, second) == "COMPLETED", (here.folder / f"slurm-{second}.out").read_text()
    assert here.outcomes("study") == dict.fromkeys(range(17), "completed")
    assert left_over(f"/tmp/ray-{second}") == []
    assert [job for job in (first, second) if Path(f"/tmp/ray-{job}").exists()] == []
    assert list(here.folder.glob(".ray-token*")) == []
