"""Where a search's time goes: how much of what the workers could have used was spent inside trials, and on what.

    python -m autoprune.analysis.benchmarks.search_overhead DATA --table FILE.md [--minutes 10] [--images 16000]
        [--set KEY=VALUE ...]

DATA is a folder with cifar10.npz and weights/resnet20_cifar10.safetensors. A search of `cifar10_resnet20` with recipes
of `--images` training images runs on Ray as its users run it, in this process, so that the driver can be profiled
meanwhile. Everything is read from the study folder, but the driver's functions. The span is that of the whole command:
from its first line, with loading task and model and starting Ray, to its last.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import autoprune
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.study.outcome import Outcome
from autoprune.study.progress import StudyProgress

SPACE = "cifar10_resnet20"
#: What the driver does for a trial, by file and function: everything else in its loop is Tune's own or waiting.
DRIVER = {
    "propose (Optuna)": ("proposer.py", "next"),
    "learn from an outcome (Optuna)": ("proposer.py", "tell"),
    "note an outcome, learning included": ("session.py", "ended"),
    "Tune's loop, all of this and waiting included": ("tune_controller.py", "step"),
}


@dataclass(frozen=True)
class Spans:
    """Worker seconds of one search.

    Fields:
        workers: how many there were.
        wall: seconds of the whole command.
        trials: legs that ran, and the median of their seconds.
        inside: by stage of the trial.
        handing: in a leg, but in no stage: what a paused trial goes on from, models, outcomes.
        between: from one leg's end to the next one's start on the same worker.
        before: to the first leg of each worker.
        after: from the last leg of each worker.
    """

    workers: int
    wall: float
    trials: int
    median: float
    inside: dict[str, float]
    handing: float
    between: float
    before: float
    after: float

    @property
    def outside(self) -> float:
        """Share of the workers' time that was spent outside trials."""
        return 1 - sum(self.inside.values()) / (self.workers * self.wall)


def spans(outcomes: Sequence[Outcome], began: float, ended: float) -> Spans:
    """Where the time from `began` to `ended` went, both in seconds since the study began."""
    lanes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for interval in (interval for outcome in outcomes for interval in outcome.run_intervals if interval.worker):
        lanes[interval.worker].append((interval.started, interval.finished))
    inside: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        for stage, seconds in outcome.seconds.items():
            inside[stage] += seconds
    legs = [finish - start for lane in lanes.values() for start, finish in lane]
    return Spans(
        workers=len(lanes),
        wall=ended - began,
        trials=len(legs),
        median=statistics.median(legs),
        inside=dict(inside),
        handing=sum(legs) - sum(inside.values()),
        between=sum(two[0] - one[1] for lane in lanes.values() for one, two in pairwise(sorted(lane))),
        before=sum(min(lane)[0] - began for lane in lanes.values()),
        after=sum(ended - max(finish for _, finish in lane) for lane in lanes.values()),
    )


def page(found: Spans, driver: dict[str, tuple[int, float]], images: int, load: float) -> str:
    """Markdown."""
    lines = [_page_head(found, images, load), *table_head(["what", "worker seconds", "share"])]
    total = found.workers * found.wall
    lines += [
        table_row([what, f"{spent:.1f}", f"{spent / total:.1%}"]) for what, spent in _seconds_by_use(found).items()
    ]
    lines += ["", *table_head(["the driver's own time, beside the workers", "calls", "seconds", "ms a call"])]
    for what, (calls, seconds) in driver.items():
        lines.append(table_row([what, calls, f"{seconds:.2f}", f"{1000 * seconds / calls:.1f}"]))
    return "\n".join(lines)


def _page_head(found: Spans, images: int, load: float) -> str:
    return (
        "# Where a search's time goes\n\n"
        f"`python -m autoprune.analysis.benchmarks.search_overhead`; {describe_machine()}; "
        f"{datetime.now(UTC):%Y-%m-%d}; load before {load:.1f}.\n"
        f"{SPACE} with {images:,} images a recipe: {found.trials} legs, each a trial of Tune's, median "
        f"{found.median:.1f} s, on {found.workers} workers;\nthe command took {found.wall:.0f} s. "
        f"Outside trials: {found.outside:.1%} of the workers' time.\n"
    )


def _seconds_by_use(found: Spans) -> dict[str, float]:
    stages = sorted(found.inside.items(), key=lambda item: -item[1])
    return {
        **{f"inside trials: {stage}": seconds for stage, seconds in stages},
        "inside legs: what a paused recipe goes on from, models": found.handing,
        "between legs": found.between,
        "before the first leg: Python, task, dense model, Ray, workers": found.before,
        "after the last leg: the other worker, Ray's end": found.after,
    }


class Clock:
    """A view that shows nothing and notes when the study's clock was at zero."""

    origin = 0.0

    def say(self, text: str) -> None:
        """Nothing of it is timed."""

    def update(self, progress: StudyProgress) -> None:
        """Compare both clocks."""
        self.origin = time.time() - progress.seconds

    def close(self) -> None:
        """Nothing to take down."""


def driver_times(profile: cProfile.Profile) -> dict[str, tuple[int, float]]:
    """Calls and seconds of the driver's functions, their callees included."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = {(Path(file).name, name): (calls, total) for (file, _, name), (_, calls, _, total, _) in stats.items()}
    return {what: found[where] for what, where in DRIVER.items() if where in found}


def main() -> None:
    """Run the search and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    os.environ["AUTOPRUNE_DATA"] = str(args.data)
    load, profile = os.getloadavg()[0], cProfile.Profile()
    overrides = [f"space.training.images={args.images}", *args.set]
    clock, began = Clock(), time.time()
    with tempfile.TemporaryDirectory() as folder, profile:
        out = Path(folder) / "study"
        study = autoprune.search(SPACE, out=out, minutes=args.minutes, overrides=overrides, view=clock)
    found = spans(study.outcomes, began - clock.origin, time.time() - clock.origin)
    write_measured(args.table, page(found, driver_times(profile), args.images, load))


if __name__ == "__main__":
    main()
