"""progress.json: how far a search is, written beside its logs for whoever watches the folder from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from autoprune.errors import SearchInterrupted
from autoprune.files import written_whole
from autoprune.search.running.evaluator import describe_error
from autoprune.study.folder import StudyFolder
from autoprune.study.progress import ENDED, FAILED, INTERRUPTED, RUNNING, SearchState, StudyProgress, View

#: The file is written once in so many seconds at most; the folder may lie on a file system that is far away.
WRITE_SECONDS = 2.0


@contextmanager
def published(folder: StudyFolder, view: View | None) -> Iterator[View]:
    """A view that shows progress in the given one, if any, and in the study folder; at the end the folder says how
    the block ended.
    """
    file = ProgressFile(folder)
    try:
        yield Views([file] if view is None else [view, file])
    except (SearchInterrupted, KeyboardInterrupt) as error:
        file.end(INTERRUPTED, str(error) or "interrupted")
        raise
    except BaseException as error:
        file.end(FAILED, describe_error(error))
        raise
    file.end(ENDED)


class Views:
    """Several views as one."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = tuple(views)

    def update(self, progress: StudyProgress) -> None:
        """Show it in each of them."""
        for view in self._views:
            view.update(progress)

    def close(self) -> None:
        """Close each of them."""
        for view in self._views:
            view.close()


class ProgressFile:
    """A view that is a file in the study folder. A file that cannot be written is passed over: the logs do not need it,
    and who watches sees that nothing new comes.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._path, self._written = folder.progress, -WRITE_SECONDS
        self._progress: StudyProgress | None = None
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
        with suppress(OSError), written_whole(self._path) as beside:
            beside.write_text(state.to_json() + "\n", encoding="utf-8")
