"""Random events: what is drawn, which processes belong to a search, what is counted; all that ends here is a sleep."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from autoprune.analysis.benchmarks.random_events import (
    KINDS,
    Plan,
    Process,
    count,
    descendants,
    find_process,
    left_behind,
    passed,
    processes_of_trials,
)
from autoprune.study.folder import StudyFolder


def test_a_seed_draws_every_kind_as_often_in_an_order_of_its_own() -> None:
    first, second = Plan.draw(3, 20), Plan.draw(4, 20)

    assert first == Plan.draw(3, 20)
    assert first.kinds != second.kinds
    assert Counter(first.kinds) == Counter(second.kinds) == dict.fromkeys(KINDS, 5)
    assert len(first.gaps) == 20
    assert set(first.gaps) <= {2, 3, 4, 5}


def process(pid: int, parent: int, command: str = "") -> Process:
    return Process(pid, "0", parent, command)


def test_descendants_are_all_that_a_process_and_its_children_have_started() -> None:
    known = [process(7, 1), process(11, 7), process(13, 11), process(17, 1), process(19, 17)]

    assert {found.pid for found in descendants([7], known)} == {7, 11, 13}
    assert descendants([23], known) == set()


def test_processes_of_trials_are_known_by_the_names_that_ray_gives_them() -> None:
    names = ["ray::ResourceTrainable.train", "ray::Peer.run", "ray::Peer", "ray::StudyActor", "python"]
    known = [process(number, 1, name) for number, name in enumerate(names)]

    assert [found.pid for found in processes_of_trials(known)] == [0, 1]


def test_a_process_that_has_ended_is_not_left_behind_and_one_that_sleeps_is() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as sleeping:
        found = find_process(sleeping.pid)
        assert found is not None
        assert found.alive
        assert left_behind({found}, seconds=0.0) == [found]
        sleeping.communicate()

    assert left_behind({found}, seconds=0.0) == []


def test_what_did_not_end_exactly_once_is_counted(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    study.proposals.write_text("".join(f'{{"id": {number}}}\n' for number in (3, 5, 7, 11)))
    ended = [(3, "completed"), (5, "failed"), (7, "stopped"), (7, "completed"), (13, "completed")]
    lines = [json.dumps({"id": number, "status": status, "error": "it died"}) for number, status in ended]
    study.outcomes.write_text("".join(f"{line}\n" for line in lines))

    assert count(study) == {
        "recipes": 4,
        "ended": {"completed": 3, "failed": 1, "stopped": 1},
        "not_once": [7, 11, 13],
        "errors": ["it died"],
        "paused": 0,
    }


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [({}, True), ({"not_once": [7]}, False), ({"outcomes_lost": 1}, False), ({"processes_left": ["x"]}, False)],
)
def test_a_search_has_passed_if_nothing_is_wrong(wrong: dict[str, object], expected: bool) -> None:
    counted = {"exit_code": 0, "not_once": [], "outcomes_lost": 0, "processes_left": [], **wrong}

    assert passed(counted) is expected
    assert not passed({**counted, "exit_code": 1})
