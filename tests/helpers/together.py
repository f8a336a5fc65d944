"""An evaluator without a task, of which several processes run every trial together until one of them fails."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import fakes
import torch

from autoprune.search.running.evaluator import Evaluation
from autoprune.training.processes import Processes


def listening_addresses():
    """Where this process waits for connections."""
    import psutil  # Ray brings its own

    own = [socket for socket in psutil.net_connections("inet") if socket.pid == os.getpid()]
    return [socket.laddr.ip.removeprefix("::ffff:") for socket in own if socket.status == psutil.CONN_LISTEN]


@dataclass(frozen=True)
class OpenTogether:
    """What the workers get.

    Fields:
        folder: for what happens once.
        trouble: number of a trial -> (rank of the process that fails in it, how).
        broken: rank of a process that cannot load the task.
    """

    folder: Path
    trouble: dict = field(default_factory=dict)
    broken: int | None = None

    def __call__(self, clock, _store=None):
        processes = Processes.current()
        if processes.rank == self.broken:
            raise OSError(f"no data for process {self.broken}")
        processes.agree(None)
        return Together(clock, self.folder, self.trouble)


@dataclass(frozen=True)
class Together:
    """Adds up the ranks of all processes, which is worth something to see: `notes` has the sum."""

    clock: object
    folder: Path
    trouble: dict

    def run(self, proposal, _report, _scratch, _parent):
        processes, started = Processes.current(), self.clock.now()
        with (self.folder / "ran").open("a") as file:
            file.write(f"{proposal.id} {processes.rank} {os.getpid()}\n")
        processes.agree(None)
        with (self.folder / "listening").open("a") as file:
            file.writelines(f"{address}\n" for address in listening_addresses())
        rank, how = self.trouble.get(proposal.id, (None, ""))
        if rank in (processes.rank, "all"):
            self._fail(how, self.folder / f"troubled-{proposal.id}")
        total = torch.tensor(float(processes.rank + 1))
        processes.add_up(total)
        notes = {"sum": total.item()}
        outcome = fakes.completed(proposal, started=started, finished=self.clock.now(), notes=notes)
        return Evaluation(outcome=outcome, files={"model.json": b"%d" % proposal.id})

    def _fail(self, how, once):
        if how == "raise":
            raise ValueError("a bad shape")
        if how.endswith("once") and once.exists():
            return
        once.touch()
        if how.startswith("sleep"):
            time.sleep(1000)
        os._exit(7)
