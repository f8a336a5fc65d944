"""The Multi-Process Service is started once for all who join, and ended after the last; its program is a fake."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from autoprune.search.running import mps
from autoprune.search.running.mps import CONTROL, LOGS, PIPES, folder_of_user, join_mps, keep

FAKE = """#!/bin/sh
running="$CUDA_MPS_PIPE_DIRECTORY/running"
if [ "$1" = -d ]; then
    [ -n "$FAKE_REFUSAL" ] && echo "$FAKE_REFUSAL" >&2 && exit 1
    echo "GPUs: ${CUDA_VISIBLE_DEVICES-all}" >> "$CUDA_MPS_PIPE_DIRECTORY/starts"
    touch "$running"
    exit 0
fi
read command
[ -e "$running" ] || exit 1
[ "$command" = quit ] && rm "$running"
exit 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder, on a machine that has the program, and whose keeper looks all the time."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in (PIPES, LOGS):
        monkeypatch.setenv(name, "there")  # so that it is taken away again
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(mps, "PROBE", "")
    monkeypatch.setattr(mps, "LOOK_SECONDS", 0.01)
    yield folder_of_user()
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_process_finds_the_daemon_that_serves_all_gpus(folder):
    assert join_mps() == ""

    assert os.environ[PIPES] == os.environ[LOGS] == str(folder)
    assert (folder / "starts").read_text() == "GPUs: all\n"
    assert (folder / "clients" / str(os.getpid())).exists()


def test_the_next_process_starts_no_other_daemon(folder):
    join_mps()
    lines = "from autoprune.search.running import mps; mps.PROBE = ''; print(repr(mps.join_mps()))"
    environment = {name: value for name, value in os.environ.items() if name != PIPES}
    said = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True)

    assert said.stdout == "''\n"
    assert (folder / "starts").read_text().count("\n") == 1
    assert len(list((folder / "clients").iterdir())) == 2


def test_a_process_for_which_one_was_started_starts_none(folder, monkeypatch):
    monkeypatch.setenv(PIPES, "/somewhere")

    assert join_mps() == ""
    assert os.environ[PIPES] == "/somewhere"
    assert not (folder / "starts").exists()


def test_the_daemon_ends_after_the_last_process(folder):
    gone = subprocess.Popen(["true"])
    gone.wait()
    (folder / "running").touch()
    (folder / "clients" / str(gone.pid)).touch()

    keep(folder)

    assert not (folder / "running").exists()
    assert list((folder / "clients").iterdir()) == []


def test_the_keeper_that_is_started_outlives_who_started_it(folder):
    lines = "from autoprune.search.running import mps; mps.PROBE = ''; mps.join_mps()"
    subprocess.run([sys.executable, "-c", lines], check=True)
    assert (folder / "running").exists()

    end = time.monotonic() + 30
    while (folder / "running").exists() and time.monotonic() < end:
        time.sleep(0.1)

    assert not (folder / "running").exists()


@pytest.mark.parametrize(
    ("refusal", "probe", "missing"),
    [
        ("no devices\nand more", "", f"{CONTROL} does not start: no devices"),
        ("", "raise SystemExit(3)", "no GPU can be used through the Multi-Process Service here"),
    ],
)
def test_where_it_does_not_work_the_process_goes_on_without_it(folder, monkeypatch, refusal, probe, missing):
    monkeypatch.setenv("FAKE_REFUSAL", refusal)
    monkeypatch.setattr(mps, "PROBE", probe)

    assert join_mps() == missing
    assert PIPES not in os.environ
    assert not (folder / "running").exists()


def test_where_the_driver_has_no_such_program_the_process_goes_on_without_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(PIPES, raising=False)

    assert join_mps() == f"there is no {CONTROL} on this machine"
    assert list(Path(tmp_path).iterdir()) == []
