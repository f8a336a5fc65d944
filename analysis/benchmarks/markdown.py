"""What the benchmarks' Markdown pages have in common: the machine, and how a table is written."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

READING = "\n## What the numbers say\n"

"""What stands from this heading on in the table's file was written by hand and stays."""


def write(file: Path, measured: str) -> None:
    """Replace the measured part of the file; what was written by hand below it stays."""
    old = file.read_text() if file.exists() else ""
    file.write_text(measured + "\n" + "".join(old.partition(READING)[1:]))


def machine() -> str:
    """Processor, cores and threads."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
