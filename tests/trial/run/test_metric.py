"""The metric of a trial: under its name in what a trial leaves to go on from, and refused if it is no number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import user_tasks
from user_tasks import Net

import autoprune as ap
from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.training.runtime import Runtime
from autoprune.trial import run as trial_run
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

RECIPE = Recipe(
    method=MethodChoice(name="l1"),
    target=Target(flops=0.5),
    training=Training(images=80, batch_size=8, lr=0.01, rungs=(0.0, 0.5, 1.0)),
)


def shared(*values: float) -> SharedState:
    """A task whose errors are these, one after the other, whatever the model."""
    told: Iterator[float] = iter(values)
    metric = {"function": lambda _model, _loader: next(told), "direction": "minimize", "best": 0, "called": "miss"}
    parts = {"train": user_tasks.train_loader(), "validation": user_tasks.val_loader(), "loss": user_tasks.loss}
    return SharedState.of(ap.Task(model=Net, metric=metric, **parts), Runtime(threads=1))


def test_rungs_are_left_under_the_name_of_the_metric(tmp_path: Path) -> None:
    outcome = run(RECIPE, shared(7.0, 5.0, 3.0), scratch=tmp_path).outcome

    assert (outcome.metric, [rung.metric for rung in outcome.rungs]) == (3.0, [7.0, 5.0, 3.0])
    assert [rung["miss"] for rung in json.loads((tmp_path / "progress.json").read_text())["rungs"]] == [7.0, 5.0, 3.0]


def test_a_stopped_trial_goes_on_with_the_rungs_that_it_left(tmp_path: Path) -> None:
    first = run(RECIPE, shared(7.0, 5.0), lambda rung, _: rung.share < 0.5, scratch=tmp_path).outcome
    second = run(RECIPE, shared(3.0), scratch=tmp_path).outcome

    assert [rung.metric for rung in first.rungs] == [7.0, 5.0]
    assert [rung.metric for rung in second.rungs] == [7.0, 5.0, 3.0]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((7.0, 5.0, -1.0), "the miss is -1 on the validation split after 80 images; allowed: a number, 0 or more"),
        ((7.0, -1.0), "the miss is -1 on the validation split after 40 images; allowed: a number, 0 or more"),
    ],
)
def test_what_is_out_of_range_fails_the_trial(values: tuple[float, ...], error: str) -> None:
    outcome = run(RECIPE, shared(*values)).outcome

    assert (outcome.status, outcome.metric) == ("failed", None)
    assert error in str(outcome.error)
    assert [rung.metric for rung in outcome.rungs] == list(values[:-1])


def test_what_is_no_number_fails_the_trial_and_can_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_run, "evaluate", lambda *_: math.nan)
    outcome = run(RECIPE, shared()).outcome

    expected = "the miss is nan on the validation split after 0 images; allowed: a number, 0 or more"
    assert outcome.error == f"training: {expected}"
    assert outcome.to_json()
