"""Launch files filled in, and run with the Ray and the autoprune of this environment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import DIGITS_DATA, write_space

from autoprune.cli.launch_files import launch_files
from autoprune.study.folder import StudyFolder
from autoprune.study.log import read_lines

HELPERS = str(Path(__file__).resolve().parent)
PROGRAMS = {
    "ray": "from ray.scripts.scripts import main; main()",
    "autoprune": "from autoprune.cli import main; sys.exit(main())",
}


def free_port(above: int = 0) -> int:
    """A port on which nobody listens, and nobody on the `above` ones after it."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            first: int = listener.getsockname()[1]
        if first + above < 65536 and not any(_is_taken(port) for port in range(first, first + above + 1)):
            return first


def left_over(text: str) -> list[int]:
    """Processes whose command line has the text, once those that were about to end have ended."""
    until = time.monotonic() + 20  # Ray's agents notice within seconds that their node has ended
    while (found := processes_with(text)) and time.monotonic() < until:
        time.sleep(0.5)
    return found


def processes_with(text: str) -> list[int]:
    """Processes of this machine whose command line has the text."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in file.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(file.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _is_taken(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder to run launch files in, with `ray` and `autoprune` on its path, and a space that takes seconds."""

    folder: Path
    environment: Mapping[str, str]

    def write(self, name: str, out: str, values: Mapping[str, object]) -> Path:
        """A launch file filled in."""
        file = self.folder / out
        file.write_text(launch_files()[name].fill({key: str(value) for key, value in values.items()}))
        file.chmod(0o755)
        return file

    def run(self, *command: str | Path, code: int = 0) -> str:
        """Run a command to its end; returns what it printed, which is shown where the exit code is another one."""
        ran = subprocess.run(
            [str(word) for word in command], text=True, capture_output=True, **self.where(), check=False
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def where(self) -> dict[str, Any]:
        """Arguments of `subprocess` that run a command here."""
        return {"cwd": self.folder, "env": dict(self.environment)}

    def outcomes(self, study: str) -> dict[int, str]:
        """Number -> status of the recipes of a study that have ended; none may have ended twice."""
        file = StudyFolder(self.folder / study).outcomes
        found = [json.loads(line) for _, line in read_lines(file)] if file.exists() else []
        ended = {outcome["id"]: outcome["status"] for outcome in found}
        assert len(ended) == len(found)
        return ended

    def nodes(self) -> int:
        """On how many Ray nodes workers have built the model."""
        return len(list(Path(self.environment["NODE_MARKS"]).iterdir()))


def place(folder: Path, *, workers: int, trials: int) -> Place:
    """A place whose space `s.yaml` has as many trials, and a worker for each node."""
    programs, marks = folder / "bin", folder / "marks"
    for made in (programs, marks):
        made.mkdir()
    texts = {name: f"#!{sys.executable}\nimport sys\n{code}\n" for name, code in PROGRAMS.items()}
    texts["python3"] = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    write_space(
        folder / "s.yaml",
        task={"data": DIGITS_DATA, "model": {"factory": "node_marks:build"}},
        budget={"trials": trials},
        resources={"workers": workers, "cpus_per_trial": 1},
    )
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    python = os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": python, "NODE_MARKS": str(marks), "OMP_NUM_THREADS": "1"}
    return Place(folder=folder, environment=environment)
