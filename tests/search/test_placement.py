"""Placement: which executor runs trials in which place."""

import pytest

from autoprune.errors import InputError
from autoprune.search.placement import Placement
from autoprune.search.running.in_process import InProcessExecutor
from autoprune.study.config import Resources


def test_trials_run_in_this_process_if_wanted_whatever_the_address():
    assert isinstance(Placement(in_process=True, address="auto").executor(Resources()), InProcessExecutor)


def test_trials_of_several_processes_do_not_run_in_this_one():
    with pytest.raises(InputError, match="3 processes per trial in one process; allowed: 1, or a search on Ray"):
        Placement(in_process=True).executor(Resources(processes_per_trial=3))


def test_the_memory_of_the_process_that_searches_has_no_limit():
    with pytest.raises(InputError, match=r"memory_per_trial: a limit for .*; allowed: none, or a search on Ray"):
        Placement(in_process=True).executor(Resources(memory_per_trial=3.0))


def test_trials_run_on_ray_by_default_here_or_at_the_address():
    from autoprune.search.on_ray.executor import RayExecutor

    resources = Resources(workers=3)
    here, there = Placement().executor(resources), Placement(address="auto").executor(resources)

    assert isinstance(here, RayExecutor)
    assert isinstance(there, RayExecutor)
    assert (here.address, there.address) == (None, "auto")
    assert here.resources == there.resources == resources
