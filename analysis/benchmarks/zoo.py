"""The engine on whole libraries: every model traced, cut to half the channels of every group, held to its promises.

    python -m autoprune.analysis.benchmarks.zoo torchvision|timm|dense-prediction|wild [--models GLOB ...] [--quick]
        [--jobs 1] [--out FILE.jsonl] [--again] [--table FILE.md]

Every model has random weights and a process of its own with a limit on time and memory. What goes wrong, a crash
included, is a row with the reason. Rows are appended to `--out` as they come; a second call goes on where the first
was stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import resource
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from autoprune.analysis.benchmarks import zoo_table
from autoprune.analysis.benchmarks.markdown import describe_machine
from autoprune.analysis.benchmarks.zoo_case import described, measure
from autoprune.analysis.benchmarks.zoo_models import LIBRARIES, OFFLINE, Entry, entries, select

Row = dict[str, Any]

#: Imported once, in the process from which those of the models fork; seconds for each model otherwise.
PRELOADED = (measure.__module__, zoo_table.__name__, "torchvision", "timm", "onnxscript", "autoprune.tasks")


@dataclass(frozen=True)
class Limits:
    """Limits for one model: seconds for each check and for all of them, GiB of memory, threads."""

    step: int = 900
    total: int = 2400
    memory: int = 14
    threads: int = 1


def supervise(entry: Entry, limits: Limits, *, quick: bool = False, seed: int = 0) -> Row:
    """The row of one model, measured in a new process; the row names the cause if that process ends early."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_measure_in_child, args=(entry, limits, quick, seed, there), daemon=True)
    child.start()
    there.close()
    found, ending = _last_row(here, monotonic() + limits.total)
    if ending == LATE:
        child.kill()
    child.join()
    row = {**described(entry), "quick": quick, "checks": {}, **found, "limits": vars(limits), **conditions()}
    row["version"] = _version_of(entry.package)
    if ending != DONE:
        reason = f"more than {limits.total} s for the model" if ending == LATE else _death_message(child.exitcode)
        row["checks"][row.pop("running", "start")] = {"ok": False, "reason": reason}
    return row


DONE, LATE, DEAD = "done", "late", "dead"


def _last_row(pipe: Connection, deadline: float) -> tuple[Row, str]:
    """The last row sent, and how the process ended: with a complete row, too late, or before it had one."""
    row: Row = {}
    while pipe.poll(max(0.0, deadline - monotonic())):
        try:
            row = pipe.recv()
        except EOFError:
            return row, DEAD
        if "running" not in row:
            return row, DONE
    return row, LATE


def _death_message(code: int | None) -> str:
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"the process ended with {how}"


def _measure_in_child(entry: Entry, limits: Limits, quick: bool, seed: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory * 2**30, limits.memory * 2**30))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(limits.threads)
    torch.manual_seed(seed)
    measure(entry, quick=quick, seconds=limits.step, seed=seed, report=pipe.send)


def conditions() -> Row:
    """The machine and versions that a row was measured with."""
    packages = ("torch", "torchvision", "timm", "onnxruntime")
    versions = [f"Python {platform.python_version()}", *(f"{name} {_version_of(name)}" for name in packages)]
    return {"machine": describe_machine(), "versions": ", ".join(versions)}


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def collect(found: list[Entry], limits: Limits, *, quick: bool, jobs: int, seed: int) -> Iterator[Row]:
    """Yield rows in the order in which models finish."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(supervise, entry, limits, quick=quick, seed=seed) for entry in found]
        for future in as_completed(futures):
            yield future.result()


def read(file: Path | None) -> dict[str, Row]:
    """The last row of every model in a file of JSON lines; none if there is no file."""
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["model"]: row for row in rows}


def missing(chosen: list[Entry], before: dict[str, Row], *, quick: bool) -> list[Entry]:
    """Models without a row; a quick row does not count if all checks are asked for."""
    return [e for e in chosen if e.name not in before or (before[e.name]["quick"] and not quick)]


def main() -> None:
    """Measure what is missing, write rows and table, print what failed."""
    options = _parse_options()
    torch.set_num_threads(options.threads)
    os.environ.update(OFFLINE)
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    listed = entries(options.library)
    chosen = [e for e in select(listed, options.models) if not (options.quick and e.big)]
    rows = read(options.out)
    todo = chosen if options.again else missing(chosen, rows, quick=options.quick)
    limits = Limits(options.step_seconds, options.seconds, options.memory, options.threads)
    found = collect(todo, limits, quick=options.quick, jobs=options.jobs, seed=options.seed)
    for i, row in enumerate(found, 1):
        rows[row["model"]] = row
        print(f"[{i}/{len(todo)}] {zoo_table.line(row)}", flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(zoo_table.summary([rows[entry.name] for entry in chosen]))
    if options.table is not None:
        options.table.write_text(zoo_table.table(options.library, [e.name for e in listed], rows))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--models", nargs="+", default=[], metavar="GLOB", help="only models of these names")
    parser.add_argument("--quick", action="store_true", help="without ONNX and without the biggest models")
    parser.add_argument("--jobs", type=int, default=1, help="models measured at a time")
    parser.add_argument("--out", type=Path, help="file of JSON lines; models in it are not measured again")
    parser.add_argument("--again", action="store_true", help="measure models that are in --out again")
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of what is kept")
    parser.add_argument("--step-seconds", type=int, default=Limits.step, help="limit for one check (%(default)s)")
    parser.add_argument("--seconds", type=int, default=Limits.total, help="limit for one model (%(default)s)")
    parser.add_argument("--memory", type=int, default=Limits.memory, help="limit for one model, GiB (%(default)s)")
    parser.add_argument("--threads", type=int, default=Limits.threads, help="of each model (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
