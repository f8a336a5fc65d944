"""The Markdown pages of benchmarks: where a page was measured, its tables, and the part that is written by hand."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch

#: From this heading on a page was written by hand, and stays when its measured part is replaced.
BY_HAND = "\n## What the numbers say\n"


def write_measured(file: Path, measured: str) -> None:
    """Replace the measured part of a page; the part below it that was written by hand stays."""
    old = file.read_text() if file.exists() else ""
    file.write_text(measured + "\n" + "".join(old.partition(BY_HAND)[1:]))


def describe_machine() -> str:
    """Processor, cores and threads."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def table_head(columns: Sequence[str], text: Collection[int] = (0,)) -> list[str]:
    """The two lines above the rows of a table; numbers are right-aligned, columns of `text` are not."""
    rules = ["---" if i in text else "---:" for i in range(len(columns))]
    return [table_row(columns), f"|{'|'.join(rules)}|"]


def table_row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def mean_and_std(values: Sequence[float], digits: int = 2) -> str:
    """`93.41 ± 0.17`: mean and sample standard deviation; of a single value it alone."""
    std = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{std}"
