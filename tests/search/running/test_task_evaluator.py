"""What a worker opens; one whose process may take so much memory and no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hungry_task
import pytest
import torch
from commands import DIGITS_DATA

from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.task_evaluator import Loaded, OpenTask
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime


def run(gib, folder):
    """Status, error and passes of a step, in a process that may take `gib` GiB beyond what it has."""
    script = Path(hungry_task.__file__)
    command = [sys.executable, str(script), str(gib), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(script.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("gib", "passes"), [(3.0, 1), (0.62, 2)])
def test_a_batch_that_does_not_fit_goes_through_the_model_in_halves(tmp_path, gib, passes):
    assert run(gib, tmp_path) == ["completed", None, passes]


def test_a_trial_for_which_halves_are_too_large_as_well_says_both(tmp_path):
    status, error, passes = run(0.25, tmp_path)

    assert (status, passes) == ("failed", 2)
    assert error.count("can't allocate memory") == 2
    assert "; with the batch in 2 passes: " in error


def test_a_worker_trains_no_dense_model_of_its_own(tmp_path, monkeypatch):
    """Its node may see nothing of what the driver has written."""
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / "of this node"))
    spec = {"data": DIGITS_DATA, "model": {"name": "digits_net", "train": {"images": 64, "batch_size": 8}}}
    weights = {name: tensor + 3 for name, tensor in load_task(spec).build().state_dict().items()}
    evaluator = OpenTask(loaded=Loaded(spec, weights), runtime=Runtime(), cpus=1, batch_size=8)(StudyClock(0.0), None)

    found = evaluator.shared.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert not (tmp_path / "of this node").exists()
    assert not evaluator.shared.model.training
