"""Memory of a process: the part of a GPU that it gets; it fails in order where it asks for more of the CPU's."""

import subprocess
import sys

import pytest

from autoprune.errors import InputError
from autoprune.training.memory import part_of_gpu

CHILD = """
import torch
from autoprune.errors import InputError
from autoprune.training.memory import limit_memory

try:
    limit_memory(0.01, "cpu", 1.0)
except InputError as error:
    print("refused:", error)
kept = torch.ones(2**28)  # a GiB, in use when the limit is set
limit_memory(2.5, "cpu", 1.0)
print("fits:", torch.empty(2**26).numel())
try:
    torch.empty(2**29)
except RuntimeError as error:
    print("fails:", error)
print("goes on:", torch.empty(2**26).numel())
"""


@pytest.mark.parametrize(("gib", "share", "part"), [(20, 0.25, 0.25), (5, 0.25, 0.0625), (60, 1.0, 0.75)])
def test_a_process_gets_the_part_of_a_gpu_that_its_memory_is(gib, share, part):
    assert part_of_gpu(gib, 80.0, share) == part


def test_processes_that_share_a_gpu_cannot_get_more_than_it_has():
    what = "resources.memory_per_trial: 20.5 GiB of a GPU that has 80; allowed: at most 20 GiB for 0.25 GPU"
    with pytest.raises(InputError, match=what):
        part_of_gpu(20.5, 80.0, 0.25)


def test_a_process_that_asks_for_more_than_its_memory_fails_in_order_and_goes_on():
    done = subprocess.run([sys.executable, "-c", CHILD], check=False, capture_output=True, text=True, timeout=120)
    refused, fits, fails, goes_on = done.stdout.splitlines()

    assert refused.startswith("refused: resources.memory_per_trial: 0.01 GiB for a process that has")
    assert fits == f"fits: {2**26}"
    assert "can't allocate memory" in fails
    assert goes_on == f"goes on: {2**26}"
