"""Tasks by kind: what the `task:` mapping of a search space turns into.

A kind is built in, a class of the user's own (`module:Class`), or comes from another package by an entry point, in its
pyproject.toml:

    [project.entry-points."autoprune.tasks"]
    depth = "my_package:DepthTask"          # a subclass of autoprune.tasks.Task

A class gets the keys beside `kind` as arguments: of its class method `load` if it has one, else of its constructor.
Without `kind` it is a task of the user's own loaders if `data` has `train`, else classification; classification takes
such loaders too, and then knows loss and metric.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from autoprune.errors import AutopruneError, InputError, check_name
from autoprune.schema import expect_mapping, to_plain
from autoprune.tasks.base import Split, Task
from autoprune.tasks.user_code import load_object

#: The module of each kind, whose `load` reads the mapping; loaded when it is asked for.
KINDS = {
    "classification": "autoprune.tasks.classification",
    "detection": "autoprune.tasks.detection.task",
    "segmentation": "autoprune.tasks.segmentation.task",
    "loaders": "autoprune.tasks.own.task",
    "ultralytics": "autoprune.tasks.ultralytics.task",
}

#: The module of a kind where `data` names the user's own loaders, if that is another one.
OF_LOADERS = {"classification": "autoprune.tasks.own.classification"}

ENTRY_POINTS = "autoprune.tasks"

#: The kind of a task that was given in Python: a study can name it, but not build it.
IN_PYTHON = "python"


def load_task(spec: Mapping[str, Any], where: str = "task") -> Task:
    """Read the `task:` mapping of a space file: kind, data, model.

    The data are loaded; the model is built and its weights are read when `Task.model` is called.

    Raises:
        InputError: a key or value is wrong, or the task was given in Python. DataError: the data are missing or
            malformed. ModelError: unknown model.
    """
    mapping = expect_mapping(spec, where)
    data = mapping.get("data")
    own = isinstance(data, Mapping) and "train" in data
    kind = mapping.get("kind", "loaders" if own else "classification")
    if kind == IN_PYTHON:
        allowed = (
            "the same task as an argument, in Python: autoprune.resume(folder, task=...), likewise finish and replay"
        )
        raise InputError("the task of this study was given in Python", where=where, allowed=allowed)
    if isinstance(kind, str) and ":" in kind:
        return _of_class(load_object(kind, f"{where}.kind"), kind, mapping, where)
    if isinstance(kind, str) and kind in KINDS:
        module = OF_LOADERS.get(kind, KINDS[kind]) if own else KINDS[kind]
        task: Task = importlib.import_module(module).load(mapping, where)
        return task
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    check_name(kind, (*KINDS, *installed), kind="task", where=f"{where}.kind")
    return _of_class(_loaded(installed[kind]), kind, mapping, where)


def _loaded(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # the package's code may raise anything
        package = point.dist.name if point.dist is not None else "an unknown package"
        where = f"entry point {point.name!r} of {package}"
        raise InputError(f"cannot be loaded: {type(error).__name__}: {error}", where=where) from error


def _of_class(found: object, kind: str, mapping: Mapping[str, Any], where: str) -> Task:
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"{kind} is no task", where=f"{where}.kind", allowed="a subclass of autoprune.tasks.Task")
    arguments = {key: item for key, item in mapping.items() if key != "kind"}
    try:
        task = getattr(found, "load", found)(**arguments)
    except AutopruneError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{kind} failed: {type(error).__name__}: {error}", where=where) from error
    if not isinstance(task, Task):
        raise InputError(f"{kind} gives a {type(task).__name__}", where=where, allowed="a task from its `load`")
    return with_spec(task, mapping)


def with_spec(task: Task, spec: Mapping[str, Any]) -> Task:
    """The same task, which says that it was read from this mapping."""
    known = copy.copy(task)
    object.__setattr__(known, "spec", to_plain(spec))  # tasks are frozen, and may have constructors of their own
    return known


__all__ = ["IN_PYTHON", "KINDS", "Split", "Task", "load_task", "with_spec"]
