"""Kinds of tasks: built in, a class of the user's own, a class of another package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from user_tasks import SPEC, Net, loss, test_data, train_loader, val_loader

import autoprune as ap
from autoprune import tasks
from autoprune.errors import InputError
from autoprune.tasks import load_task


class Mine(ap.Task):  # type: ignore[misc, valid-type]
    """A task that takes one argument, in its constructor."""

    def __init__(self, width: int = 13) -> None:
        super().__init__(
            model=lambda: Net(width=width),
            train=train_loader(),
            validation=val_loader(),
            loss=loss,
            metric={"name": "MulticlassAccuracy", "num_classes": 5},
        )


class Loading(Mine):
    """Takes its argument in `load`."""

    @classmethod
    def load(cls, columns: int) -> Mine:
        """As `Mine`."""
        return Mine(width=columns)


class Wrong:
    """No task."""


class Failing(Mine):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ZeroDivisionError("too few")


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    """This file under the name `mine`."""
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that these entry points are installed."""

    def pretend(**points: str) -> None:
        found = [EntryPoint(name, value, tasks.ENTRY_POINTS) for name, value in points.items()]
        monkeypatch.setattr(tasks, "entry_points", lambda group: found)

    return pretend


@pytest.mark.parametrize("spec", [{"kind": "mine:Mine", "width": 7}, {"kind": "mine:Loading", "columns": 7}])
def test_a_class_gets_the_keys_beside_kind(spec: dict[str, Any]) -> None:
    task = load_task(spec)

    assert task.model().conv1.out_channels == 7
    assert task.spec == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "mine:Wrong"}, r"task\.kind: mine:Wrong is no task; allowed: a subclass of autoprune\.tasks\.Task"),
        ({"kind": "mine:Mine", "widht": 7}, "mine:Mine failed: TypeError.*widht"),
        ({"kind": "mine:Failing"}, "mine:Failing failed: ZeroDivisionError: too few"),
        ({"kind": "mine:Absent"}, "cannot be imported"),
        ({"kind": "classificatoin"}, "did you mean 'classification'"),
        ({"kind": "python"}, "was given in Python"),
        ({"kind": 7}, "unknown task 7"),
    ],
)
def test_what_is_no_task_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_task(spec)


def test_a_package_announces_a_kind(announce: Callable[..., None]) -> None:
    announce(rows="mine:Mine")

    assert load_task({"kind": "rows", "width": 11}).model().conv1.out_channels == 11
    with pytest.raises(InputError, match="did you mean 'rows'"):
        load_task({"kind": "row"})


def test_a_package_that_cannot_be_loaded_is_named(announce: Callable[..., None]) -> None:
    announce(rows="mine:Absent")

    with pytest.raises(InputError, match=r"entry point 'rows' of an unknown package: cannot be loaded: AttributeError"):
        load_task({"kind": "rows"})


def test_without_a_kind_loss_and_metric_make_it_a_task_of_the_users_own() -> None:
    assert len(load_task(SPEC).test) == len(test_data)  # type: ignore[arg-type]
