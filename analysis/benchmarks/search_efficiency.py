"""A search of ours beside a loop of Torch-Pruning and Optuna, and beside itself with parts left out.

    python -m autoprune.analysis.benchmarks.search_efficiency DATA --glue GLUE.py --out RUNS.jsonl
        [--network resnet20] [--minutes 10] [--seeds 0 1 2] [--sides ours "glue --fast" ...] [--table FILE.md]

DATA is a folder with cifar10.npz and weights/NETWORK_cifar10.safetensors; GLUE.py is the loop, which takes `--arch`,
`--weights`, `--minutes`, `--seed`, `--fast` and `--out` and writes seconds, accuracy and cost ratio of every trial.
Both sides start from the same weights, train on the same images, are scored on the same 5,000 test images, and run
as processes of their own on the same machine, one after the other, seed by seed. Both clocks start when data and model
are loaded and the dense model is scored; ours runs while Ray and its workers start. A run is a line of RUNS.jsonl as
soon as it has ended, and is not made again.

Further sides of ours: parts left out (`SIDES`), one method of the space alone (`only l1`), and a search that is killed
without warning at random moments and resumed (`killed`).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.study.folder import Study, load_study
from autoprune.study.log import append_line, read_lines
from autoprune.study.pareto import hypervolume
from autoprune.study.space_file import load_space

GLUE = "glue --fast"
#: Our side, whole and with parts left out: what is set on the command line beside the ready space.
SIDES: dict[str, tuple[str, ...]] = {
    "ours": (),
    "without cascade": ("cascade.keep=1",),
    "without warm start": ("sampler.warm_start=false",),
    "random sampler": ("sampler.name=random",),
    "without sharing": ("share=false",),
}
ONLY = "only "
KILLED = "killed"
#: How often a search is killed, and the seconds after which, drawn between these, from the start of each process. The
#: least is long enough for the study folder to be there.
KILLS, SHORTEST, LONGEST = 3, 60.0, 240.0
LIMITS = (0.5, 0.3)
#: How far below the least end of ours the second panel of a figure begins.
CLOSER = 0.04


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process.

    Fields:
        points: (seconds, cost ratio, accuracy) of every trial that ran to its end, in that order.
        wall: seconds of the whole process.
        busy: share of the workers' time spent inside trials, from the first start to the last end; None for the loop
            and for a search that was killed.
        counts: trials by how they ended.
        load: of the machine in the minute before.
    """

    side: str
    network: str
    minutes: float
    seed: int
    points: tuple[tuple[float, float, float], ...]
    wall: float
    busy: float | None
    counts: dict[str, int]
    machine: str
    date: str
    load: float

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(seconds, hypervolume so far) after every trial."""
        rows = [(flops, -accuracy) for _, flops, accuracy in self.points]
        return [(second, hypervolume(rows[: n + 1])) for n, (second, _, _) in enumerate(self.points)]

    @property
    def volume(self) -> float:
        """Hypervolume at the end, against cost ratio 1 and accuracy 0."""
        return self.curve[-1][1] if self.points else 0.0

    def best(self, limit: float) -> float:
        """The highest accuracy at most at this cost ratio."""
        return max((accuracy for _, flops, accuracy in self.points if flops <= limit), default=0.0)

    def reaches(self, volume: float) -> float | None:
        """Seconds until the hypervolume is that large; None = never."""
        return next((second for second, now in self.curve if now >= volume), None)


# ---- running ---------------------------------------------------------------------------------------------------------


def run_ours(side: str, data: Path, network: str, minutes: float, seed: int) -> dict[str, Any]:
    """A search by its command."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "study")
        autoprune, environment = [sys.executable, "-m", "autoprune"], {"AUTOPRUNE_DATA": str(data)}
        settings = [f"seed={seed}", *settings_of(side, network)]
        command = [*autoprune, "search", f"cifar10_{network}", "--minutes", str(minutes), "--out", out]
        command += [word for setting in settings for word in ("--set", setting)]
        if side == KILLED:
            draw = random.Random(seed)
            for _ in range(KILLS):
                _kill_after(draw.uniform(SHORTEST, LONGEST), command, environment)
                command = [*autoprune, "resume", out]
        _run_command(command, environment)
        found = describe(load_study(out))
        return {**found, "busy": None} if side == KILLED else found  # in it the time of the dead would count


def settings_of(side: str, network: str) -> tuple[str, ...]:
    """The settings of a side beside the ready space."""
    if side.startswith(ONLY):
        method = side.removeprefix(ONLY)
        return (f"space.method.choice={json.dumps({method: methods_of(network)[method]})}",)
    return SIDES.get(side, ())


def methods_of(network: str) -> dict[str, Any]:
    """The methods of a ready space: name -> its searched hyper-parameters."""
    plain = load_space(f"cifar10_{network}", find_method=methods.find).to_plain()
    return dict(plain["space"]["method"]["choice"])


def describe(study: Study) -> dict[str, Any]:
    """Points, counts and the share of busy time of a study."""
    searched = [outcome for outcome in study.outcomes if outcome.recipe.method.name != "dense"]
    ended = sorted((outcome for outcome in searched if outcome.completed), key=lambda outcome: outcome.finished)
    points = [(outcome.finished, outcome.flops_ratio, outcome.accuracy) for outcome in ended]
    counts = {status: sum(o.status == status for o in study.outcomes) for status in ("completed", "stopped", "failed")}
    workers = {outcome.worker for outcome in study.outcomes if outcome.worker}
    span = max(o.finished for o in study.outcomes if o.completed) - min(o.started for o in study.outcomes)
    inside = sum(sum(outcome.seconds.values()) for outcome in study.outcomes)
    return {"points": points, "counts": counts, "busy": inside / (span * max(1, len(workers)))}


def run_glue(glue: Path, data: Path, network: str, minutes: float, seed: int) -> dict[str, Any]:
    """The loop by its command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.csv"
        command = [
            sys.executable,
            str(glue),
            "--arch",
            network,
            "--minutes",
            str(minutes),
            "--seed",
            str(seed),
            "--fast",
        ]
        command += ["--weights", str(data / "weights" / f"{network}_cifar10.safetensors"), "--out", str(out)]
        _run_command(command, {})
        with out.open() as file:
            rows = [(float(r["seconds"]), float(r["macs_ratio"]), float(r["accuracy"])) for r in csv.DictReader(file)]
    return {"points": rows, "counts": {"completed": len(rows)}, "busy": None}


def _kill_after(seconds: float, command: Sequence[str], environment: dict[str, str]) -> None:
    """Start a command, and kill it with its whole process group before it can print anything."""
    process = subprocess.Popen(  # noqa: S603
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    else:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode} before it was to be killed")


def _run_command(command: Sequence[str], environment: dict[str, str]) -> None:
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed with {result.returncode}:\n{result.stderr[-2000:]}")


def measure(side: str, options: argparse.Namespace, seed: int) -> Run:
    """One run of one side."""
    load, began = os.getloadavg()[0], time.monotonic()
    where = (options.data, options.network, options.minutes, seed)
    found = run_glue(options.glue, *where) if side == GLUE else run_ours(side, *where)
    return Run(
        side=side,
        network=options.network,
        minutes=options.minutes,
        seed=seed,
        wall=time.monotonic() - began,
        machine=describe_machine(),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        load=load,
        **found,
    )


def read_runs(file: Path) -> list[Run]:
    """The runs that a file holds."""
    plain = [json.loads(line) for _, line in read_lines(file)]
    return [Run(**{**row, "points": tuple(map(tuple, row["points"]))}) for row in plain]


# ---- the page --------------------------------------------------------------------------------------------------------


def page(runs: Sequence[Run]) -> str:
    """All runs as Markdown: per network what every side reached, and how long it took to reach the loop's end."""
    lines = ["# A search beside an evening's loop, and beside itself with parts left out", "", _page_head(runs)]
    for network in dict.fromkeys(run.network for run in runs):
        of_network = [run for run in runs if run.network == network]
        lines += ["", f"## {network}, {of_network[0].minutes:g} minutes a run", "", *_network_table(of_network)]
        lines += ["", f"![hypervolume over time, {network}](search_efficiency_{network}.svg)"]
    return "\n".join(lines)


def _page_head(runs: Sequence[Run]) -> str:
    loads = [run.load for run in runs]
    return (
        f"`python -m autoprune.analysis.benchmarks.search_efficiency`; {runs[0].machine};\n"
        f"{min(run.date for run in runs)} to {max(run.date for run in runs)} UTC; load before a run "
        f"{min(loads):.1f} to {max(loads):.1f}.\nAccuracy on the 5,000 images that recipes are selected by; "
        "hypervolume against FLOPs ratio 1 and accuracy 0.\nMean and range over seeds. Reached: seconds until the "
        "hypervolume was what the loop of the same seed had at its\nend, and as a share of the loop's own time for it. "
        "Busy: share of workers' time inside trials, from the first start to\n"
        "the last end. Command: seconds from the start of the process to its end."
    )


def _network_table(runs: Sequence[Run]) -> list[str]:
    glue = {run.seed: run for run in runs if run.side == GLUE}
    limits = (f"at <= {limit:.0%} FLOPs" for limit in LIMITS)
    ends = ("reached", "of the loop's time", "busy", "command")
    lines = table_head(["side", "seeds", "completed", "stopped", "hypervolume", *limits, *ends])
    for side in dict.fromkeys(run.side for run in runs):
        lines.append(_side_row(side, [run for run in runs if run.side == side], glue))
    return lines


def _side_row(side: str, runs: Sequence[Run], glue: dict[int, Run]) -> str:
    pairs = [(run, glue[run.seed]) for run in runs if run.seed in glue]
    times = [(run.reaches(loop.volume), loop.reaches(loop.volume)) for run, loop in pairs]
    reached = [(ours, ours / theirs) for ours, theirs in times if ours is not None and theirs]
    missed = f", {len(times) - len(reached)} never" if len(times) > len(reached) else ""
    cells = [
        side,
        ", ".join(str(run.seed) for run in runs),
        _mean_and_range([run.counts.get("completed", 0) for run in runs], "{:.0f}"),
        _mean_and_range([run.counts.get("stopped", 0) for run in runs], "{:.0f}"),
        _mean_and_range([run.volume for run in runs], "{:.4f}"),
        *(
            _mean_and_range([100 * best for run in runs if (best := run.best(limit))], "{:.2f} %") or "none"
            for limit in LIMITS
        ),
        (_mean_and_range([seconds for seconds, _ in reached], "{:.0f} s") + missed) if times else "",
        _mean_and_range([share for _, share in reached], "{:.0%}") if times else "",
        _mean_and_range([run.busy for run in runs if run.busy is not None], "{:.1%}"),
        _mean_and_range([run.wall for run in runs], "{:.0f} s"),
    ]
    return table_row(cells)


def _mean_and_range(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    mean = form.format(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


def draw(runs: Sequence[Run], folder: Path) -> None:
    """A figure per network: hypervolume over time, a line per run of ours, whole or without a part, and of the loop."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    plt.rcParams.update({"svg.hashsalt": "autoprune", "svg.fonttype": "none", "figure.figsize": (11, 4.2)})
    drawn = [run for run in runs if run.side in (*SIDES, GLUE)]
    for network in dict.fromkeys(run.network for run in drawn):
        of_network = [run for run in drawn if run.network == network]
        figure, (whole, end) = plt.subplots(1, 2, layout="constrained")
        for axis in (whole, end):
            _draw_curves(axis, of_network)
        whole.set(ylabel="hypervolume", title=f"{network}, CIFAR-10")
        ours = [run.volume for run in of_network if run.side != GLUE]
        if ours:
            end.set(ylim=(min(ours) - CLOSER, max(ours) + CLOSER / 10), title="the same, closer")
        whole.legend()
        figure.savefig(folder / f"search_efficiency_{network}.svg", metadata={"Date": None})
        plt.close(figure)


def _draw_curves(axis: Any, runs: Sequence[Run]) -> None:
    for number, side in enumerate(dict.fromkeys(run.side for run in runs)):
        for turn, run in enumerate(run for run in runs if run.side == side):
            seconds, volumes = np.array([(0.0, 0.0), *run.curve]).T
            style = {"color": f"C{number}", "linestyle": "--" if side == GLUE else "-", "where": "post"}
            axis.step(seconds / 60, volumes, label=side if turn == 0 else None, **style)
    axis.set(xlabel="minutes")


# ---- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run what is missing, and write page and figures."""
    options = _parse_arguments()
    for seed in options.seeds:
        for side in options.sides:
            wanted = (side, options.network, options.minutes, seed)
            known = read_runs(options.out) if options.out.exists() else []
            if wanted in [(run.side, run.network, run.minutes, run.seed) for run in known]:
                continue
            run = measure(side, options, seed)
            append_line(options.out, json.dumps(asdict(run)))
            print(f"{side}, seed {seed}: hypervolume {run.volume:.4f}, {run.counts}, busy {run.busy}", flush=True)
    if options.table is not None:
        runs = read_runs(options.out)
        write_measured(options.table, page(runs))
        draw(runs, options.table.parent)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--glue", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="resnet20", choices=("resnet20", "resnet56"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sides", nargs="+", default=["ours", GLUE])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    sides = (*SIDES, GLUE, KILLED, *(f"{ONLY}{method}" for method in methods_of(options.network)))
    if unknown := [side for side in options.sides if side not in sides]:
        parser.error(f"--sides {unknown[0]!r}: allowed are {', '.join(sides)}")
    if GLUE in options.sides and options.glue is None:
        parser.error("the loop needs --glue GLUE.py")
    return options


if __name__ == "__main__":
    main()
