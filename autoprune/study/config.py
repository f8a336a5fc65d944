"""StudyConfig: a space file, read: everything that decides what a search does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from autoprune.errors import InputError, brief_repr, check_name
from autoprune.schema import brief, choices, expect_mapping, or_words, read, read_field, to_plain, within
from autoprune.study.constraints import AUTO, Constraints, Latency
from autoprune.study.metric import ACCURACY, MetricSpec, read_metric
from autoprune.study.parameters import CheckMethod, FindMethod
from autoprune.study.space import Space
from autoprune.study.tradeoff import COSTS, Tradeoff
from autoprune.study.yaml_text import parse_yaml

#: Stands for the task's metric among objectives, whatever that is called.
METRIC = "metric"

#: What a study trades off if it does not say: the metric against FLOPs.
OBJECTIVES = (METRIC, "flops")


#: `budget.until` of a search that ends when its front has stopped to grow.
HYPERVOLUME = "hypervolume"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The cheapest model that loses little to the dense one: what a search can look for until it finds no cheaper one.

    Fields:
        share: the search ends when, for this share of the pruned trials that have completed, and for `budget.patience`
            of them at least, the cost (the first of the objectives) has not fallen by `budget.gain`.
        within: points that it may lose on the validation split: hundredths where the metric's unit is `%`, else of
            its own unit.
    """

    share: float = field(default=0.25, metadata=within(0, 1))
    within: float = field(metadata=within(0, 10**6))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a search ends, whichever comes first.

    Fields:
        trials: recipes.
        minutes: since it began.
        gpu_hours: of all trials together, with `resources.gpus_per_trial`.
        images: training images of all trials together.
        until: `hypervolume` = when `patience` completed recipes together have not raised the front's hypervolume by
            `gain`, as a share. A mapping, `{within: 1}` = when the cheapest model within a point of the dense one gets
            no cheaper; beside one of the limits above, as there may be none.
        patience, gain: of `until`.
    """

    trials: int | None = field(default=None, metadata=within(1, 10**9))
    minutes: float | None = field(default=None, metadata=within(0, 10**6, open_low=True))
    gpu_hours: float | None = field(default=None, metadata=within(0, 10**7, open_low=True))
    images: int | None = field(default=None, metadata=within(1, 10**15))
    until: Any = None
    patience: int = field(default=20, metadata=within(1, 10**6))
    gain: float = field(default=0.002, metadata=within(0, 1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "until", _read_until(self.until))

    @property
    def endless(self) -> bool:
        """Whether nothing ends the search for certain: a goal may never be reached."""
        amounts = (self.trials, self.minutes, self.gpu_hours, self.images)
        return all(amount is None for amount in amounts) and self.until != HYPERVOLUME

    @property
    def goal(self) -> Goal | None:
        """What is looked for, if `until` says so."""
        return self.until if isinstance(self.until, Goal) else None


def _read_until(value: object) -> str | Goal | None:
    where = "budget.until"
    if value is None or isinstance(value, Goal):
        return value
    if isinstance(value, Mapping):
        return read(Goal, value, where)
    if value != HYPERVOLUME:
        allowed = f"{HYPERVOLUME}, or a mapping such as {{within: 1}}"
        raise InputError(f"unknown end {brief_repr(value)}", where=where, allowed=allowed)
    return HYPERVOLUME


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where trials run.

    Fields:
        workers: trials at the same time; None = as many as the machine or the cluster has room for.
        cpus_per_trial: cores, and threads of the training loops of all its processes; at least one each.
        gpus_per_trial: 0.5 puts two trials on one GPU; more than one are whole ones. `auto` puts as many on each as pay
            and as its memory holds: that is measured once, as the study begins, and stored as a number.
        mps: processes that share a GPU compute on it at the same time, through NVIDIA's Multi-Process Service, which is
            started where it can run; else they take turns.
        processes_per_trial: that train a recipe together, each on its part of every batch; None = one for each GPU, or
            one. They share the GPUs of the trial evenly.
        memory_per_trial: GiB that a trial may take, of the GPUs that it has, else of its machine; its processes share
            them evenly. None = what there is.
        trial_timeout_minutes: a trial that takes longer is hung: its process is ended and the trial has failed.
    """

    workers: int | None = field(default=None, metadata=within(1, 4096))
    cpus_per_trial: int = field(default=1, metadata=within(1, 1024))
    gpus_per_trial: float | str = field(default=0.0, metadata=or_words(within(0, 64), AUTO))
    mps: bool = field(default=False, metadata=brief())
    processes_per_trial: int | None = field(default=None, metadata=within(1, 512))
    memory_per_trial: float | None = field(default=None, metadata=within(0, 10**5, open_low=True))
    trial_timeout_minutes: float = field(default=120.0, metadata=within(0, 10**6, open_low=True))

    def __post_init__(self) -> None:
        whole, where = int(self.gpus), "resources.gpus_per_trial"
        if self.gpus > 1 and whole != self.gpus:
            allowed = f"{whole}, {whole + 1}, or a part of one GPU"
            raise InputError(f"{self.gpus:g} GPUs cannot be shared out", where=where, allowed=allowed)
        if self.processes < whole:
            what = f"processes_per_trial: {self.processes} would use {self.processes} of {whole} GPUs"
            raise InputError(what, where=where, allowed=f"{whole} processes or more, or fewer GPUs")
        if self.gpus_per_trial == AUTO and self.processes > 1:
            what = f"auto beside processes_per_trial: {self.processes}"
            raise InputError(what, where=where, allowed="a number, or one process")
        if self.mps and self.gpus_per_trial != AUTO and self.gpus_per_process in (0, 1):
            what = f"nothing shares a GPU: gpus_per_trial is {self.gpus:g}"
            raise InputError(what, where="resources.mps", allowed="false, or a part of one GPU for a trial")

    @property
    def gpus(self) -> float:
        """Of a trial; a whole one as long as `auto` was not measured."""
        return 1.0 if isinstance(self.gpus_per_trial, str) else self.gpus_per_trial

    def with_trials_on_a_gpu(self, trials: int) -> Resources:
        """The same with so many trials on each GPU."""
        share = math.floor(10**4 / trials) / 10**4  # Ray rounds to four digits: seven times 0.1429 is more than one GPU
        return replace(self, gpus_per_trial=share, mps=self.mps and trials > 1)

    @property
    def processes(self) -> int:
        """How many train a recipe together."""
        return self.processes_per_trial or max(1, int(self.gpus))

    @property
    def cpus_per_process(self) -> int:
        """Cores of one of them, and threads of its training loop."""
        return max(1, self.cpus_per_trial // self.processes)

    @property
    def gpus_per_process(self) -> float:
        """A GPU, a part of one that it shares with other processes, or none."""
        return self.gpus / self.processes

    @property
    def memory_per_process(self) -> float | None:
        """GiB that one of them may take, see `memory_per_trial`."""
        return None if self.memory_per_trial is None else self.memory_per_trial / self.processes


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How recipes are proposed, and which ones are tried before.

    Fields:
        name: Optuna's multi-objective TPE, Gaussian process, genetic algorithms NSGA-II and NSGA-III, or random.
        startup: recipes after the controls and before the sampler takes over; also the population of the genetic ones.
        warm_start: whether plain ways to prune at several targets are among them; the others are spread over the
            space, every method in turn.
        first: recipes before all of these, parameter -> value as in `proposals.jsonl`; `--warm-start` fills it in.
    """

    name: str = field(default="tpe", metadata=choices("tpe", "gp", "nsga2", "nsga3", "random"))
    startup: int = field(default=16, metadata=within(0, 10**6))
    warm_start: bool = True
    first: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Asynchronous successive halving: trials pause at every rung of their training (`training.rungs`), the best go on.

    Fields:
        keep: share of the trials measured at a rung that go on; 1 = nothing is ended early.
    """

    keep: float = field(default=1.0, metadata=within(0, 1, open_low=True))


@dataclass(frozen=True, kw_only=True)
class Finalists:
    """How members of the front are trained again at full length, for numbers to quote (`autoprune finish`).

    Fields:
        seeds: how often each of them, and the dense control.
        images: training images of each; None = five times those of the longest recipe among them.
        most: members, evenly spread along the front if it has more.
        share: of the search's minutes that is kept for this: the search ends with finalists, as many as there is time
            for; without minutes, with all of them. None = only `autoprune finish` makes them.
    """

    seeds: int = field(default=3, metadata=within(1, 1000))
    images: int | None = field(default=None, metadata=within(1, 10**12))
    most: int = field(default=8, metadata=within(1, 10**6))
    share: float | None = field(default=None, metadata=within(0, 0.9, open_low=True))


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A space file, read: everything that decides what a search does.

    Fields:
        task: model, data and, where its kind has them, loss and metric; `kind` is `classification` if it says nothing.
        metric: what the task's metric means; what is left out is as the task says. Once a study has begun it holds all
            of it; one of before has none, and is of accuracy.
        objectives: what the sampler trades off: the metric, by its name or as `metric`, and one or two of the cost
            ratios. The metric is drawn against the first of them.
        constraints: the limits of every pruned model.
        latency: how it is measured, where it is an objective or a constraint.
        seed: of the sampler, and of every recipe unless the space has a `seed` of its own.
        trackers: who is told of every trial beside the logs: `tensorboard`, `mlflow`, `wandb`, or a name that an
            installed package adds; with options as `{name: mlflow, uri: ...}`.
        controls: whether the dense model and random pruning are trained first, as long as a recipe; the finalists of a
            study have a dense control of their own.
        share: whether trials share the results that several of them need; False measures the gain.
    """

    task: Mapping[str, Any]
    space: Space
    metric: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = OBJECTIVES
    constraints: Constraints = field(default_factory=Constraints)
    latency: Latency = field(default_factory=Latency)
    budget: Budget = field(default_factory=Budget)
    resources: Resources = field(default_factory=Resources)
    sampler: Sampler = field(default_factory=Sampler)
    cascade: Halving = field(default_factory=Halving)
    finalists: Finalists = field(default_factory=Finalists)
    trackers: tuple[Mapping[str, Any], ...] = ()
    seed: int = field(default=0, metadata=within(0, 2**32 - 1))
    controls: bool = True
    share: bool = True

    @classmethod
    def from_plain(
        cls,
        data: object,
        where: str = "",
        *,
        check_method: CheckMethod | None = None,
        find_method: FindMethod | None = None,
    ) -> StudyConfig:
        """Read plain data with the top keys `task`, `space`, `metric`, `objectives`, `constraints`, `latency`,
        `budget`, `resources`, `sampler`, `cascade`, `finalists`, `trackers`, `seed`, `controls`, `share`.

        Raises:
            InputError: naming `where`, the path inside it and what is allowed.
        """
        mapping = with_named_trackers(expect_mapping(data, where))
        inside = f"{where}: " if where else ""
        for key in mapping:
            check_name(key, cls.__dataclass_fields__, kind="key", where=where)
        for key in ("task", "space"):
            if key not in mapping:
                raise InputError(f"missing key {key!r}", where=where, allowed=", ".join(cls.__dataclass_fields__))
        space = Space.read(mapping["space"], f"{inside}space", check_method=check_method, find_method=find_method)
        values = {**mapping, "space": space}
        config = cls(**{key: read_field(cls, key, item, f"{inside}{key}") for key, item in values.items()})
        _check_metric(config.metric, f"{inside}metric")
        check_objectives(config.objectives, f"{inside}objectives")
        return config

    @classmethod
    def from_yaml(cls, text: str, where: str = "", *, check_method: CheckMethod | None = None) -> StudyConfig:
        """The inverse of `to_yaml`."""
        return cls.from_plain(parse_yaml(text, where), where, check_method=check_method)

    @property
    def tradeoff(self) -> Tradeoff:
        """What its fronts compare; of a study whose metric is known."""
        metric, costs = read_metric(self.metric, "metric"), tuple(name for name in self.objectives if name in COSTS)
        return Tradeoff(metric=metric, costs=costs, limit=self.constraints.metric_limit(metric))

    @property
    def timed(self) -> Latency | None:
        """How pruned models are timed; None if no objective, constraint or target asks for it."""
        asked = {*self.objectives, *self.constraints.limits()}
        aimed_at = any(recipe.target.latency is not None for recipe in self.space.corners())
        return self.latency if aimed_at or asked & {"latency", "latency_ms"} else None

    def to_plain(self) -> dict[str, Any]:
        """Plain data; `StudyConfig.from_plain(config.to_plain()) == config`."""
        fields = {f.name: to_plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {**fields, "space": self.space.to_plain()}

    def to_yaml(self) -> str:
        """A space file that stands alone, without `extends`."""
        return yaml.safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)


def with_named_trackers(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with every tracker as a mapping: one by its name alone has no options."""
    given = mapping.get("trackers")
    if not isinstance(given, (list, tuple)):
        return mapping
    return {**mapping, "trackers": [{"name": one} if isinstance(one, str) else one for one in given]}


def _check_metric(metric: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` for a key or a kind of value that a metric does not have; what they mean the task says."""
    for key, item in metric.items():
        check_name(key, MetricSpec.__dataclass_fields__, kind="key", where=where)
        read_field(MetricSpec, key, item, f"{where}.{key}")


def check_objectives(objectives: tuple[str, ...], where: str) -> None:
    """Raise `InputError` unless these are a metric and one or two different costs."""
    costs = [name for name in objectives if name in COSTS]
    others = [name for name in objectives if name not in COSTS]
    for name in others if len(others) > 1 else ():
        if name != ACCURACY.name:
            check_name(name, (METRIC, *COSTS), kind="value", where=f"{where}[{objectives.index(name)}]")
    if len(costs) != len(objectives) - 1 or len(set(objectives)) != len(objectives) or len(costs) not in (1, 2):
        allowed = f"accuracy, and one or two of {', '.join(COSTS)}; `{METRIC}`, or its name, where that is another"
        raise InputError(f"found {list(objectives)!r}", where=where, allowed=allowed)
