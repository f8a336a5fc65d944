"""Tasks by kind: what the `task:` mapping of a search space turns into."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from autoprune.errors import check_name
from autoprune.schema import expect_mapping
from autoprune.tasks.base import Split, Task

#: The module of each kind, whose `load` reads the mapping; loaded when it is asked for.
KINDS = {
    "classification": "autoprune.tasks.classification",
    "detection": "autoprune.tasks.detection.task",
    "segmentation": "autoprune.tasks.segmentation.task",
}


def load_task(spec: Mapping[str, Any], where: str = "task") -> Task:
    """Read the `task:` mapping of a space file: kind, data, model.

    The data are loaded; the model is built and its weights are read when `Task.model` is called.

    Raises:
        InputError: a key or value is wrong. DataError: the data are missing or malformed. ModelError: unknown model.
    """
    mapping = expect_mapping(spec, where)
    kind = check_name(mapping.get("kind", "classification"), KINDS, kind="task", where=f"{where}.kind")
    task: Task = importlib.import_module(KINDS[kind]).load(mapping, where)
    return task


__all__ = ["KINDS", "Split", "Task", "load_task"]
