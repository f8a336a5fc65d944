"""A real SLURM of two nodes on this machine, for the life of a `with` block."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launching import free_port

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("first", "second")

CONFIGURATION = """\
ClusterName=small
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def is_installed() -> bool:
    """Whether everything that a SLURM needs is there; Debian: slurmctld slurmd slurm-client munge."""
    return all(_program(name) for name in NEEDED)


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run one that keeps its files in `folder`; gives the environment in which its commands find it."""
    host = os.uname().nodename.split(".")[0]
    nodes = [f"NodeName={node} NodeHostname={host} Port={free_port()} CPUs=2 RealMemory=1000" for node in NODES]
    (folder / "state").mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host, controller=free_port(), user=getpass.getuser(), folder=folder, nodes="\n".join(nodes)
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    munge = [f"--{file}={folder}/munge.{file}" for file in ("socket", "pid-file", "log-file", "seed-file")]
    commands = [["munged", "--foreground", "--force", f"--key-file={folder}/key", *munge], ["slurmctld", "-D", "-i"]]
    commands += [["slurmd", "-D", "-N", node] for node in NODES]
    with ExitStack() as stack:
        for command in commands:
            stack.enter_context(_running(command, environment, folder))
        _wait_until_idle(environment)
        yield environment


@contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    program = _program(command[0])
    assert program is not None
    with (folder / f"{command[0]}.out").open("a") as out:
        process = subprocess.Popen([program, *command[1:]], env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(environment: dict[str, str]) -> None:
    until = time.monotonic() + 60
    while True:
        command = ["sinfo", "--noheader", "--format=%D %t"]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()
        if said == f"{len(NODES)} idle":
            return
        assert time.monotonic() < until, f"SLURM did not start: {said}"
        time.sleep(0.5)
