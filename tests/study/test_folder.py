"""A study folder is read as it stands: unfinished proposals, torn logs, the front."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import rmse_study
from commands import OUTCOMES, Capture, works, write_study

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.log import append_line, repair_tail
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome, Proposal

RECIPE = Recipe(method=MethodChoice(name="bn_scale", params={"penalty": 1e-4}), target=Target(flops=0.3))


def study(folder: Path, proposed: int, ended: list[int]) -> StudyFolder:
    paths = StudyFolder(folder)
    paths.config.write_text("task: {kind: classification}\n")
    for number in range(proposed):
        append_line(paths.proposals, Proposal(id=number, recipe=RECIPE).to_json())
    for number in ended:
        append_line(paths.outcomes, Outcome(id=number, recipe=RECIPE, status="completed", metric=0.5).to_json())
    return paths


def test_unfinished_proposals_are_those_without_an_outcome(tmp_path: Path) -> None:
    study(tmp_path, 5, [3, 0])

    assert [1, 2, 4] == [proposal.id for proposal in load_study(tmp_path).unfinished()]


def test_a_torn_tail_is_ignored_and_the_next_line_stands_alone(tmp_path: Path) -> None:
    paths = study(tmp_path, 3, [0, 1])
    whole = paths.outcomes.read_bytes()
    paths.outcomes.write_bytes(whole[:-5])

    assert [0] == [outcome.id for outcome in load_study(tmp_path).outcomes]
    repair_tail(paths.outcomes)
    append_line(paths.outcomes, Outcome(id=2, recipe=RECIPE, status="failed", error="x").to_json())
    assert [0, 2] == [outcome.id for outcome in load_study(tmp_path).outcomes]


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study in '.*'; allowed: a folder written by `autoprune search`"):
        load_study(tmp_path)


def test_a_wrong_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    paths = study(tmp_path, 1, [0])
    append_line(
        paths.paused, Outcome(id=0, recipe=RECIPE, status="paused").to_json().replace('"seed": 0', '"seed": -1')
    )

    with pytest.raises(InputError, match=r"paused.jsonl:1.*seed: -1 is out of range"):
        load_study(tmp_path)


def test_a_recipe_is_read_once_however_many_lines_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path, 3, [0, 1, 2])
    places, read = [], Recipe.from_dict
    monkeypatch.setattr(Recipe, "from_dict", lambda data, where: places.append(where) or read(data, where))

    loaded = load_study(tmp_path)

    assert [outcome.recipe for outcome in loaded.outcomes] == [RECIPE] * 3
    assert places == [f"{loaded.folder.proposals}:1.recipe"]


def test_the_front_is_in_the_objectives_of_the_study_and_worked_out_once(tmp_path: Path) -> None:
    paths = StudyFolder(tmp_path)
    paths.config.write_text("objectives: [accuracy, params]\n")
    for number, (flops, params) in enumerate([(0.3, 0.7), (0.5, 0.5)]):
        costs = {"flops_ratio": flops, "params_ratio": params}
        outcome = Outcome(id=number, recipe=RECIPE, status="completed", metric=0.9, **costs)
        append_line(paths.outcomes, outcome.to_json())
    loaded = load_study(tmp_path)

    assert [member.id for member in loaded.front] == [1]
    assert loaded.front is loaded.front


def test_a_study_of_another_metric_is_read_by_its_name(tmp_path: Path) -> None:
    folder = rmse_study.write(tmp_path / "trees", finalists=True)
    found = load_study(folder.path)

    assert found.metric == MetricSpec(**rmse_study.METRIC)
    assert (found.objectives, found.dense_metric) == (("rmse", "flops"), 1.4)
    assert [outcome.metric for outcome in found.outcomes] == [1.3, 4.2, 2.9, 2.1, 1.4, None, None]
    assert [rung.metric for rung in found.outcomes[3].rungs] == [1.7 * 2.1, 2.1]
    assert [run.test_metric for run in found.finalists] == [1.2, 2.3, 1.6, 2.7]
    assert [member.id for member in found.front] == [3, 7, 11]


def test_a_line_with_the_name_of_another_metric_is_refused(tmp_path: Path) -> None:
    folder = rmse_study.write(tmp_path / "trees")
    folder.outcomes.write_text(rmse_study.LINES[1].replace('"rmse"', '"accuracy"') + "\n")

    with pytest.raises(InputError, match=r"outcomes\.jsonl:1\.rungs\[0\]: unknown key 'accuracy'"):
        load_study(folder.path)


def test_a_limit_on_the_metric_shortens_the_front(tmp_path: Path) -> None:
    folder = rmse_study.write(tmp_path / "trees", constraints={"metric": 1.5})

    assert [member.id for member in load_study(folder.path).front] == [11]


def with_line(folder: Path, number: int, **changes: Any) -> None:
    """Change fields of a line of the outcomes."""
    log = folder / "outcomes.jsonl"
    lines = log.read_text().splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes})
    log.write_text("\n".join(lines) + "\n")


def test_fields_of_a_later_version_are_left_out_and_said(tmp_path: Path, capsys: Capture) -> None:
    write_study(tmp_path / "study", OUTCOMES)
    with_line(tmp_path / "study", 2, colour=3)
    study = load_study(tmp_path / "study")

    assert OUTCOMES == study.outcomes
    assert (f"{tmp_path}/study/outcomes.jsonl:2: 'colour' is not read",) == study.unread
    assert "outcomes.jsonl:2: 'colour' is not read" in works(capsys, "status", str(tmp_path / "study"))
    assert list(study.unread) == json.loads(works(capsys, "status", str(tmp_path / "study"), "--json"))["unread"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": math.nan}, r"outcomes\.jsonl:2: not JSON: NaN is no number"),
        ({"accuracy": 1.7}, r"outcomes\.jsonl:2\.accuracy: 1\.7 is out of range; allowed: from 0 to 1"),
        ({"accuracy": None}, r"outcomes\.jsonl:2: a completed trial without accuracy"),
        ({"id": 3}, r"outcomes\.jsonl:2: trial 3 stands in line 1 already; allowed: one line for each"),
        ({"flops_ratio": -0.1}, r"outcomes\.jsonl:2\.flops_ratio: -0\.1 is out of range"),
    ],
)
def test_outcomes_that_no_search_writes_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_study(tmp_path / "study", OUTCOMES)
    with_line(tmp_path / "study", 2, **changes)

    with pytest.raises(InputError, match=message):
        load_study(tmp_path / "study")
