"""A task whose batch of 256 images takes some 0.8 GiB on the way through the model, and a worker with less than that.

python hungry_task.py GIB        # beyond what the process has; prints outcome and recipe as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.search.running.evaluator import Evaluation
from autoprune.search.running.second_try import run_twice_if_out_of_memory
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.task_evaluator import Loaded, OpenTask
from autoprune.study.outcome import Proposal
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.cache import FolderStore

SPEC = {
    "kind": "classification",
    "model": {"factory": "hungry_task:Wide"},
    "data": {"train": "hungry_task:train", "validation": "hungry_task:validation", "num_classes": 5},
}


class Wide(nn.Module):
    """Two convolutions on maps of 64x64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.linear = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 64, 64) -> (N, 5)."""
        return self.linear(torch.relu(self.conv2(torch.relu(self.conv1(x)))).mean((2, 3)))


def train() -> TensorDataset:
    """256 images."""
    return TensorDataset(torch.rand(256, 1, 64, 64), torch.arange(256) % 5)


def validation() -> TensorDataset:
    """10 images."""
    return TensorDataset(torch.rand(10, 1, 64, 64), torch.arange(10) % 5)


def run(folder: Path, gib: float) -> Evaluation:
    """One step of training where a process may take so much beyond what it has."""
    used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    memory = int(used.split()[1]) / 2**20 + gib
    clock = StudyClock(0.0)
    loaded = Loaded(SPEC, load_task(SPEC).model().state_dict())
    opener = OpenTask(loaded=loaded, runtime=Runtime(), cpus=1, batch_size=256, memory=memory)
    evaluator = opener(clock, FolderStore(folder))
    training = Training(images=256, batch_size=256, rungs=(1.0,))
    recipe = Recipe(method=MethodChoice(name="l1"), target=Target(flops=0.9), training=training)
    segment = TrialSegment(proposal=Proposal(id=3, recipe=recipe))
    return run_twice_if_out_of_memory(
        segment, lambda part: run_segment(evaluator, part, lambda *_: True, clock, folder)
    )


if __name__ == "__main__":
    outcome = run(Path(sys.argv[2]), float(sys.argv[1])).outcome
    sys.stdout.write(json.dumps([outcome.status, outcome.error, outcome.recipe.training.accumulate]))
