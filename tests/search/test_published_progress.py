"""progress.json while a search runs, and after every way to end."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from told_progress import progress

from autoprune.errors import SearchInterrupted, StudyError
from autoprune.search import published_progress
from autoprune.search.published_progress import published
from autoprune.study.folder import StudyFolder
from autoprune.study.progress import SearchState


def said(folder: StudyFolder) -> SearchState:
    return SearchState.of_folder(folder.progress)


def test_the_folder_says_how_far_the_search_is_and_at_last_how_it_ended(tmp_path: Path) -> None:
    folder, notes = StudyFolder(tmp_path), fakes.Notes()
    with published(folder, notes) as views:
        began = said(folder)
        views.update(progress(done=3))
        first = said(folder)
        views.update(progress(done=5))  # a moment later: not worth a write

        assert began == SearchState(state="running")
        assert first == said(folder) == SearchState(state="running", progress=progress(done=3))
    assert said(folder) == SearchState(state="ended", progress=progress(done=5))
    assert [seen.done for seen in notes.seen] == [3, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_it_is_written_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_progress, "WRITE_SECONDS", 0.0)
    folder = StudyFolder(tmp_path)
    with published(folder, None) as views:
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
    folder = StudyFolder(tmp_path)

    def search() -> None:
        with published(folder, None) as views:
            views.update(progress())
            raise error

    with pytest.raises(type(error)):
        search()
    assert said(folder) == SearchState(state=state, error=why, progress=progress())


def test_a_folder_that_cannot_be_written_does_not_end_the_search(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "gone")
    with published(folder, None) as views:
        views.update(progress())

    assert not folder.path.exists()
