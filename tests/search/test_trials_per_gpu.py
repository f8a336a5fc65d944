"""`gpus_per_trial: auto` becomes a number where trials will run, and the study says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import study_config
from user_tasks import build

from autoprune.errors import InputError
from autoprune.search.placement import Placement
from autoprune.search.prepare import Prepared
from autoprune.search.running.in_process import InProcessExecutor
from autoprune.search.running.task_evaluator import Loaded, OpenLoaded, OpenTask
from autoprune.search.trials_per_gpu import CountTrials, shared_out
from autoprune.study.config import Resources, StudyConfig
from autoprune.training import gpu_sharing
from autoprune.training.runtime import Runtime


class Elsewhere(InProcessExecutor):
    """Gives a job's result as another process would, and knows what it was asked."""

    def __init__(self, result):
        self.result, self.jobs = result, []

    def call(self, job):
        self.jobs.append(job)
        return self.result


def prepared(**resources) -> Prepared:
    config = replace(study_config(), resources=Resources(**resources))
    opener = OpenTask(
        loaded=Loaded({}, {}), runtime=Runtime(), cpus=3, batch_size=7, memory=5.0, gpus=1.0, mps=config.resources.mps
    )
    return Prepared(config, config.space, None, opener, None)


@pytest.mark.parametrize(("trials", "share"), [(8, 0.125), (7, 0.1428), (3, 0.3333), (1, 1.0)])
def test_auto_becomes_a_number_that_so_many_trials_have_room_with(trials, share):
    executor = Elsewhere(trials)
    found = shared_out(executor, prepared(gpus_per_trial="auto", mps=True, cpus_per_trial=3))

    assert found.config.resources == Resources(gpus_per_trial=share, mps=trials > 1, cpus_per_trial=3)
    assert (found.open_evaluator.gpus, found.open_evaluator.mps) == (share, trials > 1)
    assert trials * share <= 1
    assert str(trials) in found.remarks[-1] or "to itself" in found.remarks[-1]
    assert [(job.batch_size, job.cpus, job.memory) for job in executor.jobs] == [(7, 3, 5.0)]
    assert StudyConfig.from_yaml(found.config.to_yaml()).resources == found.config.resources


def test_a_number_stays_and_nothing_is_measured():
    executor, given = Elsewhere(8), prepared(gpus_per_trial=0.25)

    assert shared_out(executor, given) is given
    assert executor.jobs == []


def test_in_one_process_a_trial_has_a_gpu_to_itself():
    opener = OpenLoaded(shared=None, cpus=1)
    found = shared_out(Elsewhere(8), replace(prepared(gpus_per_trial="auto"), open_evaluator=opener))

    assert found.config.resources.gpus_per_trial == 1.0


@pytest.mark.parametrize(("device", "trials"), [("cuda", 5), ("cpu", 1)])
def test_trials_are_counted_with_the_model_that_was_loaded(monkeypatch, device, trials):
    class Opened:
        def opened(self):
            return "task", build()

    asked = []
    monkeypatch.setattr(gpu_sharing, "trainings_that_pay", lambda *given: asked.append(given) or 5)
    job = CountTrials(loaded=Opened, runtime=Runtime(device=device), batch_size=7, cpus=1, memory=None)

    assert job() == trials
    assert [(given[0] is not None, given[1], given[2], given[4]) for given in asked] == [(True, "task", 7, None)] * (
        device == "cuda"
    )


def test_one_process_shares_no_gpu_through_a_service():
    with pytest.raises(InputError, match=r"resources\.mps: one trial after the other in one process; allowed: false"):
        Placement(in_process=True).executor(Resources(gpus_per_trial=0.5, mps=True))
