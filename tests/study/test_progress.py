"""Progress as a value, and as other processes read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from commands import OUTCOMES

from autoprune.errors import InputError
from autoprune.study.metric import MetricSpec
from autoprune.study.progress import FrontPoint, SearchState, StudyProgress

PROGRESS = StudyProgress(
    done=7,
    running=2,
    paused=3,
    stopped=11,
    failed=1,
    seconds=61.5,
    eta=None,
    used=0.25,
    metric=MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, scale=2.5),
    dense_metric=1.3,
    front=(FrontPoint(id=5, method="l1", metric=1.7, costs={"flops": 0.31, "params": 0.47}),),
)


def test_what_is_written_is_read_back_without_the_outcomes_that_the_logs_have(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text(SearchState(state="running", progress=replace(PROGRESS, latest=OUTCOMES)).to_json())

    assert SearchState.of_folder(path) == SearchState(state="running", progress=PROGRESS)


def test_trials_that_ended_are_counted() -> None:
    assert PROGRESS.ended == 19


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ('{"state": "asleep"}', "'asleep'.*allowed: ended, failed, interrupted, running|running"),
        ('{"state": "running", "left": 3}', "unknown key 'left'"),
    ],
)
def test_another_file_of_that_name_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "progress.json").write_text(text)

    with pytest.raises(InputError, match=what):
        SearchState.of_folder(tmp_path / "progress.json")


def test_a_folder_in_which_no_search_has_told_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"progress.json: no search has told here how far it is; allowed: the folder"):
        SearchState.of_folder(tmp_path / "progress.json")
