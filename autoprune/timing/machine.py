"""What a time was measured on, in words: the same on every machine of its kind."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

import torch


def machine_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else processor_name()


def processor_name() -> str:
    """The processor's name, as the system says it."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return " ".join([*named[:1], "with AVX-512"] if any("avx512f" in line for line in lines) else named[:1])
    return platform.machine()
