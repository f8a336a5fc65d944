"""status --watch: a search as it is seen from another process, until it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from autoprune.cli.view import LiveView, duration_text, print_json, trial_facts
from autoprune.errors import InputError
from autoprune.study.folder import Study, load_study
from autoprune.study.progress import SearchState
from autoprune.study.watcher import Sighting, StudyWatcher

#: Seconds between two looks at the folder.
LOOK_SECONDS = 1.0

#: A search that has not told of itself for so many seconds is said to be quiet: its driver may have died.
QUIET_SECONDS = 60.0

#: What a line of JSON says of a search's progress, besides the size of its front.
SHOWN = (
    *("done", "running", "paused", "stopped", "failed"),
    *("seconds", "eta", "used", "dense_metric", "workers", "dashboard", "warnings"),
)


class WatchView(Protocol):
    """Shows what is seen of a search."""

    def show(self, sighting: Sighting) -> None:
        """Show it."""

    def close(self) -> None:
        """The watch is over."""


def watch(
    folder: Path, *, as_json: bool, sleep: Callable[[float], None] = time.sleep
) -> tuple[SearchState, Study] | None:
    """Show a search until it has ended; returns its last state and the study as it is then, None after Ctrl-C.

    A folder that cannot be read for a while does not end the watch.

    Raises:
        InputError: there is no study in the folder, or none that tells how far it is.
    """
    watcher = StudyWatcher(load_study(folder))
    with _opened(as_json) as view:
        try:
            while True:
                sighting = watcher.look()
                view.show(sighting)
                if sighting.ended and (study := _read_again(folder)) is not None:
                    return sighting.state, study
                sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            return None


def _read_again(folder: Path) -> Study | None:
    """The study; None if its folder is out of reach just now."""
    try:
        return load_study(folder)
    except (OSError, InputError):
        return None


@contextmanager
def _opened(as_json: bool) -> Iterator[WatchView]:
    """The live picture if stdout is a terminal, else JSON lines."""
    view = JsonWatch() if as_json or not sys.stdout.isatty() else LiveWatch(Console(file=sys.stdout))
    try:
        yield view
    finally:
        view.close()


class LiveWatch:
    """The picture that the search shows in its own process, with a remark where there is nothing new."""

    def __init__(self, console: Console) -> None:
        self._view = LiveView(console)

    def show(self, sighting: Sighting) -> None:
        """Draw it."""
        self._view.remark(_remark(sighting))
        if sighting.state.progress is not None:
            self._view.update(replace(sighting.state.progress, latest=sighting.latest))

    def close(self) -> None:
        """Take the picture down."""
        self._view.close()


class JsonWatch:
    """One JSON object a line, when something has changed: `trial` and `finalist` as a search prints them, `progress`
    where no line of these says it, `unreachable` and `quiet`.
    """

    def __init__(self) -> None:
        self._shown: dict[str, Any] = {}
        self._trouble: str | None = None

    def show(self, sighting: Sighting) -> None:
        """Print what has changed."""
        progress, facts = sighting.state.progress, _progress_facts(sighting.state)
        self._tell_of_trouble(sighting)
        if progress is not None and sighting.latest:
            for outcome in sighting.latest:
                print_json(trial_facts(progress, outcome))
        elif _counts(facts) != _counts(self._shown):
            print_json({"event": "progress", **facts})
        self._shown = facts

    def close(self) -> None:
        """Nothing to take down."""

    def _tell_of_trouble(self, sighting: Sighting) -> None:
        """One line when the folder is out of reach, or the search quiet; the next one when that is over."""
        quiet = sighting.quiet >= QUIET_SECONDS
        trouble = "unreachable" if sighting.unreachable else "quiet" if quiet else None
        if trouble is not None and trouble != self._trouble:
            print_json({"event": trouble, "seconds": round(sighting.quiet, 1), "error": sighting.unreachable})
        elif trouble is None and self._trouble is not None:
            self._shown = {}
        self._trouble = trouble


def _progress_facts(state: SearchState) -> dict[str, Any]:
    """How far a search is, in plain data."""
    facts: dict[str, Any] = {"state": state.state}
    if (progress := state.progress) is not None:
        facts |= {name: getattr(progress, name) for name in SHOWN}
        facts |= {name: round(facts[name], 1) for name in ("seconds", "eta") if facts[name] is not None}
        facts["front"] = len(progress.front)
    return facts


def _counts(facts: dict[str, Any]) -> dict[str, Any]:
    """What of the facts does not change with the mere passing of time."""
    return {name: value for name, value in facts.items() if name not in ("seconds", "eta", "used")}


def _remark(sighting: Sighting) -> str | None:
    if sighting.unreachable is not None:
        return f"the folder cannot be read at the moment: {sighting.unreachable}"
    if sighting.quiet >= QUIET_SECONDS:
        return f"nothing new for {duration_text(sighting.quiet)}: if the search has died, autoprune resume goes on"
    return None
