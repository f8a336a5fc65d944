"""A real process holds the lock of a device; who wants it too waits until that process is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autoprune.timing.device_lock import _lock_file, alone_on

HOLD = """
import sys
from autoprune.timing.device_lock import alone_on
with alone_on("cpu"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Locks that nobody else on this machine asks for."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_one_waits_for_another_process_and_goes_on_when_that_is_killed() -> None:
    entered = threading.Event()

    def enter() -> None:
        with alone_on("cpu"):
            entered.set()

    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.3)
        holder.kill()
        assert entered.wait(30)
        waiting.join()


def test_other_devices_do_not_wait() -> None:
    with alone_on("cpu"), alone_on("cuda:0"):
        pass


def test_a_gpu_is_told_by_what_the_process_sees_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for visible in ("0", "3"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        names |= {_lock_file("cuda:0"), _lock_file("cuda")}

    assert len(names) == 2
