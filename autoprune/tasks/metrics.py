"""Metrics that users name or bring: torchmetrics by name or as objects, classes with update and compute, functions."""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.errors import AutopruneError, DataError, InputError
from autoprune.schema import expect_mapping, read
from autoprune.study.metric import MetricSpec
from autoprune.tasks.user_code import load_object
from autoprune.training.processes import Processes
from autoprune.training.protocols import Batch

#: Where torchmetrics has its classes; the first that has a name has it.
MODULES = ("torchmetrics.classification", "torchmetrics.regression", "torchmetrics.segmentation", "torchmetrics.image")
ALLOWED = (
    "a name in torchmetrics, module:name, a function (model, loader) -> number, or a class with update and compute"
)
_MEANING = ("direction", "best", "worst", "unit", "called")

#: Lowest and highest value, where they are other ones than those that torchmetrics plots, and None where there is none.
#: Models at the level of chance, as some are right after a cut, lie on both sides of 0.
_ENDS = {
    "CohenKappa": (-1.0, 1.0),
    "MatthewsCorrCoef": (-1.0, 1.0),
    "KendallRankCorrCoef": (-1.0, 1.0),
    "CosineSimilarity": (-1.0, 1.0),
    "ExplainedVariance": (None, 1.0),
    "HingeLoss": (0.0, None),
    "CoverageError": (0.0, None),
}


@dataclass(frozen=True, eq=False)
class MetricChoice:
    """What a model is judged by.

    Fields:
        spec: what its number means.
        start: makes a metric that has counted nothing, given what takes the targets out of a batch.
    """

    spec: MetricSpec
    start: Callable[[Callable[[Batch], Any]], Any]


class Updated:
    """A metric with `update(outputs, targets)` and `compute()`, as torchmetrics' are.

    Args:
        metric: has counted nothing.
        targets_of: takes the targets out of a batch.
    """

    def __init__(self, metric: Any, targets_of: Callable[[Batch], Any]) -> None:
        self.metric, self.targets_of = alone_when_computed(metric), targets_of
        self._labels = type(metric).__module__.startswith("torchmetrics.classification")

    def update(self, outputs: Any, batch: Batch) -> None:
        """Count one batch.

        Raises:
            DataError: the metric cannot use these outputs and targets.
        """
        outputs = tree_map_only(Tensor, _as_float32, outputs)
        targets = self.targets_of(batch)
        if self._labels and isinstance(targets, Tensor) and targets.is_floating_point():
            targets = _as_labels(targets, type(self.metric).__name__)
        if isinstance(self.metric, nn.Module):  # as torchmetrics' are
            self.metric.to(next((leaf.device for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)), "cpu"))
        try:
            self.metric.update(outputs, targets)
        except Exception as error:  # torchmetrics and the user's code may raise anything
            name = type(self.metric).__name__
            raise DataError(
                f"{name} cannot use outputs and targets: {type(error).__name__}: {error}", where="metric"
            ) from error

    def value(self) -> float:
        """The metric over all that was counted.

        Raises:
            DataError: it is no number.
        """
        return _as_number(self.metric.compute(), type(self.metric).__name__)


class SharedUpdated(Updated):
    """One of torchmetrics' that several processes can count in parts."""

    def share(self, processes: Processes) -> None:
        """See `SharedMetric.share`."""
        merge_counted(self.metric, processes)


def alone_when_computed(metric: Any) -> Any:
    """The metric itself. Torchmetrics add up over all processes in `compute` unless told that there are none."""
    if hasattr(metric, "distributed_available_fn"):
        metric.distributed_available_fn = _never
    return metric


def merge_counted(metric: Any, processes: Processes) -> None:
    """Add to one of torchmetrics' what those of the other processes have counted; it moves to the CPU."""
    metric.to("cpu")
    for rank, state in enumerate(processes.gather(dict(metric.metric_state))):
        if rank != processes.rank:
            metric.merge_state(state)


class WholeSplit:
    """A function of a model and a loader that gives the metric of the loader's data.

    Args:
        function: evaluate(model, loader) -> number.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """What the function gives.

        Raises:
            DataError: it fails, or gives no number.
        """
        name = _name_of(self.function)
        try:
            found = self.function(model, batches)
        except AutopruneError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"{name} failed: {type(error).__name__}: {error}", where="metric") from error
        return _as_number(found, name)


def read_metric(spec: object, where: str, known: Mapping[str, Any] | None = None) -> MetricChoice:
    """The metric that a space file or a user's code gives.

    Args:
        spec: a name, a reference, an object, or a mapping {name or function, direction, best, worst, unit, called} with
            further arguments of a class. `called` is what reports call it.
        known: arguments that a class is given where it needs them and the user does not say otherwise.

    Raises:
        InputError: there is no such metric, it refuses its arguments, or it is not known what its number means.
    """
    arguments = dict(expect_mapping(spec, where)) if isinstance(spec, Mapping) else {"name": spec}
    given = arguments.pop("name", None) or arguments.pop("function", None)
    if given is None:
        raise InputError("missing key 'name'", where=where, allowed="name or function, and arguments of it")
    meaning = {key: arguments.pop(key) for key in _MEANING if key in arguments}
    found = _find_metric(given, where) if isinstance(given, str) else given
    if not _is_updated(found):
        return _choice_of_function(found, arguments, meaning, where)
    first = _constructed(found, {**_needed(found, known or {}), **arguments}, where)
    _check_range_of_pixels(first, where)
    start = partial(_start_updated, first)
    return MetricChoice(_spec_of_updated(first, meaning, where), start)


def _start_updated(first: Any, targets_of: Callable[[Batch], Any]) -> Updated:
    kind = SharedUpdated if _adds_up(first) else Updated
    return kind(copy.deepcopy(first), targets_of)


def _adds_up(metric: Any) -> bool:
    """Whether `merge_state` of one of torchmetrics gives what a single metric would have counted."""
    try:
        from torchmetrics import utilities
    except ImportError:
        return False
    sound = {getattr(utilities, f"dim_zero_{name}") for name in ("sum", "cat", "max", "min")}
    return getattr(metric, "full_state_update", None) is False and set(metric._reductions.values()) <= sound


def _never() -> bool:
    return False


def _choice_of_function(
    function: Any, arguments: Mapping[str, Any], meaning: Mapping[str, Any], where: str
) -> MetricChoice:
    if not callable(function):
        raise InputError(f"a {type(function).__name__} is no metric", where=where, allowed=ALLOWED)
    name = str(meaning.get("called") or _name_of(function))
    bound = partial(function, **arguments) if arguments else function
    ends = {} if "best" in meaning or "worst" in meaning else _ends_of_share(meaning)
    return MetricChoice(_read_spec(name, {**ends, **meaning}, where), lambda _targets_of: WholeSplit(bound))


def _ends_of_share(meaning: Mapping[str, Any]) -> dict[str, float]:
    """The range of a function that says nothing of it: from 0 to 1, the better end as its direction says."""
    smaller_is_better = meaning.get("direction") == "minimize"
    return {"best": 0.0, "worst": 1.0} if smaller_is_better else {"best": 1.0, "worst": 0.0}


def _spec_of_updated(metric: Any, meaning: Mapping[str, Any], where: str) -> MetricSpec:
    """What torchmetrics says of a metric, and what the user says in its place."""
    name, higher = str(meaning.get("called") or type(metric).__name__), getattr(metric, "higher_is_better", None)
    if "direction" not in meaning and higher is None:
        allowed = "direction: maximize or minimize"
        raise InputError(f"{name} does not say whether larger is better", where=where, allowed=allowed)
    direction = meaning.get("direction", "maximize" if higher else "minimize")
    low, high = _ends_of_updated(metric)
    best, worst = (high, low) if direction == "maximize" else (low, high)
    unit = "dB" if type(metric).__name__ == "PeakSignalNoiseRatio" and metric.base == 10 else ""
    return _read_spec(name, {"best": best, "worst": worst, "unit": unit, **meaning, "direction": direction}, where)


def _ends_of_updated(metric: Any) -> tuple[float | None, float | None]:
    """The lowest and the highest value of a metric; None where there is no end, or none is known."""
    kind = type(metric)
    plotted = getattr(metric, "plot_lower_bound", None), getattr(metric, "plot_upper_bound", None)
    if not kind.__module__.startswith("torchmetrics."):
        return plotted
    return _ENDS.get(re.sub("^(Binary|Multiclass|Multilabel)", "", kind.__name__), plotted)


def _check_range_of_pixels(metric: Any, where: str) -> None:
    """Raise `InputError` if the range of the pixels is taken from each batch: the number would depend on its size."""
    if getattr(metric, "data_range", metric) is None:
        what = f"{type(metric).__name__} would take each batch's range of pixels"
        raise InputError(what, where=where, allowed="data_range: [lowest, highest], such as [0, 1]")


def _read_spec(name: str, meaning: Mapping[str, Any], where: str) -> MetricSpec:
    fields = {key: item for key, item in meaning.items() if key != "called"}
    ends = {key: fields.get(key) for key in ("best", "worst")}
    return read(MetricSpec, {**fields, **ends, "name": name}, where)


def _find_metric(name: str, where: str) -> Any:
    if ":" in name:
        return load_object(name, where)
    for module in MODULES:
        found = getattr(importlib.import_module(module), name, None)
        if inspect.isclass(found):
            return found
    raise InputError(f"unknown metric {name!r}", where=where, allowed=ALLOWED)


def _is_updated(found: Any) -> bool:
    return hasattr(found, "update") and hasattr(found, "compute")


def _needed(found: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """What of the known arguments the constructor of a class has no default for."""
    if not inspect.isclass(found):
        return {}
    parameters = inspect.signature(found).parameters
    return {
        name: value
        for name, value in known.items()
        if name in parameters and parameters[name].default in (inspect.Parameter.empty, None)
    }


def _constructed(found: Any, arguments: Mapping[str, Any], where: str) -> Any:
    """The metric as it is, or made of its class."""
    if not inspect.isclass(found):
        if arguments:
            raise InputError(f"a metric that is made already takes no {next(iter(arguments))!r}", where=where)
        return found
    try:
        return found(**_with_tuples(found, arguments))
    except Exception as error:  # torchmetrics and the user's code may raise anything
        raise InputError(f"{found.__name__} refuses its arguments: {error}", where=where) from error


def _with_tuples(found: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with tuples where the class takes these and no lists: YAML has lists only."""
    parameters = inspect.signature(found).parameters
    kinds = {name: str(parameters[name].annotation).lower() if name in parameters else "" for name in arguments}
    wants = {name: "tuple[" in kind and "list[" not in kind for name, kind in kinds.items()}
    return {name: tuple(item) if isinstance(item, list) and wants[name] else item for name, item in arguments.items()}


def _as_number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"{value.numel()} values" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise DataError(f"{name} gives {found}", where="metric", allowed="one number") from error


def _as_labels(targets: Tensor, name: str) -> Tensor:
    """Labels that were written as floating-point numbers, for a loss that wants them so."""
    labels = targets.long()
    if not torch.equal(labels.to(targets.dtype), targets):
        raise DataError(f"{name} takes labels, the targets hold parts of 1", where="metric", allowed="whole numbers")
    return labels


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _name_of(function: Any) -> str:
    """What a function is called in its code; `metric`, where that is no name, as of a lambda."""
    name = str(getattr(getattr(function, "func", function), "__name__", type(function).__name__))
    return name if name.isidentifier() else "metric"
