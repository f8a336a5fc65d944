"""progress.json while a search runs, and after every way to end."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from commands import OUTCOMES
from told_progress import progress

from autoprune.errors import SearchInterrupted, StudyError
from autoprune.search import published_progress
from autoprune.search.published_progress import published
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.outcome import Outcome
from autoprune.study.progress import SearchState
from autoprune.study.tracker import TrackedStudy, Tracker


def nothing_yet(path: Path) -> Study:
    """A study that has just begun."""
    return Study(StudyFolder(path), {}, (), ())


def said(folder: StudyFolder) -> SearchState:
    return SearchState.of_folder(folder.progress)


def test_the_folder_says_how_far_the_search_is_and_at_last_how_it_ended(tmp_path: Path) -> None:
    study, notes = nothing_yet(tmp_path), fakes.Notes()
    folder = study.folder
    with published(study, notes, {}) as views:
        began = said(folder)
        views.update(progress(done=3))
        first = said(folder)
        views.update(progress(done=5))  # a moment later: not worth a write

        assert began == SearchState(state="running")
        assert first == said(folder) == SearchState(state="running", progress=progress(done=3))
    assert said(folder) == SearchState(state="ended", progress=progress(done=5))
    assert [seen.done for seen in notes.seen] == [3, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_what_of_the_space_cannot_work_is_shown_from_the_start(tmp_path: Path) -> None:
    notes = fakes.Notes()
    with published(nothing_yet(tmp_path), notes, {}, ("svd needs 390 steps: it is not drawn",)) as views:
        views.update(progress())

    assert [seen.warnings for seen in notes.seen] == [("svd needs 390 steps: it is not drawn",)]


def test_it_is_written_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_progress, "WRITE_SECONDS", 0.0)
    study = nothing_yet(tmp_path)
    folder = study.folder
    with published(study, None, {}) as views:
        for done in (3, 5):
            views.update(progress(done=done))
            assert said(folder).progress == progress(done=done)


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (SearchInterrupted("stopped with 3 outcomes kept"), "interrupted", "stopped with 3 outcomes kept"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (StudyError("no trial completed"), "failed", "StudyError: no trial completed"),
        (OSError(28, "No space left on device"), "failed", "OSError: [Errno 28] No space left on device"),
    ],
)
def test_whatever_ends_it_is_said_and_raised(tmp_path: Path, error: BaseException, state: str, why: str) -> None:
    study = nothing_yet(tmp_path)
    folder = study.folder

    def search() -> None:
        with published(study, None, {}) as views:
            views.update(progress())
            raise error

    with pytest.raises(type(error)):
        search()
    assert said(folder) == SearchState(state=state, error=why, progress=progress())


def test_a_folder_that_cannot_be_written_does_not_end_the_search(tmp_path: Path) -> None:
    study, notes = nothing_yet(tmp_path / "gone"), fakes.Notes()
    folder = study.folder
    with published(study, notes, {}) as views:
        views.update(progress())
        assert not folder.path.exists()
        folder.path.mkdir()
        views._file._written -= published_progress.WRITE_SECONDS
        views.update(progress())
        views.update(progress())

    assert notes.seen[0].warnings == ("the study folder cannot be written at the moment: No such file or directory",)
    assert notes.seen[-1].warnings == (*notes.seen[0].warnings, "the study folder can be written again")


class Deaf(Tracker):
    """A tracker that fails when it hears of its second trial, or at the end."""

    def __init__(self, at: int) -> None:
        self.at, self.heard = at, 0

    def open(self, _study: TrackedStudy) -> Deaf:
        return self

    def record(self, _outcome: Outcome) -> None:
        self.heard += 1
        if self.heard == self.at:
            raise ConnectionError("gone")

    def close(self) -> None:
        if self.at == -1:
            raise ConnectionError("gone")


@pytest.mark.parametrize("at", [2, -1])
def test_a_tracker_that_fails_ends_nothing_and_is_said_in_view_and_folder(tmp_path: Path, at: int) -> None:
    study, notes, tracker = nothing_yet(tmp_path), fakes.Notes(), Deaf(at)
    with published(study, notes, {"deaf": tracker}) as views:
        for outcome in OUTCOMES:
            views.update(progress(outcome))
    progress_at_last = said(study.folder).progress

    assert tracker.heard == 4
    assert progress_at_last is not None
    (warning,) = progress_at_last.warnings
    assert "tracker deaf: " in warning
    assert "ConnectionError: gone" in warning
    assert notes.seen[-1].warnings == (warning,)
    assert [outcome for seen in notes.seen for outcome in seen.latest] == list(OUTCOMES)


def test_without_a_view_python_warns_once(tmp_path: Path) -> None:
    def search() -> None:
        with published(nothing_yet(tmp_path), None, {"deaf": Deaf(2)}) as views:
            for outcome in OUTCOMES:
                views.update(progress(outcome))

    with pytest.warns(RuntimeWarning, match="ConnectionError: gone") as warned:
        search()
    assert len(warned) == 1
