"""How busy many slots are kept: searches on a real Ray whose trials sleep instead of training.

    python -m autoprune.analysis.benchmarks.slots ROWS.jsonl [--slots 8 64 256] [--lanes 1 16 16] [--seconds 5]
        [--trials 20] [--samplers random tpe] [--one-by-one] [--proposals 100 1000 10000] [--page PAGE.md]

A slot stands for a GPU. So many do not fit on a small machine as processes, so a process has several lanes, threads
that each take segments from the queue as a worker of its own would: what is measured is the driver, the sampler, the
queue and the messages, not the start of hundreds of processes. `--one-by-one` measures Tune trials for every segment,
as few workers have them; then every slot is a process. A slot runs `--trials` trials on average. `--proposals 100 1000`
measures instead what a proposal costs in studies of so many trials: the sampler's answer, and what it learns from the
outcome. A row is appended to ROWS as soon as it is measured; the page is made of all rows.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.search.on_ray.driver import run_on_tune
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.search.on_ray.feeder import Feeder
from autoprune.search.on_ray.pool import run_workers
from autoprune.search.on_ray.room import Room
from autoprune.search.on_ray.segment_queue import start_segment_queue
from autoprune.search.proposing.proposer import Proposer
from autoprune.search.running.evaluator import Evaluation, Report
from autoprune.search.running.limits import Limits
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.search.running.session import Session
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.config import Budget, Resources, Sampler, StudyConfig
from autoprune.study.folder import StudyFolder
from autoprune.study.log import append_line, read_lines
from autoprune.study.outcome import Outcome, Proposal, Rung
from autoprune.study.space import Space
from autoprune.trial.cache import Store

PAGE = Path(__file__).with_suffix(".md")
#: Proposals that are timed at each size of a study.
ASKED = 21
GROUPS = [("stem", 0), ("layer1.0.conv1", 1), ("layer2.0.conv1", 2), ("layer3.0.conv1", 3)]
SPACE: dict[str, Any] = {
    "method": {"choice": {name: {} for name in ("l1", "l2", "fpgm", "taylor")}},
    "target": {"flops": {"float": [0.1, 0.8]}},
    "allocation": {"choice": {"uniform": {}, "ratios": {"ratios": {"each": "stage", "float": [0.1, 1]}}}},
    "training": {"images": 1000, "rungs": [0.0, 1.0], "lr": {"float": [0.001, 0.1], "log": True}},
}


@dataclass(frozen=True)
class Sleeper:
    """Sleeps for so many seconds; the accuracy is a formula of the recipe."""

    clock: StudyClock
    seconds: float

    def run(self, proposal: Proposal, report: Report, scratch: Path | None, parent: Path | None) -> Evaluation:
        """An outcome as a training would give it."""
        began = self.clock.now()
        time.sleep(self.seconds)
        return Evaluation(outcome=made_up_outcome(proposal, began, self.clock.now()))


def made_up_outcome(proposal: Proposal, started: float, finished: float) -> Outcome:
    """A completed trial; accuracy falls with the cost, and with luck, so that the front is as small as real ones."""
    recipe, seconds = proposal.recipe, finished - started
    flops = recipe.target.flops or 1.0
    metric = flops**0.5 * random.Random(proposal.id).uniform(0.8, 1.0)
    return Outcome(
        id=proposal.id,
        recipe=recipe,
        status="completed",
        metric=metric,
        flops_ratio=flops,
        params_ratio=flops,
        activations_ratio=flops,
        rungs=(Rung(share=1.0, images=recipe.training.images, metric=metric, seconds=seconds),),
        seconds={"finetune": seconds},
        started=started,
        finished=finished,
        control=proposal.control,
    )


@dataclass(frozen=True)
class OpenSleeper:
    """Builds a sleeper in a worker."""

    seconds: float

    def __call__(self, clock: StudyClock, _store: Store | None = None) -> Sleeper:
        """The sleeper, on the study's clock."""
        return Sleeper(clock, self.seconds)


class Lanes(tune.Trainable):
    """A process in which so many threads take segments, each as a worker of its own."""

    def setup(self, config: dict[str, Any], segments: Any, clock: StudyClock, seconds: float, lanes: int) -> None:
        """Take what all workers are given."""
        self.name, self.segments, self.clock, self.lanes = config["worker"], segments, clock, lanes
        self.sleeper = Sleeper(clock, seconds)

    def step(self) -> dict[str, Any]:
        """Run what the queue has."""
        threads = [threading.Thread(target=self._take, args=(f"{self.name}-{lane}",)) for lane in range(self.lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"done": True}

    def _take(self, name: str) -> None:
        result: dict[str, Any] | None = None
        while (taken := ray.get(self.segments.next.remote(name, result))) is not None:
            segment = TrialSegment.from_plain(taken)
            done = run_segment(self.sleeper, segment, lambda *_: True, self.clock, Path(), None, name)
            result = {"outcome": done.outcome.to_json()}


@dataclass(frozen=True, kw_only=True)
class SlotsRow:
    """How busy the slots of one search were.

    Fields:
        how: `queue` or `one by one`.
        seconds: of a trial.
        busy: share of the slots' time between the first start and the last end that trials had.
        steady: the same of the middle 60 % of that time.
        start: seconds from the first start to that of the last slot's first trial.
        driver_ms: processor time of the driver, per trial. `driver_mb`: its memory at the end.
    """

    slots: int
    lanes: int
    how: str
    sampler: str
    seconds: float
    trials: int
    busy: float
    steady: float
    start: float
    driver_ms: float
    driver_mb: float
    machine: str


def measure(slots: int, lanes: int, seconds: float, trials: int, sampler: str, *, one_by_one: bool) -> SlotsRow:
    """Run one search and say how busy the slots were."""
    processes = slots // lanes
    config = StudyConfig(
        task={},
        space=Space.read(SPACE),
        budget=Budget(trials=trials),
        resources=Resources(workers=processes),
        sampler=Sampler(name=sampler),
    )
    before = _processor_seconds()
    with tempfile.TemporaryDirectory(prefix="autoprune-slots-") as folder:
        session = _open_session(config, Path(folder))
        with RayExecutor(config.resources) as executor:
            executor.wait_until_ready()
            if one_by_one:
                run_on_tune(session, OpenSleeper(seconds), Room(lambda: processes), executor.folder)
            else:
                _run_lanes(session, processes, lanes, seconds, executor.folder)
    return SlotsRow(
        slots=slots,
        lanes=lanes,
        how="one by one" if one_by_one else "queue",
        sampler=sampler,
        seconds=seconds,
        trials=len(session.outcomes),
        **shares(session.outcomes, slots),
        driver_ms=1000 * (_processor_seconds() - before) / trials,
        driver_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        machine=describe_machine(),
    )


def shares(outcomes: Sequence[Outcome], slots: int) -> dict[str, float]:
    """`busy`, `steady` and `start` of a row."""
    legs = [leg for outcome in outcomes for leg in outcome.legs]
    first, last = min(leg.started for leg in legs), max(leg.finished for leg in legs)
    firsts: dict[str, float] = {}
    for leg in legs:
        firsts[leg.worker] = min(leg.started, firsts.get(leg.worker, leg.started))
    inner = first + 0.2 * (last - first), last - 0.2 * (last - first)
    return {
        "busy": _covered(legs, first, last) / (slots * (last - first)),
        "steady": _covered(legs, *inner) / (slots * (inner[1] - inner[0])),
        "start": max(firsts.values()) - first,
    }


@dataclass(frozen=True, kw_only=True)
class ProposalRow:
    """What a proposal costs in a study of so many trials: milliseconds of processor time, median of `ASKED`."""

    sampler: str
    trials: int
    ms: float
    machine: str


def measure_proposals(sampler: str, sizes: Sequence[int]) -> list[ProposalRow]:
    """A row for each size, of one growing study whose first trials were drawn at random."""
    space, rows = Space.read(SPACE).bind(GROUPS), []
    drawn = Proposer(space, sampler=Sampler(name="random"), dense_metric=0.9375)
    proposals: list[Proposal] = []
    for size in sorted(sizes):
        proposals += [drawn.next() for _ in range(size - len(proposals))]
        outcomes = [made_up_outcome(proposal, 0.0, 1.0) for proposal in proposals]
        settings = Sampler(name=sampler)
        known = Proposer(space, sampler=settings, dense_metric=0.9375, proposals=proposals, outcomes=outcomes)
        ms = statistics.median(_milliseconds_of_a_proposal(known) for _ in range(ASKED))
        rows.append(ProposalRow(sampler=sampler, trials=size, ms=ms, machine=describe_machine()))
    return rows


def _milliseconds_of_a_proposal(proposer: Proposer) -> float:
    before = time.process_time()
    proposer.tell(made_up_outcome(proposer.next(), 0.0, 1.0))
    return 1000 * (time.process_time() - before)


def _covered(legs: Sequence[Any], start: float, end: float) -> float:
    return sum(max(0.0, min(leg.finished, end) - max(leg.started, start)) for leg in legs)


def _open_session(config: StudyConfig, path: Path) -> Session:
    folder = StudyFolder(path)
    folder.config.write_text(config.to_yaml() + "dense: {accuracy: 0.9375}\n")
    return Session(config, config.space.bind(GROUPS), folder, limits=Limits.of(config.budget))


def _run_lanes(session: Session, processes: int, lanes: int, seconds: float, folder: Path) -> None:
    segments = start_segment_queue()
    given = {"segments": segments, "clock": session.clock, "seconds": seconds, "lanes": lanes}
    trainable = tune.with_resources(tune.with_parameters(Lanes, **given), {"cpu": 1})
    feeder = Feeder(session, segments, lambda: processes * lanes)
    run_workers(trainable, feeder, Room(lambda: processes), folder)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def page(rows: Sequence[SlotsRow], proposals: Sequence[ProposalRow]) -> str:
    """The measured part of the page."""
    head = [
        "slots",
        "lanes a process",
        "trials come",
        "sampler",
        "trial, s",
        "trials",
        "busy",
        "steady",
        "all begun, s",
    ]
    lines = [
        "# How busy many slots are: `python -m autoprune.analysis.benchmarks.slots`",
        "",
        "Trials that sleep, on a real Ray on one machine. Busy: of the time between the first start and the last end;",
        f"steady: of the middle 60 %. {[*rows, *proposals][-1].machine}.",
        "",
        *table_head([*head, "driver, ms a trial", "driver, MB"], text=(2, 3)),
    ]
    for row in rows:
        cells = [row.slots, row.lanes, row.how, row.sampler, f"{row.seconds:g}", row.trials]
        cells += [f"{100 * row.busy:.1f} %", f"{100 * row.steady:.1f} %", f"{row.start:.1f}"]
        lines.append(table_row([*cells, f"{row.driver_ms:.1f}", f"{row.driver_mb:.0f}"]))
    return "\n".join([*lines, "", *_proposals_table(proposals)]) + "\n"


def _proposals_table(rows: Sequence[ProposalRow]) -> list[str]:
    sizes = sorted({row.trials for row in rows})
    found = {(row.sampler, row.trials): row.ms for row in rows}
    lines = ["Processor time of a proposal and of learning from its outcome, and how many a second that makes:", ""]
    lines += table_head(["sampler", *(f"at {size} trials" for size in sizes)])
    for sampler in dict.fromkeys(row.sampler for row in rows):
        cells = [(found.get((sampler, size))) for size in sizes]
        lines.append(table_row([sampler, *("" if ms is None else f"{ms:.1f} ms, {1000 / ms:.0f}/s" for ms in cells)]))
    return lines


def main() -> None:
    """Measure what the options say, append the rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 16, 16])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--proposals", type=int, nargs="+", default=[])
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    for row in _measured(options):
        print(row)
        append_line(options.rows, json.dumps(asdict(row)))
    rows = [json.loads(line) for _, line in read_lines(options.rows)]
    searches = [SlotsRow(**row) for row in rows if "slots" in row]
    write_measured(options.page, page(searches, [ProposalRow(**row) for row in rows if "slots" not in row]))


def _measured(options: argparse.Namespace) -> Iterator[SlotsRow | ProposalRow]:
    for sampler in options.samplers:
        if options.proposals:
            yield from measure_proposals(sampler, options.proposals)
            continue
        for slots, lanes in zip(options.slots, options.lanes, strict=True):
            trials = slots * options.trials
            yield measure(slots, lanes, options.seconds, trials, sampler, one_by_one=options.one_by_one)


if __name__ == "__main__":
    main()
