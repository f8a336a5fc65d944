"""autoprune searches how to prune a convolutional network.

The names below are the library; each loads its module, and torch, only when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.allocate import allocate as allocate
    from autoprune.artifact import load as load
    from autoprune.artifact import save as save
    from autoprune.cost import Cost as Cost
    from autoprune.cost import cost as cost
    from autoprune.errors import AutopruneError as AutopruneError
    from autoprune.errors import InputError as InputError
    from autoprune.errors import TargetError as TargetError
    from autoprune.graph import ChannelGraph as ChannelGraph
    from autoprune.keep import Keep as Keep
    from autoprune.recipe import Allocation as Allocation
    from autoprune.recipe import Recipe as Recipe
    from autoprune.recipe import Target as Target
    from autoprune.recipe import Training as Training
    from autoprune.results import Outcome as Outcome
    from autoprune.results import load_study as load_study
    from autoprune.search import finish as finish
    from autoprune.search import resume as resume
    from autoprune.search import search as search
    from autoprune.surgery import prune as prune
    from autoprune.tasks import load_task as load_task
    from autoprune.trace import trace as trace
    from autoprune.trial import run_trial as run_trial

__version__ = "0.1.0"

_HOME = {
    "allocate": "allocate",
    "load": "artifact",
    "save": "artifact",
    "Cost": "cost",
    "cost": "cost",
    "AutopruneError": "errors",
    "InputError": "errors",
    "TargetError": "errors",
    "ChannelGraph": "graph",
    "Keep": "keep",
    "Allocation": "recipe",
    "Recipe": "recipe",
    "Target": "recipe",
    "Training": "recipe",
    "Outcome": "results",
    "load_study": "results",
    "finish": "search",
    "resume": "search",
    "search": "search",
    "prune": "surgery",
    "load_task": "tasks",
    "trace": "trace",
    "run_trial": "trial",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"autoprune.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOME])


class _Package(ModuleType):
    """Keeps `autoprune.trace` the function: importing the submodule of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
