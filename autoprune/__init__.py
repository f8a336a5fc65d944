"""autoprune searches how to prune a convolutional network.

The names below are the library; each loads its module, and torch, only when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.engine.allocation.allocate import allocate as allocate
    from autoprune.engine.cost import Cost as Cost
    from autoprune.engine.cost import cost as cost
    from autoprune.engine.graph import ChannelGraph as ChannelGraph
    from autoprune.engine.keep import Keep as Keep
    from autoprune.engine.surgery.artifact import load as load
    from autoprune.engine.surgery.artifact import save as save
    from autoprune.engine.surgery.prune import prune as prune
    from autoprune.engine.tracing.trace import trace as trace
    from autoprune.errors import AutopruneError as AutopruneError
    from autoprune.errors import InputError as InputError
    from autoprune.errors import TargetError as TargetError
    from autoprune.export.study_model import export as export
    from autoprune.export.study_model import verify as verify
    from autoprune.recipe import Allocation as Allocation
    from autoprune.recipe import Recipe as Recipe
    from autoprune.recipe import Target as Target
    from autoprune.recipe import Training as Training
    from autoprune.search import finish as finish
    from autoprune.search import replay as replay
    from autoprune.search import resume as resume
    from autoprune.search import search as search
    from autoprune.search.results import Results as Results
    from autoprune.search.results import load_study as load_study
    from autoprune.study.outcome import Outcome as Outcome
    from autoprune.tasks import load_task as load_task
    from autoprune.tasks.own.task import LoaderTask

    Task = LoaderTask
    from autoprune.trial.run import run_trial as run_trial

__version__ = "0.1.0"

_HOME = {
    "allocate": "engine.allocation.allocate",
    "load": "engine.surgery.artifact",
    "save": "engine.surgery.artifact",
    "Cost": "engine.cost",
    "cost": "engine.cost",
    "AutopruneError": "errors",
    "InputError": "errors",
    "TargetError": "errors",
    "ChannelGraph": "engine.graph",
    "Keep": "engine.keep",
    "Allocation": "recipe",
    "Recipe": "recipe",
    "Target": "recipe",
    "Training": "recipe",
    "Outcome": "study.outcome",
    "load_study": "search.results",
    "Results": "search.results",
    "export": "export.study_model",
    "verify": "export.study_model",
    "finish": "search",
    "replay": "search",
    "resume": "search",
    "search": "search",
    "prune": "engine.surgery.prune",
    "load_task": "tasks",
    "trace": "engine.tracing.trace",
    "run_trial": "trial.run",
    "Task": "tasks.own.task",
}

#: Names that are another one at home: `tasks.Task` is what every task is, `autoprune.Task` one of the user's own.
_NAME_AT_HOME = {"Task": "LoaderTask"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"autoprune.{_HOME[name]}"), _NAME_AT_HOME.get(name, name))


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOME])


class _Package(ModuleType):
    """Keeps `autoprune.trace` the function: importing the submodule of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
