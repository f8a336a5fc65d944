"""Tasks by kind: what the `task:` mapping of a search space turns into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autoprune.errors import check_name
from autoprune.schema import expect_mapping
from autoprune.tasks import classification
from autoprune.tasks.base import Split, Task

KINDS: dict[str, Callable[[Mapping[str, Any], str], Task]] = {"classification": classification.load}


def load_task(spec: Mapping[str, Any], where: str = "task") -> Task:
    """Read the `task:` mapping of a space file: kind, data, model.

    The data are loaded; the model is built and its weights are read when `Task.model` is called.

    Raises:
        InputError: a key or value is wrong. DataError: the data are missing or malformed. ModelError: unknown model.
    """
    mapping = expect_mapping(spec, where)
    kind = check_name(mapping.get("kind", "classification"), KINDS, kind="task", where=f"{where}.kind")
    return KINDS[kind](mapping, where)


__all__ = ["KINDS", "Split", "Task", "load_task"]
