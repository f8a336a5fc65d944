"""Which trials `finish` trains again: those that are named, the knee, or what limits pick; else along the front."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import OUTCOMES, Capture, fails, write_study

from autoprune.cli import parser
from autoprune.cli.picking import picked_trials
from autoprune.study.folder import load_study


@pytest.mark.parametrize(
    ("options", "picked"),
    [
        ([], ()),
        (["--trials", "7", "3"], (7, 3)),
        (["--knee"], (5,)),
        (["--max-flops", "0.4"], (3,)),
        (["--min-accuracy", "0.9"], (7,)),
    ],
)
def test_what_is_picked(options: list[str], picked: tuple[int, ...], here: Path) -> None:
    study = load_study(write_study(here / "study", OUTCOMES))
    args = parser.build_parser().parse_args(["finish", "study", *options])

    assert picked_trials(study, args) == picked


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--trials", "7", "--knee"], "finish: more than one choice; allowed: --trials, --knee, or any of"),
        (["--knee", "--most", "2"], "--most is for the whole front"),
        (["--max-flops", "0.01"], "the nearest is trial 3"),
    ],
)
def test_what_does_not_go_together(options: list[str], what: str, capsys: Capture, here: Path) -> None:
    study = write_study(here / "study", OUTCOMES)

    assert what in fails(capsys, "finish", study, *options)
