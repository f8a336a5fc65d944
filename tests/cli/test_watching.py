"""status --watch: a search from another process, until it has ended."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import OUTCOMES, Capture, fails, works, write_study
from rich.console import Console
from told_progress import end_trial, progress, tell

from autoprune.cli import watching
from autoprune.study.progress import SearchState
from autoprune.study.watcher import Sighting


@pytest.fixture
def study(here: Path) -> str:
    """A study with two outcomes, whose search runs."""
    folder = write_study(here / "study", OUTCOMES[:2])
    tell(folder, eta=3700.04)
    return folder


def steps(*actions: Callable[[], Any]) -> Callable[[float], None]:
    """A sleep in which something happens to the folder, one action a sleep."""
    left: Iterator[Callable[[], Any]] = iter(actions)
    return lambda _seconds: next(left)()


def lines(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_elsewhere_than_on_a_terminal_it_says_what_has_changed(study: str, capsys: Capture) -> None:
    happens = steps(
        lambda: None,
        lambda: tell(study, seconds=71.0),  # time has passed, that is all
        lambda: end_trial(study, OUTCOMES[2]),
        lambda: tell(study, done=3, running=2),
        lambda: tell(study, "ended", done=4, running=0),
    )
    found = watching.watch(Path(study), as_json=True, sleep=happens)
    said = lines(capsys)

    assert [line["event"] for line in said] == ["progress", "trial", "progress", "progress"]
    assert [line.get("state") for line in said] == ["running", None, "running", "ended"]
    assert said[0] | {"running": 1, "paused": 7, "front": 30, "eta": 3700.0} == said[0]
    assert said[1] | {"id": 7, "accuracy": 0.95, "ended": 9} == said[1]
    assert found is not None
    assert (found[0].state, len(found[1].outcomes)) == ("ended", 3)


def test_a_folder_that_is_gone_for_a_while_does_not_end_it(study: str, capsys: Capture) -> None:
    away = Path(study).with_name("away")
    happens = steps(
        lambda: Path(study).rename(away), lambda: None, lambda: away.rename(study), lambda: tell(study, "ended")
    )
    watching.watch(Path(study), as_json=True, sleep=happens)
    said = lines(capsys)

    assert [line["event"] for line in said] == ["progress", "unreachable", "progress", "progress"]
    assert "progress.json" in said[1]["error"]
    assert said[2]["state"] == "running"


def test_a_search_that_has_gone_quiet_is_said_once(capsys: Capture) -> None:
    view, state = watching.JsonWatch(), SearchState(state="running", progress=progress())
    for quiet in (59.0, 60.0, 61.0, 3.0):
        view.show(Sighting(state=state, quiet=quiet))
    said = lines(capsys)

    assert [line["event"] for line in said] == ["progress", "quiet", "progress"]
    assert said[1]["seconds"] == 60.0


def test_on_a_terminal_it_is_the_picture_of_the_search_with_a_remark() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    view, state = watching.LiveWatch(console), SearchState(state="running", progress=progress())
    view.show(Sighting(state=SearchState(state="running"), quiet=120.0))
    view._view._live.refresh()
    view.show(Sighting(state=state, unreachable="Stale file handle"))
    view._view._live.refresh()
    view.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]

    assert "loading data and model" in text
    assert "nothing new for 2 min 00 s: if the search has died, autoprune resume goes on" in text
    assert "2 trials done, 1 running" in text
    assert "the folder cannot be read at the moment: Stale file handle" in text


def test_the_command_ends_with_how_the_study_stands(study: str, capsys: Capture) -> None:
    tell(study, "interrupted", "stopped with 2 outcomes kept")
    *_, last = (json.loads(line) for line in works(capsys, "status", study, "--watch").splitlines())

    assert (last["event"], last["state"], last["error"]) == ("end", "interrupted", "stopped with 2 outcomes kept")
    assert last["trials"]["completed"] == 2


def test_a_study_without_progress_is_refused(here: Path, capsys: Capture) -> None:
    folder = write_study(here / "study", OUTCOMES)

    assert "no search has told here how far it is" in fails(capsys, "status", folder, "--watch")
    assert "no study in" in fails(capsys, "status", "elsewhere", "--watch")


def watch_in_a_process(study: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "autoprune", "status", study, "--watch"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal, also where the tests run in a shell's background, whose processes all ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_it_quietly(study: str) -> None:
    watching_it = watch_in_a_process(study, stdout=subprocess.PIPE)
    assert watching_it.stdout is not None
    first = json.loads(watching_it.stdout.readline())
    watching_it.send_signal(signal.SIGINT)
    out, err = watching_it.communicate(timeout=60)

    assert first["event"] == "progress"
    assert (watching_it.returncode, out, err) == (0, b"", b"")


def test_it_ends_with_the_reader_of_its_lines(study: str) -> None:
    watching_it = watch_in_a_process(study, stdout=subprocess.PIPE)
    assert watching_it.stdout is not None
    watching_it.stdout.readline()
    watching_it.stdout.close()
    tell(study, done=3)
    watching_it.wait(timeout=60)
    assert watching_it.stderr is not None

    assert (watching_it.returncode, watching_it.stderr.read()) == (1, b"")
    watching_it.stderr.close()


def test_on_a_terminal_it_shows_the_front_and_ends_with_the_summary(study: str) -> None:
    ours, theirs = pty.openpty()
    watching_it = watch_in_a_process(study, stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    shown = b""
    while b"front so far" not in shown:
        shown += os.read(ours, 4096)
    tell(study, "ended")
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # Linux ends a terminal whose other side is closed this way
            break
    watching_it.communicate(timeout=60)
    os.close(ours)

    assert watching_it.returncode == 0
    assert b"2 trials done, 1 running, 3 stopped early, 7 waiting, 4 failed" in shown
    assert b"front of " in shown.partition(b"front so far")[2]
