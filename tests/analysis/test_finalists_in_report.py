"""Finalists in the report: a table of its own, what the page says of the test split, and one fact at its head."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report import write_report
from autoprune.analysis.summary import summarise
from autoprune.results import Outcome, Study, append_line, load_study

#: Two seeds of a member at 40 % FLOPs, one at 70 %, and of the dense control: validation, test.
NUMBERS = {3: ((0.91, 0.885), (0.93, 0.875)), 5: ((0.94, 0.905), (0.95, 0.9)), 1: ((0.95, 0.921), (0.97, 0.931))}


@pytest.fixture
def finished(make_study: Any, build: SimpleNamespace) -> Study:
    """A study with two members and a control, all of which were trained again; one training has failed."""
    trials = {
        1: build.completed(1, 1.0, 0.93, "dense", control=True),
        3: build.completed(3, 0.4, 0.88),
        5: build.completed(5, 0.7, 0.9, "taylor"),
    }
    study = make_study(trials.values())
    runs = [again(trials[member], seed, numbers) for member in NUMBERS for seed, numbers in enumerate(NUMBERS[member])]
    runs.append(replace(runs[0], recipe=replace(runs[0].recipe, seed=2), status="failed", error="no memory"))
    for number, run in enumerate(runs):
        append_line(study.folder.finalists, replace(run, id=number).to_json())
    return load_study(study.folder.path)


def again(member: Outcome, seed: int, numbers: tuple[float, float]) -> Outcome:
    training = replace(member.recipe.training, images=25_000)
    recipe = replace(member.recipe, training=training, seed=seed)
    return replace(member, recipe=recipe, member=member.id, accuracy=numbers[0], test_accuracy=numbers[1])


def words(study: Study) -> str:
    page = write_report(study, study.folder.report).read_text(encoding="utf-8")
    return " ".join(page.split()).replace("\N{NO-BREAK SPACE}", " ")


def test_the_table_of_finalists(finished: Study) -> None:
    page = words(finished)
    section = page.split('<section id="finalists"')[1].split("</section>")[0]
    rows = [row.split("</tr>")[0] for row in section.split("<tr>")[2:]]

    assert '<a href="#finalists">Finalists</a>' in page
    assert "trained again on 25,000 images each" in section
    assert "The test split (<code>test[5000:]</code>) was read once" in section
    assert [row.split('scope="row">')[1].split("<")[0] for row in rows] == ["3", "5", "1"]
    # (0.91 + 0.93) / 2, 0.02 / sqrt(2); (0.885 + 0.875) / 2, 0.01 / sqrt(2); 0.88 - (0.921 + 0.931) / 2
    for text in ("92.00 % ± 1.41", "88.00 % ± 0.71", "\N{MINUS SIGN}4.6 points", ">40.0 %<"):
        assert text in rows[0]
    assert "dense (control)" in rows[2]
    assert "points" not in rows[2]
    assert "1 training did not complete and is left out" in section


def test_the_page_says_where_the_test_split_was_read(finished: Study, make_study: Any) -> None:
    page = words(finished)

    assert "No accuracy on this page comes from the test split" not in page
    assert 'But for the <a href="#finalists">finalists</a>, every accuracy on this page is on the validation' in page


def test_a_study_without_finalists_says_that_too(study: Study) -> None:
    page = words(study)

    assert "#finalists" not in page
    assert "No accuracy on this page comes from the test split" in page
    assert "<li>Every accuracy on this page is on the validation split" in page


def test_the_head_names_the_finalist_within_the_budget(finished: Study) -> None:
    fact = summarise(finished).facts[0].replace("\N{NO-BREAK SPACE}", " ")

    assert fact == (
        "Trained again with 2 seeds, on the test split: 88.0 % ± 0.7 (dense 92.6 % ± 0.7) at 40.0 % FLOPs, "
        "trial 3, method l1."
    )
