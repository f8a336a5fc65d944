"""Watcher: a study as another process sees it change, from the files of its folder alone, which may be gone a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import InputError, first_line
from autoprune.study.folder import Study
from autoprune.study.log import LogFollower
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome, RecipeReader
from autoprune.study.progress import RUNNING, SearchState


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A study at one look.

    Fields:
        state: the last that could be read.
        latest: outcomes of trials and finalists that had not been seen before, oldest first.
        unreachable: why the folder cannot be read at this moment; None = it can.
        quiet: seconds since something has changed in what could be read.
    """

    state: SearchState
    latest: tuple[Outcome, ...] = ()
    unreachable: str | None = None
    quiet: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing more is going to change, unless somebody goes on with the study."""
        return self.state.state != RUNNING and self.unreachable is None


class StudyWatcher:
    """Looks at a study again and again. Outcomes that the study holds already are not told of.

    Args:
        study: as it was when the watch began.
        clock: seconds that only ever grow.

    Raises:
        InputError: no search has told in the folder how far it is.
    """

    def __init__(self, study: Study, clock: Callable[[], float] = time.monotonic) -> None:
        folder, self._clock = study.folder, clock
        self._progress = folder.progress
        self._logs = [_outcomes_of(path, study.metric) for path in (folder.outcomes, folder.finalists)]
        for log, known in zip(self._logs, (study.outcomes, study.finalists), strict=True):
            log.skip(len(known))
        self._untold: list[Outcome] = []
        self._state, self._changed = SearchState.of_folder(self._progress), clock()

    def look(self) -> Sighting:
        """The study now."""
        try:
            state = SearchState.of_folder(self._progress)
            for log in self._logs:
                self._untold += log.new_entries()
        except (OSError, InputError, UnicodeDecodeError) as error:  # the last: half a file from a network's cache
            return Sighting(state=self._state, unreachable=first_line(error), quiet=self._clock() - self._changed)
        latest, self._untold = tuple(self._untold), []
        if latest or state != self._state:
            self._state, self._changed = state, self._clock()
        return Sighting(state=state, latest=latest, quiet=self._clock() - self._changed)


def _outcomes_of(log: Path, metric: MetricSpec) -> LogFollower[Outcome]:
    read_recipe = RecipeReader()
    return LogFollower(log, lambda line, place: Outcome.from_json(line, place, read_recipe, metric, unread=[]))
