"""A study as another process sees it change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import FINALISTS, OUTCOMES, write_study
from told_progress import end_trial, tell

from autoprune.errors import InputError
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.log import append_line
from autoprune.study.watcher import StudyWatcher


@pytest.fixture
def study(tmp_path: Path) -> str:
    """A study with two outcomes, whose search runs."""
    folder = write_study(tmp_path / "study", OUTCOMES[:2])
    tell(folder)
    return folder


def ids(watcher: StudyWatcher) -> list[int]:
    return [outcome.id for outcome in watcher.look().latest]


def test_each_outcome_is_told_of_once_and_those_from_before_never(study: str) -> None:
    watcher = StudyWatcher(load_study(study))
    first = ids(watcher)
    end_trial(study, *OUTCOMES[2:])
    append_line(StudyFolder(Path(study)).finalists, FINALISTS[3].to_json())

    assert (first, ids(watcher), ids(watcher)) == ([], [7, 9, 3], [])


def test_half_a_line_waits_until_it_is_whole(study: str) -> None:
    watcher = StudyWatcher(load_study(study))
    line = OUTCOMES[2].to_json().encode()
    with StudyFolder(Path(study)).outcomes.open("ab") as log:
        log.write(line[:31])
        log.flush()
        torn = ids(watcher)
        log.write(line[31:] + b"\n")

    assert (torn, ids(watcher)) == ([], [7])


def test_it_has_ended_when_the_driver_says_so(study: str) -> None:
    watcher = StudyWatcher(load_study(study))
    running = watcher.look()
    said = tell(study, "interrupted", "by the user", done=13)
    sighting = watcher.look()

    assert not running.ended
    assert sighting.ended
    assert sighting.state == said


def test_a_folder_that_is_gone_for_a_while_comes_back_with_all_that_happened(study: str) -> None:
    watcher = StudyWatcher(load_study(study))
    away = Path(study).rename(Path(study).with_name("away"))
    gone = watcher.look()
    tell(away, "ended")
    end_trial(away, OUTCOMES[3])
    away.rename(study)
    back = watcher.look()

    assert gone.unreachable is not None
    assert not gone.ended
    assert (back.unreachable, back.ended, [outcome.id for outcome in back.latest]) == (None, True, [9])


def test_outcomes_of_a_look_that_fails_are_told_of_by_the_next_one(study: str) -> None:
    watcher, folder = StudyWatcher(load_study(study)), StudyFolder(Path(study))
    end_trial(study, OUTCOMES[2])
    folder.finalists.mkdir()  # cannot be read as a log
    failed = watcher.look()
    shutil.rmtree(folder.finalists)

    assert failed.unreachable is not None
    assert "directory" in failed.unreachable
    assert ids(watcher) == [7]


def test_a_line_that_is_no_outcome_is_named(study: str) -> None:
    watcher = StudyWatcher(load_study(study))
    append_line(StudyFolder(Path(study)).outcomes, "\0\0\0")
    sighting = watcher.look()

    assert sighting.unreachable is not None
    assert "outcomes.jsonl:3: not JSON" in sighting.unreachable


def test_it_counts_for_how_long_nothing_has_changed(study: str) -> None:
    now = 0.0
    watcher = StudyWatcher(load_study(study), clock=lambda: now)
    now = 17.0
    before = watcher.look().quiet
    tell(study, seconds=62.0)
    now = 23.0
    changed = watcher.look().quiet
    now = 30.0

    assert (before, changed, watcher.look().quiet) == (17.0, 0.0, 7.0)


def test_a_study_that_no_search_tells_of_is_refused(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "study", OUTCOMES))

    with pytest.raises(InputError, match="no search has told here how far it is"):
        StudyWatcher(study)
