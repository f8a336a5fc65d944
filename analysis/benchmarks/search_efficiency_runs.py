"""The sides of the benchmark of whole searches: ours, parts of it left out, and opponents; each a process of its own.

Every side starts from the same weights, trains on the same images and is scored on the same 5,000 test images. The
clocks start when data and model are loaded and the dense model is scored (`iterative`, `expert` and the plain chain:
before their workers start); ours runs while Ray and its workers start. On the 5,000 test images that nothing was
selected by, the models of the front are measured after the end: those of ours, and those of both chains. The other
opponents keep no models.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import describe_machine
from autoprune.engine.surgery import artifact
from autoprune.errors import InputError
from autoprune.study.folder import Study, load_study
from autoprune.study.log import read_lines
from autoprune.study.pareto import hypervolume, mean_height
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.timing.machine import machine_name
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime

GLUE, EXPERT, ITERATIVE = "glue --fast", "expert", "iterative"
PLAIN_CHAIN, TORCH_PRUNING = "plain chain", "Torch-Pruning's chain"
#: Files of the folder with opponents that other tools are made of, and what they are called with.
BASELINES: dict[str, tuple[str, tuple[str, ...]]] = {
    GLUE: ("glue.py", ("--fast",)),
    EXPERT: ("expert.py", ("--workers", "2")),
    ITERATIVE: ("iterative.py", ("--workers", "2")),
}
OPPONENTS = (*BASELINES, PLAIN_CHAIN, TORCH_PRUNING)
#: What is set on a GPU beside the ready space of two cores, and what `iterative` is called with there.
ON_GPU = ("resources.gpus_per_trial=auto", "resources.workers=null", "resources.cpus_per_trial=2")
ITERATIVE_ON_GPU = ("--workers", "8", "--device", "cuda")
#: Our side, whole and otherwise: what is set on the command line beside the ready space. A variant of the search is a
#: line here.
SIDES: dict[str, tuple[str, ...]] = {
    "ours": (),
    "without lineages": ("space.weights=trained", "space.training.images=32000"),
    "one length": ("space.training.images=32000",),
    "with cascade": ("cascade.keep=0.5", "space.training.rungs=[0.5, 1]"),
    "without warm start": ("sampler.warm_start=false",),
    "random sampler": ("sampler.name=random",),
    "without sharing": ("share=false",),
}
ONLY = "only "
#: Ours, but for how parents and targets are chosen.
CURVE_POLICY = "curve policy"
KILLED = "killed"
#: How often a search is killed, and the seconds after which, drawn between these, from the start of each process. The
#: least is long enough for the study folder to be there.
KILLS, SHORTEST, LONGEST = 3, 60.0, 240.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process.

    Fields:
        points: (seconds, cost ratio, accuracy) of every trial that ran to its end, in that order.
        wall: seconds of the whole process.
        busy: share of the workers' time spent inside trials, from the first start to the last end; None for opponents
            and for a search that was killed.
        counts: trials by how they ended.
        load: of the machine in the minute before.
        settings: of an opponent that has some.
        device: where models were trained.
        unseen: (cost ratio, accuracy on images that nothing was selected by) of the front's models; None for opponents
            that keep no models.
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
    settings: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    unseen: tuple[tuple[float, float], ...] | None = None

    @property
    def in_time(self) -> tuple[tuple[float, float, float], ...]:
        """Points that were there when the minutes were over: a search lets trials that run then come to their end."""
        return tuple(point for point in self.points if point[0] <= 60 * self.minutes)

    @property
    def rows(self) -> NDArray[np.float64]:
        """Points in time as `study.pareto` takes them, shape (n, 2)."""
        return np.array([(flops, -accuracy) for _, flops, accuracy in self.in_time]).reshape(-1, 2)

    @property
    def unseen_rows(self) -> NDArray[np.float64] | None:
        """The same of the images that nothing was selected by."""
        if self.unseen is None:
            return None
        return np.array([(flops, -accuracy) for flops, accuracy in self.unseen]).reshape(-1, 2)

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(seconds, hypervolume so far) after every trial."""
        rows = self.rows
        return [(second, hypervolume(rows[: n + 1])) for n, (second, _, _) in enumerate(self.in_time)]

    @property
    def volume(self) -> float:
        """Hypervolume at the end, against cost ratio 1 and accuracy 0."""
        return hypervolume(self.rows)

    @property
    def height(self) -> float:
        """Mean height at the end, over costs from 10 to 100 %."""
        return mean_height(self.rows)

    def best(self, limit: float) -> float:
        """The highest accuracy at most at this cost ratio."""
        return max((accuracy for _, flops, accuracy in self.in_time if flops <= limit), default=0.0)

    def reaches(self, volume: float) -> float | None:
        """Seconds until the hypervolume is that large; None = never."""
        return next((second for second, now in self.curve if now >= volume), None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run.

    Fields:
        data: folder with cifar10.npz and weights/.
        baselines: folder with the files of `BASELINES`; None = none of these sides is run.
        python: the interpreter that runs those files and Torch-Pruning's chain, for which it has this package too.
        cuts: of a chain of `iterative`, or of Torch-Pruning's.
        chain: settings of the plain chain, by the names of its options.
        device: `cpu`, or `cuda` for ours and for `iterative`.
    """

    side: str
    network: str
    minutes: float
    seed: int
    data: Path
    baselines: Path | None = None
    python: str = sys.executable
    cuts: int = 7
    chain: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def settings(self) -> dict[str, float]:
        """Those of the settings that concern this side."""
        cuts = {"cuts": self.cuts}
        return {ITERATIVE: cuts, TORCH_PRUNING: cuts, PLAIN_CHAIN: self.chain}.get(self.side, {})

    def is_of(self, run: Run) -> bool:
        """Whether the run is what is planned here."""
        mine = (self.side, self.network, self.minutes, self.seed, self.settings, self.device)
        return mine == (run.side, run.network, run.minutes, run.seed, run.settings, run.device)


def measure(plan: Plan) -> Run:
    """One run of one side."""
    load = os.getloadavg()[0]
    found = run_opponent(plan) if plan.side in OPPONENTS else run_ours(plan)
    return Run(
        side=plan.side,
        network=plan.network,
        minutes=plan.minutes,
        seed=plan.seed,
        settings=plan.settings,
        device=plan.device,
        machine=describe_machine() if plan.device == "cpu" else machine_name(plan.device),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        load=load,
        **found,
    )


def read_runs(file: Path) -> list[Run]:
    """The runs that a file holds."""
    return [_run_of(json.loads(line)) for _, line in read_lines(file)]


def _run_of(plain: dict[str, Any]) -> Run:
    unseen = plain.get("unseen")
    as_tuples = {"points": tuple(map(tuple, plain["points"]))}
    return Run(**{**plain, **as_tuples, "unseen": None if unseen is None else tuple(map(tuple, unseen))})


# ---- ours ------------------------------------------------------------------------------------------------------------


def run_ours(plan: Plan) -> dict[str, Any]:
    """A search by its command; `wall` ends with it, before the models of its front are measured on unseen images."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = str(Path(folder) / "study"), time.monotonic()
        module = "autoprune.analysis.benchmarks.curve_policy" if plan.side == CURVE_POLICY else "autoprune"
        autoprune = [sys.executable, "-m", module]
        on_gpu = ON_GPU if plan.device == "cuda" else ()
        settings = [f"seed={plan.seed}", *settings_of(plan.side, plan.network), *on_gpu]
        command = [*autoprune, "search", f"cifar10_{plan.network}", "--minutes", str(plan.minutes), "--out", out]
        command += [word for setting in settings for word in ("--set", setting)]
        if plan.side == KILLED:
            draw = random.Random(plan.seed)
            for _ in range(KILLS):
                _kill_after(draw.uniform(SHORTEST, LONGEST), command)
                command = [*autoprune, "resume", out]
        _run_command(command)
        wall, study = time.monotonic() - began, load_study(out)
        found = {**describe(study), "wall": wall, "unseen": measure_unseen(study)}
        return {**found, "busy": None} if plan.side == KILLED else found  # in it the time of the dead would count


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
    points = tuple((outcome.finished, outcome.flops_ratio, outcome.accuracy) for outcome in ended)
    counts = {status: sum(o.status == status for o in study.outcomes) for status in ("completed", "stopped", "failed")}
    workers = {outcome.worker for outcome in study.outcomes if outcome.worker}
    span = max(o.finished for o in study.outcomes if o.completed) - min(o.started for o in study.outcomes)
    inside = sum(sum(outcome.seconds.values()) for outcome in study.outcomes)
    return {"points": points, "counts": counts, "busy": inside / (span * max(1, len(workers)))}


def measure_unseen(study: Study) -> tuple[tuple[float, float], ...]:
    """(cost ratio, accuracy on the task's test split) of the models of a study's front, by rising cost.

    The front is chosen by the images of the search; none of these models was chosen by the test split. The data are
    found by $AUTOPRUNE_DATA, which the command sets.
    """
    task = load_task(study.config["task"])
    found = []
    for member in study.front:
        model = artifact.load(study.folder.models / str(member.id), task.build)
        found.append((float(member.flops_ratio or 0.0), evaluate(model, task.test, task, Runtime(channels_last=True))))
    return tuple(found)


# ---- opponents -------------------------------------------------------------------------------------------------------


def run_opponent(plan: Plan) -> dict[str, Any]:
    """An opponent by its command; each writes a CSV with a row per model."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "rows.csv", time.monotonic()
        _run_command([*opponent_command(plan), "--out", str(out)])
        return {**read_opponent(out), "wall": time.monotonic() - began, "busy": None}


def opponent_command(plan: Plan) -> list[str]:
    """The command of an opponent, but for where its rows go.

    Raises:
        InputError: the side is a file of `BASELINES`, and there is no folder with it; or it knows no GPU.
    """
    if plan.device == "cuda" and plan.side != ITERATIVE:
        raise InputError(f"{plan.side!r} runs on the CPU", where="device", allowed=f"cuda for ours and {ITERATIVE!r}")
    common = ["--minutes", str(plan.minutes), "--seed", str(plan.seed)]
    settings = [word for name, value in plan.settings.items() for word in (f"--{name}", str(value))]
    if plan.side in (PLAIN_CHAIN, TORCH_PRUNING):
        python = sys.executable if plan.side == PLAIN_CHAIN else plan.python
        program = [python, "-m", "autoprune.analysis.benchmarks.plain_chain", str(plan.data)]
        return [*program, "--network", plan.network, *common, *settings]
    if plan.baselines is None:
        raise InputError(f"{plan.side!r} is a file of other tools", where="--baselines", allowed="a folder with it")
    file, options = BASELINES[plan.side]
    if plan.device == "cuda":
        options = ITERATIVE_ON_GPU
    weights = plan.data / "weights" / f"{plan.network}_cifar10.safetensors"
    program = [plan.python, str(plan.baselines / file), "--arch", plan.network, "--weights", str(weights)]
    return [*program, *common, *options, *settings]


def read_opponent(file: Path) -> dict[str, Any]:
    """Points and counts of an opponent's CSV; `unseen` if it has that column, of the rows that have a value in it."""
    with file.open() as lines:
        reader = csv.DictReader(lines)
        rows, columns = list(reader), reader.fieldnames or ()
    points = tuple((float(row["seconds"]), float(row["macs_ratio"]), float(row["accuracy"])) for row in rows)
    measured = tuple((float(row["macs_ratio"]), float(row["unseen"])) for row in rows if row.get("unseen"))
    unseen = measured if "unseen" in columns else None
    return {"points": tuple(sorted(points)), "counts": {"completed": len(rows)}, "unseen": unseen}


# ---- processes -------------------------------------------------------------------------------------------------------


def _kill_after(seconds: float, command: Sequence[str]) -> None:
    """Start a command, and kill it with its whole process group before it can print anything."""
    process = subprocess.Popen(  # noqa: S603
        command,
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


def _run_command(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed with {result.returncode}:\n{result.stderr[-2000:]}")
