"""The trackers that a space file or `--tracker` names, found and checked before the search begins."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from autoprune.errors import InputError, check_name
from autoprune.schema import read
from autoprune.study.tracker import Tracker

ENTRY_POINTS = "autoprune.trackers"

#: Module and class of each; loaded when it is asked for.
BUILT_IN = {
    "mlflow": "autoprune.search.tracking.mlflow:MLflow",
    "tensorboard": "autoprune.search.tracking.tensorboard:TensorBoard",
    "wandb": "autoprune.search.tracking.wandb:WandB",
}


def build_trackers(choices: Sequence[Mapping[str, Any]]) -> dict[str, Tracker]:
    """The trackers by name.

    Args:
        choices: `StudyConfig.trackers`.

    Raises:
        InputError: one has no name, an unknown one or one that came before, an option that it does not have, or needs
            a package that is not installed.
    """
    found: dict[str, Tracker] = {}
    for number, choice in enumerate(choices):
        where = f"trackers[{number}]"
        name, options = choice.get("name"), {key: value for key, value in choice.items() if key != "name"}
        kind = _find(name, f"{where}.name")
        if name in found:
            raise InputError(f"{name!r} is named twice", where=where, allowed="each once")
        found[str(name)] = read(kind, options, where)
    return found


def _find(name: object, where: str) -> type[Tracker]:
    """The class of a tracker whose package is installed."""
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    known = check_name(name, [*BUILT_IN, *installed], kind="tracker", where=where)
    if known not in BUILT_IN:
        return _loaded(installed[known])
    module, _, attribute = BUILT_IN[known].partition(":")
    kind: type[Tracker] = getattr(importlib.import_module(module), attribute)
    if kind.package is not None and importlib.util.find_spec(kind.package) is None:
        what, allowed = f"{known!r} needs a package that is absent", f"pip install 'autoprune[{kind.extra}]'"
        raise InputError(what, where=where, allowed=allowed)
    return kind


def _loaded(point: EntryPoint) -> type[Tracker]:
    package = point.dist.name if point.dist is not None else "an unknown package"
    where = f"entry point {point.name!r} of {package}"
    try:
        kind = point.load()
    except Exception as error:  # the package's code may raise anything
        raise InputError(f"cannot be loaded: {type(error).__name__}: {error}", where=where) from error
    if not (isinstance(kind, type) and issubclass(kind, Tracker) and dataclasses.is_dataclass(kind)):
        allowed = "a dataclass that extends autoprune.study.tracker.Tracker"
        raise InputError(f"{point.value} is no tracker", where=where, allowed=allowed)
    return kind
