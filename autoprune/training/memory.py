"""How much memory a process may take while it trains."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from autoprune.errors import InputError

GIB = 2**30

_WHERE = "resources.memory_per_trial"


def limit_memory(gib: float, device: str, share: float) -> None:
    """Let this process take no more memory; what asks for more fails, and nothing else does.

    On a GPU torch keeps the limit for its tensors; what CUDA itself takes, some 0.5 GiB a process, is not in it. On the
    CPU the kernel keeps it for all data of the process (`RLIMIT_DATA`). It counts memory that is asked for, not what is
    in use, so the limit is what the process has asked for until now and what it may yet use.

    Args:
        gib: in GiB.
        device: where the process trains.
        share: of its GPU, below 1 where several processes share one.

    Raises:
        InputError: the GPU has no room for so much in each process, or this process has more already.
    """
    if device == "cpu":
        _limit_data(gib)
        return
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    torch.cuda.set_per_process_memory_fraction(part_of_gpu(gib, total, share), device)


def part_of_gpu(gib: float, total: float, share: float) -> float:
    """What part of a GPU's memory a process may take.

    Args:
        gib: what it may take, and `total` what the GPU has, in GiB.
        share: of the GPU that the process has.

    Raises:
        InputError: the processes that share the GPU could take more than it has.
    """
    if gib > total * share:
        allowed = f"at most {total * share:.3g} GiB for {share:g} GPU"
        raise InputError(f"{gib:g} GiB of a GPU that has {total:.3g}", where=_WHERE, allowed=allowed)
    return gib / total


def _limit_data(gib: float) -> None:
    asked, used = (_bytes_of_this_process(name) for name in ("VmData", "VmRSS"))
    if used > gib * GIB:
        what = f"{gib:g} GiB for a process that has {used / GIB:.3g} in use once the task is loaded"
        raise InputError(what, where=_WHERE, allowed="more, or nothing for no limit")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(asked + gib * GIB - used), hard))


def _bytes_of_this_process(name: str) -> int:
    """A line of the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise InputError(f"this system does not tell {name} of a process", where=_WHERE, allowed="Linux, or a GPU")
