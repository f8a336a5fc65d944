"""The two logs: every line whole, nothing rewritten, a torn tail ignored and mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.log import append_line, read_lines, repair_tail
from autoprune.study.outcome import STATUSES, Outcome, Proposal, Rung

RECIPE = Recipe(method=MethodChoice(name="bn_scale", params={"penalty": 1e-4}), target=Target(flops=0.3))
share = st.floats(0, 1)
rungs = st.builds(Rung, share=share, images=st.integers(0, 10**9), accuracy=share, seconds=share)
outcomes = st.builds(
    Outcome,
    id=st.integers(0, 999),
    recipe=st.just(RECIPE),
    status=st.sampled_from(STATUSES),
    accuracy=st.none() | share,
    flops_ratio=st.none() | share,
    rungs=st.lists(
        st.builds(Rung, share=share, images=st.integers(0, 10**9), accuracy=share, seconds=share), max_size=3
    ).map(tuple),
    widths=st.dictionaries(st.text(max_size=5), st.integers(1, 99), max_size=3),
    seconds=st.dictionaries(st.text(max_size=5), share, max_size=3),
    error=st.none() | st.text(),
)


@given(outcomes)
def test_an_outcome_is_one_line_and_survives_it(outcome: Outcome) -> None:
    line = outcome.to_json()

    assert "\n" not in line
    assert outcome == Outcome.from_json(line)


def test_a_proposal_survives_its_line() -> None:
    proposal = Proposal(id=7, recipe=RECIPE, params={"a": 0.1}, distributions={"a": "{}"}, proposed=1.5, control=True)

    assert proposal == Proposal.from_json(proposal.to_json())


def test_nan_never_reaches_a_log() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        Outcome(id=0, recipe=RECIPE, status="completed", accuracy=float("nan")).to_json()


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "log:3: not JSON"), ("[1]", "log:3: expected an object"), ('{"id": 1}', "log:3.recipe: expected")],
)
def test_a_line_that_is_something_else_is_an_error_with_its_place(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Outcome.from_json(line, "log:3")


def study(folder: Path, proposed: int, ended: list[int]) -> StudyFolder:
    paths = StudyFolder(folder)
    paths.config.write_text("task: {kind: classification}\n")
    for number in range(proposed):
        append_line(paths.proposals, Proposal(id=number, recipe=RECIPE).to_json())
    for number in ended:
        append_line(paths.outcomes, Outcome(id=number, recipe=RECIPE, status="completed", accuracy=0.5).to_json())
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


def test_line_numbers_count_from_one(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "a")
    append_line(tmp_path / "log", "b")

    assert [(1, "a"), (2, "b")] == list(read_lines(tmp_path / "log"))


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study in '.*'; allowed: a folder written by `autoprune search`"):
        load_study(tmp_path)
