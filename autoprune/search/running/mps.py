"""NVIDIA's Multi-Process Service: processes that share a GPU compute on it at the same time.

Without it they take turns: of ResNet-20 an H100 made 54,600 images a second in one process that replays CUDA graphs and
53,500 in four, where four streams of one process made 82,500. The service is a daemon per user and machine, which
processes find by an environment variable when they begin to use the GPU. It comes with the driver.

Whoever comes first starts the daemon, in a folder of the user's own, and a keeper beside it, which ends it when the
last process that has joined is gone, however that ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The program that starts the daemon, and talks to it.
CONTROL = "nvidia-cuda-mps-control"
#: Where a process looks for the daemon.
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
#: The keeper looks so often, in seconds, whether anybody is left.
LOOK_SECONDS = 5.0
#: Starting the daemon, or a first context through it, takes no longer.
PATIENCE_SECONDS = 30.0
#: A context on the first GPU of the process, without torch: what a client of the daemon begins with.
PROBE = """
import ctypes, sys
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
sys.exit(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
"""


def join_mps() -> str:
    """Let this process use its GPU through the service, before it has used it; what is in the way, or empty.

    Where the service does not run, or a first try with it fails, the process goes on without it.
    """
    if PIPES in os.environ:
        return ""  # somebody has started one for this process
    if shutil.which(CONTROL) is None:
        return f"there is no {CONTROL} on this machine"
    folder = folder_of_user()
    with _locked(folder):
        if not _answers(folder) and (failure := _start(folder)):
            return failure
        (folder / "clients" / str(os.getpid())).touch()
    os.environ.update(_environment(folder))
    return ""


def folder_of_user() -> Path:
    """Where the user's daemon lives; a short path, as those of sockets must be."""
    folder = Path(tempfile.gettempdir()) / f"autoprune-mps-{os.getuid()}"
    (folder / "clients").mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def keep(folder: Path) -> None:
    """End the daemon when no process that has joined is left."""
    while True:
        time.sleep(LOOK_SECONDS)
        with _locked(folder):
            if not _clients(folder):
                _tell(folder, "quit")
                return


def _start(folder: Path) -> str:
    """Start daemon and keeper, and try them; why that failed, or empty."""
    plain = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}  # it serves all GPUs
    started = _run([CONTROL, "-d"], plain | _environment(folder))
    if started is None or started.returncode:
        return f"{CONTROL} does not start{_said(started)}"
    tried = _run([sys.executable, "-c", PROBE], dict(os.environ) | _environment(folder))
    if tried is None or tried.returncode:
        _tell(folder, "quit")
        return "no GPU can be used through the Multi-Process Service here"
    # A shell that ends at once leaves the keeper to init: Ray ends the children of its workers.
    command = [sys.executable, "-m", __name__, str(folder)]
    subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", '"$@" >/dev/null 2>&1 &', "sh", *command], check=True, start_new_session=True
    )
    return ""


def _answers(folder: Path) -> bool:
    told = _tell(folder, "get_server_list")
    return told is not None and not told.returncode


def _tell(folder: Path, command: str) -> subprocess.CompletedProcess[str] | None:
    return _run([CONTROL], dict(os.environ) | _environment(folder), command + "\n")


def _run(command: list[str], environment: dict[str, str], words: str = "") -> subprocess.CompletedProcess[str] | None:
    """None if it does not come to an end."""
    try:
        return subprocess.run(  # noqa: S603
            command,
            env=environment,
            input=words,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def _said(ended: subprocess.CompletedProcess[str] | None) -> str:
    words = "" if ended is None else (ended.stderr or ended.stdout).strip()
    return f": {words.splitlines()[0][:160]}" if words else ""


def _environment(folder: Path) -> dict[str, str]:
    return {PIPES: str(folder), LOGS: str(folder)}


def _clients(folder: Path) -> list[int]:
    """The processes that have joined and live; files of the others go."""
    alive = []
    for file in (folder / "clients").iterdir():
        if Path("/proc", file.name).exists():
            alive.append(int(file.name))
        else:
            file.unlink()
    return alive


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
