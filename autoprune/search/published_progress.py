"""progress.json: how far a search is, written beside its logs for whoever watches the folder from elsewhere."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from autoprune.errors import SearchInterrupted
from autoprune.files import written_whole
from autoprune.search.running.dispatcher import last_time
from autoprune.search.running.evaluator import describe_error
from autoprune.search.tracking.thread import TrackerThread
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.progress import ENDED, FAILED, INTERRUPTED, RUNNING, SearchState, StudyProgress, View
from autoprune.study.tracker import TrackedStudy, Tracker

#: The file is written once in so many seconds at most; the folder may lie on a file system that is far away.
WRITE_SECONDS = 2.0


@contextmanager
def published(
    study: Study, view: View | None, trackers: Mapping[str, Tracker], remarks: Sequence[str] = ()
) -> Iterator[View]:
    """A view that shows progress in the given one, if any, and in the study folder, and tells trackers of outcomes.

    Args:
        study: as the folder holds it now. At the end of the block its folder says how that ended.
        view: None = what goes wrong beside the search is a warning of Python's.
        trackers: by name.
        remarks: what of the space cannot work; the view shows them as it shows warnings.
    """
    file = ProgressFile(study.folder)
    audience = Audience(file, view, _start_threads(study, trackers), remarks)
    try:
        try:
            yield audience
        finally:
            audience.dismiss()
    except (SearchInterrupted, KeyboardInterrupt) as error:
        file.end(INTERRUPTED, str(error) or "interrupted")
        raise
    except BaseException as error:
        file.end(FAILED, describe_error(error))
        raise
    file.end(ENDED)


def _start_threads(study: Study, trackers: Mapping[str, Tracker]) -> list[TrackerThread]:
    origin = time.time() - last_time(study)
    told = TrackedStudy(folder=study.folder, tradeoff=study.tradeoff, known=study.outcomes, origin=origin)
    return [TrackerThread(name, tracker, told) for name, tracker in trackers.items()]


class Audience:
    """All who see a search progress, as one view."""

    def __init__(
        self, file: ProgressFile, view: View | None, trackers: Sequence[TrackerThread], remarks: Sequence[str] = ()
    ) -> None:
        self._file, self._view, self._trackers = file, view, tuple(trackers)
        self._last: StudyProgress | None = None
        self._warnings = tuple(remarks)
        self._trouble: str | None = None
        self._heard = 0  # of the dispatcher's own warnings

    def update(self, progress: StudyProgress) -> None:
        """Tell trackers of the latest outcomes, and show it."""
        for tracker in self._trackers:
            tracker.tell(progress.latest)
        self._show(progress)

    def say(self, text: str) -> None:
        """Tell the view."""
        if self._view is not None:
            self._view.say(text)

    def close(self) -> None:
        """Nothing to take down: the view is closed by whoever opened it."""

    def dismiss(self) -> None:
        """Wait for the trackers, and show what went wrong with them meanwhile."""
        for tracker in self._trackers:
            tracker.end()
        if self._last is not None and self._new_errors():
            self._show(replace(self._last, latest=(), warnings=self._last.warnings[: self._heard]))

    def _new_errors(self) -> tuple[str, ...]:
        errors = (tracker.error for tracker in self._trackers)
        return tuple(error for error in errors if error is not None and error not in self._warnings)

    def _folder_trouble(self) -> tuple[str, ...]:
        """What is to be said of the study folder, if that is not what was said before."""
        before, self._trouble = self._trouble, self._file.error
        if self._trouble == before:
            return ()
        what = "can be written again" if self._trouble is None else f"cannot be written at the moment: {self._trouble}"
        return (f"the study folder {what}",)

    def _show(self, progress: StudyProgress) -> None:
        new = (*progress.warnings[self._heard :], *self._new_errors(), *self._folder_trouble())
        self._heard = len(progress.warnings)
        self._warnings += new
        self._last = replace(progress, warnings=self._warnings)
        self._file.update(self._last)
        if self._view is not None:
            self._view.update(self._last)
        else:
            for warning in new:
                warnings.warn(warning, RuntimeWarning, stacklevel=2)


class ProgressFile:
    """A view that is a file in the study folder. A file that cannot be written is passed over: the logs do not need it,
    and who watches sees that nothing new comes.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._path, self._written = folder.progress, -WRITE_SECONDS
        self._progress: StudyProgress | None = None
        self.error: str | None = None  # why it cannot be written, and workers cannot leave models beside it
        self._write(SearchState(state=RUNNING))

    def update(self, progress: StudyProgress) -> None:
        """Take note of it, and write it down unless that was done a moment ago."""
        self._progress, now = progress, time.monotonic()
        if now - self._written >= WRITE_SECONDS:
            self._written = now
            self._write(SearchState(state=RUNNING, progress=progress))

    def close(self) -> None:
        """Nothing to take down; `end` says how it ended."""

    def end(self, state: str, error: str | None = None) -> None:
        """Write down the last progress, and how the search ended."""
        self._write(SearchState(state=state, error=error, progress=self._progress))

    def _write(self, state: SearchState) -> None:
        try:
            with written_whole(self._path) as beside:
                beside.write_text(state.to_json() + "\n", encoding="utf-8")
            self.error = None
        except OSError as error:
            self.error = error.strerror or str(error)
