"""Running the command line in a test, and space files and study folders for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoprune.cli import parser
from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.study.folder import StudyFolder
from autoprune.study.log import append_line
from autoprune.study.outcome import Outcome

Capture = pytest.CaptureFixture[str]
DIGITS_DATA = {"name": "digits", "splits": {"train": "train", "validation": "validation", "test": "test"}}
UNTRAINED = {"name": "digits_net", "train": {"images": 0}}


def fails(capsys: Capture, *argv: str, code: int = 2) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout; returns the line."""
    capsys.readouterr()

    assert parser.main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("autoprune: error: ")
    assert "Traceback" not in err
    return err.removeprefix("autoprune: error: ").strip()


def works(capsys: Capture, *argv: str) -> str:
    """Run a command that must succeed; returns its stdout."""
    capsys.readouterr()
    code = parser.main(argv)
    out, err = capsys.readouterr()

    assert (code, err) == (0, "")
    return out


def write_space(path: Path, **changes: Any) -> str:
    """A space file on the digits that takes seconds; `changes` replace top keys."""
    plain = {
        "task": {"data": DIGITS_DATA, "model": UNTRAINED},
        "space": {
            "method": {"choice": {"l1": {}, "random": {}}},
            "target": {"flops": {"float": [0.3, 0.7]}},
            "training": {"images": 640, "batch_size": 64},
        },
        "budget": {"trials": 5},
        "resources": {"workers": 1},
        **changes,
    }
    path.write_text(yaml.safe_dump(plain))
    return str(path)


def write_study(path: Path, outcomes: Sequence[Outcome] = ()) -> str:
    """A study folder as a search leaves it, without models."""
    folder = StudyFolder(path)
    path.mkdir()
    dense = {"accuracy": 0.97, "flops": 1_000_003, "params": 1009, "activations": 10_007}
    groups = [{"id": "features.0", "size": 17, "stage": 0, "frozen": None}]
    task = {"data": DIGITS_DATA, "model": UNTRAINED}
    folder.config.write_text(yaml.safe_dump({"task": task, "dense": dense, "groups": groups}))
    for outcome in outcomes:
        append_line(folder.outcomes, outcome.to_json())
    return str(path)


def outcome(number: int, accuracy: float, flops: float, method: str = "l1") -> Outcome:
    """A completed trial."""
    recipe = Recipe(method=MethodChoice(name=method), target=Target(flops=flops), training=Training(images=640))
    ratios = {"flops_ratio": flops, "params_ratio": flops, "activations_ratio": flops}
    ratios |= {"latency_ratio": flops / 2, "latency_ms": 10 * flops}
    return Outcome(
        id=number,
        recipe=recipe,
        status="completed",
        metric=accuracy,
        widths={"features.0": 11},
        finished=number,
        **ratios,
    )


OUTCOMES = (outcome(3, 0.71, 0.31), outcome(5, 0.89, 0.47, "taylor"), outcome(7, 0.95, 0.73), outcome(9, 0.6, 0.9))


def finalist(number: int, member: Outcome, seed: int, accuracy: float, tested: float) -> Outcome:
    """A training of a member on 3,200 images."""
    recipe = replace(member.recipe, training=Training(images=3200, rungs=(1.0,)), seed=seed)
    return replace(member, id=number, member=member.id, recipe=recipe, seed=seed, metric=accuracy, test_metric=tested)


DENSE = replace(outcome(0, 0.96, 1.0, "dense"), control=True)
FINALISTS = (
    finalist(0, DENSE, 0, 0.97, 0.93),
    finalist(1, OUTCOMES[1], 0, 0.92, 0.91),
    finalist(2, DENSE, 1, 0.98, 0.95),
    finalist(3, OUTCOMES[1], 1, 0.94, 0.90),
)


def write_finished(path: Path) -> str:
    """A study whose member 5 was trained again with two seeds, of which the second is the better one."""
    study = write_study(path, (DENSE, *OUTCOMES))
    for run in FINALISTS:
        append_line(StudyFolder(path).finalists, run.to_json())
    return study
