"""A model whose workers are struck: each of several things happens once, to whichever worker comes there first.

No recipe is struck twice, as three attempts are all it has.
It is what a search on real nodes is given, so that all between the command and the trial is real.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from torch import nn

from autoprune.search.on_ray import worker
from autoprune.tasks.zoo import digits_net
from autoprune.training.fit import TrainingLoop
from autoprune.trial import lineage, run, stages

DAY = 86400.0

#: Numbers of the recipes that have run in this process.
RUNNING: list[int] = []


def folder() -> Path:
    """Where each leaves a file."""
    return Path(os.environ["STRUCK"])


def is_first(name: str) -> bool:
    """Whether this has happened to nobody yet; from now on it has."""
    try:
        (folder() / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die() -> None:
    """As a process that the kernel ends for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, happen: Callable[..., None]) -> None:
    """Let `happen` be called before each call of a function, with what that is given."""
    known = getattr(owner, name)

    @functools.wraps(known)
    def struck(*args: Any, **options: Any) -> Any:
        happen(*args, **options)
        return known(*args, **options)

    mock.patch.object(owner, name, struck).start()


def strikes(name: str) -> bool:
    """Whether it happens now: it is the first time, and the first time to the recipe that runs here."""
    return not (folder() / name).exists() and is_first(f"recipe-{RUNNING[-1]}") and is_first(name)


def once(name: str) -> Callable[..., None]:
    """Die, if it happens now."""

    def happen(*_args: Any, **_options: Any) -> None:
        if strikes(name):
            die()

    return happen


def note_recipe(*_args: Any, **options: Any) -> None:
    """Which recipe runs in this process."""
    RUNNING.append(options["id"])


def take_notice(loop: TrainingLoop, _parts: Any) -> None:
    """Notice of the end of this process, in the middle of a training; the file says before which step."""
    if loop.step == 7 and strikes("notice"):
        (folder() / "notice").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGTERM)


def note_first_step(loop: TrainingLoop, *_args: Any) -> None:
    """Every training that goes on says from which step."""
    if loop.step:
        with (folder() / "went_on").open("a") as file:
            file.write(f"{loop.step}\n")


def let_clock_jump() -> None:
    """To the next day, as this process sees it."""
    true = time.time
    mock.patch.object(time, "time", side_effect=lambda: true() + DAY).start()


def build() -> nn.Module:
    """`digits_net`, for ten digits of 8 x 8; in a worker it lets all of it happen."""
    if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        before(lineage, "run", note_recipe)
        before(stages, "select_channels", once("scoring"))
        before(TrainingLoop, "train_step", once("training"))
        before(TrainingLoop, "train_step", take_notice)
        before(TrainingLoop, "run", note_first_step)
        before(run, "evaluate", once("evaluation"))
        before(worker, "read_files", once("pausing"))
        if is_first("clock"):
            let_clock_jump()
    return digits_net((1, 8, 8), 10)
