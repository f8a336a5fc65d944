"""choose: a line for every wish, the numbers of finalists, and one line of error where nothing fits."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import rmse_study
from commands import OUTCOMES, Capture, fails, works, write_finished, write_study

from autoprune.cli import parser
from autoprune.errors import LINE


def chosen(capsys: Capture, study: str, *options: str) -> dict[str, int | None]:
    """Wish -> trial."""
    found = json.loads(works(capsys, "choose", study, "--json", *options))
    return {one["choice"]: one.get("id") for one in found["choices"]}


def test_what_is_shown_without_a_wish(capsys: Capture, here: Path) -> None:
    study = write_study(here / "study", OUTCOMES)

    assert chosen(capsys, study) == {
        "within 0.5 points": None,
        "within 1 point": None,
        "within 2 points": 7,
        "flops <= 0.5": 5,
        "knee": 5,
    }


@pytest.mark.parametrize(
    ("options", "picked"),
    [
        (["--within", "8", "26"], {"within 8 points": 5, "within 26 points": 3}),
        (["--within", "26", "--max-latency", "5ms"], {"within 26 points, ms <= 5": 5}),
        (["--max-latency", "0.2", "0.3", "--knee"], {"latency <= 0.2": 3, "latency <= 0.3": 5, "knee": 5}),
        (
            ["--max-flops", "0.4", "0.8", "--max-params", "0.5", "0.9"],
            {
                "flops <= 0.4, params <= 0.5": 3,
                "flops <= 0.4, params <= 0.9": 3,
                "flops <= 0.8, params <= 0.5": 5,
                "flops <= 0.8, params <= 0.9": 7,
            },
        ),
        (["--min-accuracy", "0.8", "0.9"], {"accuracy >= 0.8": 5, "accuracy >= 0.9": 7}),
    ],
)
def test_each_wish_picks_a_model(options: list[str], picked: dict[str, int], capsys: Capture, here: Path) -> None:
    assert chosen(capsys, write_study(here / "study", OUTCOMES), *options) == picked


def test_a_model_that_was_trained_again_has_the_numbers_of_then(capsys: Capture, here: Path) -> None:
    study = write_finished(here / "study")
    (again,) = json.loads(works(capsys, "choose", study, "--within", "3", "--json"))["choices"]
    (searched,) = json.loads(works(capsys, "choose", study, "--within", "3", "--searched", "--json"))["choices"]

    assert (again["id"], again["accuracy"], again["test_accuracy"], again["trained_again"]) == (5, 0.94, 0.90, True)
    assert (searched["id"], searched["accuracy"], searched["trained_again"]) == (7, 0.95, False)
    text = works(capsys, "choose", study, "--min-accuracy", "0.95", "0.9")
    heading = next(line for line in text.splitlines() if "choice" in line)
    assert "trained again, and handed over so: 5" in text
    assert heading.split() == ["choice", "trial", "method", "accuracy", "off", "test", "flops", "ms"]


@pytest.mark.parametrize("finished", [False, True])
def test_the_table_fits_80_columns(
    finished: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    write_finished(here / "study") if finished else write_study(here / "study", OUTCOMES)
    printed = works(capsys, "choose", "study", "--within", "3", "8", "--max-latency", "8ms", "--knee")
    lines = re.sub(r"\x1b\[\d+m", "", printed).splitlines()

    assert max(map(len, lines)) <= 80
    assert any(line.split()[:2] == ["choice", "trial"] for line in lines)  # a table, not a block for each row


def test_a_model_that_is_slower_than_the_dense_one_is_flagged(capsys: Capture, here: Path) -> None:
    slow = replace(OUTCOMES[2], latency_ratio=1.125, latency_ms=9.0)
    study = write_study(here / "study", (*OUTCOMES[:2], slow))

    said = "trial 7 may be no faster than the dense model: it takes 1.12 of the dense model's time"
    assert said in works(capsys, "choose", study)
    assert "no faster" not in works(capsys, "choose", study, "--max-flops", "0.5")


def test_what_nothing_meets_is_said_below_what_something_does(capsys: Capture, here: Path) -> None:
    """The first line of the table has no model, and all columns have their names."""
    text = works(capsys, "choose", write_study(here / "study", OUTCOMES), "--max-flops", "0.1", "0.5")

    assert "flops <= 0.1: no model on the front has flops_ratio <= 0.1; the nearest is trial 3" in text
    heading = next(line for line in text.splitlines() if "choice" in line)
    assert heading.split() == ["choice", "trial", "method", "accuracy", "off", "flops", "ms"]
    assert f"hand over: autoprune export {here}/study --trial 5 --to {here}/study/trial5" in text


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--max-flops", "0.1", "0.2"], "no model on the front has flops_ratio <= 0.1; the nearest is trial 3"),
        (["--within", "1", "--metric", "0.9"], "choose: --within and --metric say the same; allowed: one of them"),
        (["--within", "nan"], "out of range"),
        (["--within", "-1"], "out of range"),
        (["--knee", "3"], "unrecognized arguments: 3"),
    ],
)
def test_what_cannot_be_chosen(options: list[str], what: str, capsys: Capture, here: Path) -> None:
    line = fails(capsys, "choose", write_study(here / "study", OUTCOMES), *options)

    assert what in line
    assert len(line) <= LINE


def test_a_study_without_a_front(capsys: Capture, here: Path) -> None:
    assert "the front is empty" in fails(capsys, "choose", write_study(here / "study"))


def test_points_of_a_metric_without_percent_are_of_its_unit(capsys: Capture, here: Path) -> None:
    """The dense model has 1.4 cm, trial 7 has 2.1 cm."""
    study = str(rmse_study.write(here / "study").path)

    assert chosen(capsys, study, "--within", "0.7")["within 0.7 cm"] == 7
    assert list(chosen(capsys, study)) == ["flops <= 0.5", "knee"]


def test_export_takes_the_same(capsys: Capture, here: Path) -> None:
    from autoprune.cli import exports
    from autoprune.study.folder import load_study

    study = load_study(write_study(here / "study", OUTCOMES))
    args = parser.build_parser().parse_args(["export", "study", "--to", "out", "--within", "8"])

    assert exports._chosen_outcome(study, args).id == 5
