"""A search on a small cluster to which things happen: nodes are killed and added, the driver, processes of trials.

    python -m autoprune.analysis.benchmarks.random_events [--seed 0] [--events 20] [--trials 200] [--port 6500]

Three Ray nodes on this machine, by `cluster/local_multinode.sh`, with two cores each; trials of two processes, which
pause at rungs. After every few outcomes something happens, drawn from the seed: a node other than the head is killed,
one is added, the driver is killed and the study resumed, one process of a running trial is killed. Then it is counted
whether every recipe ended exactly once, no outcome that was there is gone or changed, and no process stayed behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autoprune.cli.launch_files import launch_files
from autoprune.study.folder import StudyFolder
from autoprune.study.log import read_lines

TABLE = Path(__file__).with_suffix(".jsonl")
KINDS = ("kill node", "add node", "kill driver", "kill process")
NODES, CORES, PROCESSES = 3, 2, 2

#: Names that Ray gives to the first process of a trial and to its peers, while they run one.
IN_TRIAL = ("ray::ResourceTrainable.train", "ray::Peer.run")
AUTOPRUNE = (sys.executable, "-m", "autoprune")

#: Every recipe takes a few seconds; half of those that come to a rung wait there for others.
SPACE = {
    "task": {
        "data": {"name": "digits", "splits": {"train": "train", "validation": "validation", "test": "test"}},
        "model": {"name": "digits_net", "train": {"images": 8000, "batch_size": 64}},
    },
    "space": {
        "method": {"choice": {"l1": {}, "taylor": {}, "bn_scale": {"penalty": {"float": [1e-4, 1e-3], "log": True}}}},
        "target": {"flops": {"float": [0.2, 0.8]}},
        "training": {"images": 12000, "batch_size": 64, "lr": 0.05, "rungs": [0, 0.3, 1]},
    },
    "cascade": {"keep": 0.5},
    "resources": {"processes_per_trial": PROCESSES, "cpus_per_trial": CORES, "trial_timeout_minutes": 5},
    "sampler": {"startup": 16},
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is going to happen: kinds of events, and after how many more outcomes each."""

    kinds: tuple[str, ...]
    gaps: tuple[int, ...]

    @classmethod
    def draw(cls, seed: int, events: int) -> Plan:
        """All kinds as often, in an order of the seed; two to five outcomes between them."""
        stream = random.Random(seed)
        kinds = [KINDS[number % len(KINDS)] for number in range(events)]
        stream.shuffle(kinds)
        return cls(kinds=tuple(kinds), gaps=tuple(stream.randint(2, 5) for _ in kinds))


@dataclass(frozen=True)
class Process:
    """A process of this machine; its number alone may belong to another one later."""

    pid: int
    began: str
    parent: int
    command: str

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        now = find_process(self.pid)
        return now is not None and now.began == self.began


def find_process(pid: int) -> Process | None:
    """The process of that number; None if it has ended, also where nobody has asked yet how it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else Process(pid, fields[19], int(fields[1]), command)


def all_processes() -> list[Process]:
    """All of this machine."""
    found = (find_process(int(folder.name)) for folder in Path("/proc").glob("[0-9]*"))
    return [process for process in found if process is not None]


def descendants(roots: Sequence[int], processes: Sequence[Process]) -> set[Process]:
    """The processes of these numbers, and all that they and theirs have started."""
    known = set(roots)
    while more := {process.pid for process in processes if process.parent in known} - known:
        known |= more
    return {process for process in processes if process.pid in known}


class Cluster:
    """Ray nodes on this machine, by the launch file; a node's number is that of the launch file."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.script = folder, port, folder / "nodes.sh"
        values = {"nodes": str(NODES), "cpus": str(CORES), "port": str(port)}
        self.script.write_text(launch_files()["local_multinode"].fill(values))
        self.script.chmod(0o755)
        self.place = Path(f"/tmp/autoprune-nodes-{os.getuid()}-{port}")  # noqa: S108 - the script's own

    def do(self, *words: str) -> None:
        """Run the script to its end."""
        command = [self.script, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=self.environment())  # noqa: S603

    def environment(self) -> dict[str, str]:
        """For whoever talks to the nodes."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.place / "token")}
        return {**os.environ, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", **token}

    def nodes(self) -> dict[int, int]:
        """Number -> process of the nodes that run."""
        files = self.place.glob("node-*.pid")
        return {int(file.stem.removeprefix("node-")): int(file.read_text()) for file in files}


@dataclass
class Search:
    """The driver of a search on a cluster, which may be killed and started again."""

    cluster: Cluster
    folder: Path
    trials: int
    study: StudyFolder = field(init=False)

    def __post_init__(self) -> None:
        self.study = StudyFolder(self.folder / "study")
        (self.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        self._start("search", str(self.folder / "space.yaml"), "--out", str(self.study.path))

    def _start(self, *words: str) -> None:
        command = [*AUTOPRUNE, *words, "--trials", str(self.trials), "--address", f"127.0.0.1:{self.cluster.port}"]
        with (self.folder / "driver.log").open("ab") as log:
            environment = self.cluster.environment()
            self.driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603

    def kill_and_resume(self) -> None:
        """As a crash of the driver's machine would, with the folder on another one."""
        self.driver.kill()
        self.driver.wait()
        self._start("resume", str(self.study.path))

    def lines(self) -> list[str]:
        """The outcomes as they stand in the log."""
        return [line for _, line in read_lines(self.study.outcomes)]


def processes_of_trials(processes: Sequence[Process]) -> list[Process]:
    """Those that run a trial at this moment."""
    return [process for process in processes if process.command.startswith(IN_TRIAL)]


class Events:
    """Lets things happen, and keeps what must not change by them."""

    def __init__(self, search: Search, plan: Plan, seed: int) -> None:
        self.search, self.plan, self.stream = search, plan, random.Random(seed + 1)
        self.happened: list[str] = []
        self.seen: set[Process] = set()
        self.lost = 0
        self._outcomes: list[str] = []

    def run(self) -> None:
        """All events in their order, each after as many more outcomes as the plan says."""
        waiting = list(self.plan.kinds)
        for gap in self.plan.gaps:
            self._wait_for(len(self._outcomes) + gap)
            kind = next(kind for kind in waiting if self._is_possible(kind))
            waiting.remove(kind)
            self._make(kind)
            print(f"{len(self._outcomes)} outcomes: {self.happened[-1]}", flush=True)
        while self.search.driver.poll() is None:
            self.look()
            time.sleep(1)
        self.look()

    def look(self) -> None:
        """Note the outcomes and the processes that are there now."""
        now, before = self.search.lines(), self._outcomes
        self.lost += sum(line not in now for line in before)
        self._outcomes = now
        self.seen |= self._processes()

    def _processes(self) -> set[Process]:
        roots = [*self.search.cluster.nodes().values(), self.search.driver.pid]
        return descendants(roots, all_processes())

    def _wait_for(self, outcomes: int) -> None:
        until = time.monotonic() + 600
        while len(self._outcomes) < outcomes:
            self.look()
            if self.search.driver.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"only {len(self._outcomes)} outcomes; see {self.search.folder / 'driver.log'}")
            time.sleep(0.5)

    def _is_possible(self, kind: str) -> bool:
        others = len(self.search.cluster.nodes()) - 1
        return not (kind == "kill node" and others == 0) and not (kind == "add node" and others == NODES)

    def _make(self, kind: str) -> None:
        actions: Mapping[str, Callable[[], str]] = {
            "kill node": self._kill_node,
            "add node": self._add_node,
            "kill driver": self._kill_driver,
            "kill process": self._kill_process,
        }
        self.happened.append(f"{kind}{actions[kind]()}")

    def _kill_node(self) -> str:
        number = self.stream.choice(sorted(set(self.search.cluster.nodes()) - {1}))
        self.search.cluster.do("kill", str(number))
        return f" {number}"

    def _add_node(self) -> str:
        self.search.cluster.do("add")
        return f" {max(self.search.cluster.nodes())}"

    def _kill_driver(self) -> str:
        self.search.kill_and_resume()
        return ""

    def _kill_process(self) -> str:
        until = time.monotonic() + 300
        while not (running := processes_of_trials(sorted(self._processes(), key=lambda process: process.pid))):
            if time.monotonic() > until:
                raise SystemExit("no process of a trial is running")
            time.sleep(0.1)
        chosen = self.stream.choice(running)
        os.kill(chosen.pid, signal.SIGKILL)
        return f" {chosen.command}"


def left_behind(seen: set[Process], seconds: float = 60) -> list[Process]:
    """Which of these still run after so many seconds."""
    until = time.monotonic() + seconds
    while (left := [process for process in seen if process.alive]) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def count(study: StudyFolder) -> dict[str, Any]:
    """Recipes handed out, how they ended, and those that did not end exactly once."""
    proposed = [json.loads(line)["id"] for _, line in read_lines(study.proposals)]
    outcomes = [json.loads(line) for _, line in read_lines(study.outcomes)]
    times = Counter(outcome["id"] for outcome in outcomes)
    return {
        "recipes": len(proposed),
        "ended": dict(sorted(Counter(outcome["status"] for outcome in outcomes).items())),
        "not_once": sorted(number for number in {*proposed, *times} if times[number] != 1 or number not in proposed),
        "errors": sorted({outcome["error"] for outcome in outcomes if outcome["status"] == "failed"}),
        "paused": len({json.loads(line)["id"] for _, line in read_lines(study.paused)}),
    }


def measure(folder: Path, *, seed: int, events: int, trials: int, port: int) -> dict[str, Any]:
    """Run one search and let all events happen; what is left is counted when the nodes have ended too."""
    cluster, began = Cluster(folder, port), time.monotonic()
    cluster.do("start")
    try:
        search = Search(cluster, folder, trials)
        happening = Events(search, Plan.draw(seed, events), seed)
        try:
            happening.run()
        finally:
            search.driver.kill()
            code = search.driver.wait()
    finally:
        cluster.do("stop")
    left = left_behind(happening.seen)
    return {
        "seed": seed,
        "events": dict(sorted(Counter(" ".join(what.split()[:2]) for what in happening.happened).items())),
        **count(search.study),
        "outcomes_lost": happening.lost,
        "processes_seen": len(happening.seen),
        "processes_left": [process.command[:80] for process in left],
        "exit_code": code,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "happened": happening.happened,
    }


def passed(counted: Mapping[str, Any]) -> bool:
    """Whether nothing was lost, ended twice or stayed behind."""
    return counted["exit_code"] == 0 and not any(
        counted[name] for name in ("not_once", "outcomes_lost", "processes_left")
    )


def main() -> None:
    """Run it, print the counts and append them to the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--port", type=int, default=6500)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoprune-events-") as folder:
        counted = measure(
            Path(folder), seed=options.seed, events=options.events, trials=options.trials, port=options.port
        )
    line = json.dumps(counted)
    print(line)
    with options.out.open("a", encoding="utf-8") as table:
        table.write(line + "\n")
    raise SystemExit(0 if passed(counted) else 1)


if __name__ == "__main__":
    main()
