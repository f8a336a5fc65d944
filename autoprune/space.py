"""Space files: YAML to a tree of values and parameters; the tree and suggested parameters to a recipe's plain data.

A space has the shape of `Recipe.to_dict()`. Anywhere in it may stand a parameter instead of a value:

    {float: [0.1, 0.8]}                      {float: [0.001, 0.1], log: true}
    {int: [1, 9], step: 2}                   {choice: [mean, max, none]}
    {choice: {l1: {}, bn_scale: {penalty: {float: [1e-5, 1e-3], log: true}}}}
    {each: stage, float: [0, 1]}             only in allocation.ratios; `each: group` likewise

The last but one picks a branch, `{name: bn_scale, penalty: ...}`. A parameter's name is its dotted path: what stands
outside a branch is one parameter for all branches (`target.flops`), so that the sampler learns about it from every
trial; what stands inside belongs to that branch alone (`method.bn_scale.penalty`).

A method declares where each of its hyper-parameters is worth searching (`autoprune methods` prints it). Two words stand
for that, `range` for one hyper-parameter and `ranges` for all of a method:

    {choice: {l1: {}, bn_scale: {penalty: range, share: 0.3}, greg1: ranges}}

They are replaced by the parameters they stand for as the file is read; what is written down has only those.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import re
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import yaml

from autoprune.errors import InputError, check_name
from autoprune.reading import choices, expect_mapping, read_value, to_plain, within
from autoprune.recipe import MethodChoice, Recipe

Scalar = str | int | float | bool | None
CheckMethod = Callable[[MethodChoice], object]
#: (name, where) -> the dataclass whose fields are the method's hyper-parameters; `InputError` if there is none.
FindMethod = Callable[[str, str], type[Any]]

SPACES = "autoprune.search_spaces"
KINDS = ("float", "int", "choice")
#: Parts of a recipe that are a name plus what goes with it; there, plain text stands for `{name: text}`.
NAMED = ("method", "allocation")
RATIOS = ("allocation", "ratios")
RANGE, RANGES = "range", "ranges"


class Suggest(Protocol):
    """Who fills in the parameters; Optuna's trials do."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high], a multiple of `step` above `low`."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`."""


@dataclass(frozen=True)
class Fixed:
    """A plain value: not searched."""

    value: Any


@dataclass(frozen=True)
class Float:
    """A number in [low, high]."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]: `low` plus a multiple of `step`."""

    low: int
    high: int
    log: bool = False
    step: int = 1


@dataclass(frozen=True)
class Choice:
    """One of a few scalars."""

    options: tuple[Scalar, ...]


@dataclass(frozen=True)
class Branch:
    """One of a few names, each with parameters of its own."""

    options: Mapping[str, Nested]


@dataclass(frozen=True)
class Each:
    """One parameter per `group` or per `stage` of the model; known once the space is bound to a graph."""

    scope: str
    item: Float | Int | Choice


@dataclass(frozen=True)
class Nested:
    """A mapping whose entries are nodes again."""

    items: Mapping[str, Node]


Node = Fixed | Float | Int | Choice | Branch | Each | Nested


@dataclass(frozen=True)
class Space:
    """What a search may vary; immutable."""

    root: Nested

    @classmethod
    def read(
        cls,
        data: object,
        where: str = "space",
        *,
        check_method: CheckMethod | None = None,
        find_method: FindMethod | None = None,
    ) -> Space:
        """Read the `space:` part of a file and build the recipes at both ends of every branch.

        Args:
            data: plain data, see the head of this module.
            where: what errors call the space, for instance `demo.yaml: space`.
            check_method: raises `InputError` for a method that does not exist or does not take such parameters.
            find_method: where `range` and `ranges` are looked up; without it they may not stand in the data.

        Raises:
            InputError: naming the path inside the space and what is allowed there.
        """
        mapping = dict(expect_mapping(data, where))
        if "method" not in mapping:
            raise InputError("missing key 'method'", where=where, allowed=", ".join(Recipe.__dataclass_fields__))
        mapping["method"] = _spell_out(mapping["method"], f"{where}.method", find_method)
        space = cls(Nested({key: _read_node(item, f"{where}.{key}", (key,)) for key, item in mapping.items()}))
        for recipe in space.corners(where):
            _check_method(recipe.method, where, check_method)
        return space

    def walk(self, suggest: Suggest) -> dict[str, Any]:
        """Plain data of one recipe; parameters are asked for in the order of the file, by their dotted names."""
        plain: dict[str, Any] = _walk(self.root, "", suggest)
        return plain

    def bind(self, groups: Sequence[tuple[str, int]]) -> Space:
        """The space for one model: `each: group` and `each: stage` become one parameter per group or stage.

        Args:
            groups: (id, stage) of the prunable groups.

        Raises:
            InputError: a key of `allocation.ratios` is no group, stage or pattern of this model.
        """
        return Space(_bind_nested(self.root, groups, ()))

    def corners(self, where: str = "space") -> list[Recipe]:
        """Recipes at the low and at the high end of all numbers that together contain every branch and every choice.

        Raises:
            InputError: one of them is no recipe.
        """
        plain = [corner for high in (False, True) for corner in _corners(self.root, high=high)]
        return [Recipe.from_dict(corner, where) for corner in plain]

    def methods(self) -> tuple[str, ...]:
        """The names of the methods, in the order of the file."""
        return tuple(dict.fromkeys(corner["method"]["name"] for corner in _corners(self.root, high=False)))

    def parameters(self) -> dict[str, Float | Int | Choice | Branch]:
        """Every parameter by its dotted name, branches included, in the order in which `walk` may ask for them."""
        return dict(_parameters(self.root, ""))

    def to_plain(self) -> dict[str, Any]:
        """What a space file holds; `Space.read(space.to_plain()) == space`."""
        plain: dict[str, Any] = _to_plain(self.root)
        return plain


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a search ends, whichever comes first.

    Fields:
        trials: recipes.
        minutes: since it began.
        gpu_hours: of all trials together, with `resources.gpus_per_trial`.
        images: training images of all trials together.
        until: `hypervolume` = when `patience` completed recipes together have not raised the front's hypervolume by
            `gain`, as a share.
    """

    trials: int | None = field(default=None, metadata=within(1, 10**9))
    minutes: float | None = field(default=None, metadata=within(0, 10**6, open_low=True))
    gpu_hours: float | None = field(default=None, metadata=within(0, 10**7, open_low=True))
    images: int | None = field(default=None, metadata=within(1, 10**15))
    until: str | None = field(default=None, metadata=choices("hypervolume"))
    patience: int = field(default=20, metadata=within(1, 10**6))
    gain: float = field(default=0.002, metadata=within(0, 1))

    @property
    def endless(self) -> bool:
        """Whether nothing ends the search."""
        return all(getattr(self, name) is None for name in ("trials", "minutes", "gpu_hours", "images", "until"))


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where trials run.

    Fields:
        workers: trials at the same time; None = as many as the machine or the cluster has room for.
        cpus_per_trial: cores, and threads of the training loop.
        gpus_per_trial: 0.5 puts two trials on one GPU.
        trial_timeout_minutes: a trial that takes longer is hung: its process is ended and the trial has failed.
    """

    workers: int | None = field(default=None, metadata=within(1, 4096))
    cpus_per_trial: int = field(default=1, metadata=within(1, 1024))
    gpus_per_trial: float = field(default=0.0, metadata=within(0, 64))
    trial_timeout_minutes: float = field(default=120.0, metadata=within(0, 10**6, open_low=True))


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Who proposes recipes, and what is tried before.

    Fields:
        name: Optuna's multi-objective TPE, Gaussian process, genetic algorithms NSGA-II and NSGA-III, or random.
        startup: recipes after the controls and before the sampler takes over; also the population of the genetic ones.
        warm_start: whether plain ways to prune at several targets are among them; the others are spread over the
            space, every method in turn.
        first: what comes before all of these, parameter -> value as in `proposals.jsonl`; `--warm-start` fills it in.
    """

    name: str = field(default="tpe", metadata=choices("tpe", "gp", "nsga2", "nsga3", "random"))
    startup: int = field(default=16, metadata=within(0, 10**6))
    warm_start: bool = True
    first: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """How recipes are ended early: at every rung of their training (`training.rungs`) they pause, and the best go on.

    Fields:
        keep: share of the recipes measured at a rung that go on; 1 = nothing is ended early.
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
class Latency:
    """How the latency of a pruned model is measured, where it is an objective or a constraint; see `latency.measure`.

    Fields:
        batch: images of a forward pass.
    """

    batch: int = field(default=1, metadata=within(1, 4096))


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What no pruned model of a study may exceed: a recipe that does ends right after its cut.

    Fields:
        flops, params, activations, latency: relative to the dense model.
        latency_ms: milliseconds of a forward pass, on the device that trains.
    """

    flops: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    params: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    activations: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency_ms: float | None = field(default=None, metadata=within(0, 10**6, open_low=True))

    def limits(self) -> dict[str, float]:
        """Those that were set, by the name of the cost."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def excess(self, costs: Mapping[str, float | None]) -> dict[str, float]:
        """By what share of its limit each known cost exceeds it; 0 and below is allowed."""
        known = {name: value for name, value in costs.items() if value is not None}
        return {name: known[name] / limit - 1 for name, limit in self.limits().items() if name in known}

    def broken(self, costs: Mapping[str, float | None]) -> str:
        """The limit that is exceeded most, in words (`latency_ms 7.31 > 5`); empty if all are kept."""
        over = {name: share for name, share in self.excess(costs).items() if share > 0}
        if not over:
            return ""
        worst = max(over, key=lambda name: over[name])
        return f"{worst} {costs[worst]:.4g} > {self.limits()[worst]:g}"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A space file, read: everything that decides what a search does.

    Fields:
        task: what `tasks.load_task` takes.
        objectives: what the sampler trades off; accuracy and one or two of the cost ratios. The first of them is what
            accuracy is drawn against.
        constraints: what no pruned model may exceed.
        latency: how it is measured.
        seed: of the sampler, and of every recipe unless the space has a `seed` of its own.
        controls: whether the dense model and random pruning are trained first, as long as a recipe; the finals of a
            study have a dense control of their own.
        share: whether trials share what several of them need; False measures what that is worth.
    """

    task: Mapping[str, Any]
    space: Space
    objectives: tuple[str, ...] = field(
        default=("accuracy", "flops"), metadata=choices("accuracy", "flops", "params", "activations", "latency")
    )
    constraints: Constraints = field(default_factory=Constraints)
    latency: Latency = field(default_factory=Latency)
    budget: Budget = field(default_factory=Budget)
    resources: Resources = field(default_factory=Resources)
    sampler: Sampler = field(default_factory=Sampler)
    cascade: Cascade = field(default_factory=Cascade)
    finalists: Finalists = field(default_factory=Finalists)
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
        """Read plain data with the top keys `task`, `space`, `objectives`, `constraints`, `latency`, `budget`,
        `resources`, `sampler`, `cascade`, `finalists`, `seed`, `controls`, `share`.

        Raises:
            InputError: naming `where`, the path inside it and what is allowed.
        """
        mapping = expect_mapping(data, where)
        inside = f"{where}: " if where else ""
        for key in mapping:
            check_name(key, cls.__dataclass_fields__, kind="key", where=where)
        for key in ("task", "space"):
            if key not in mapping:
                raise InputError(f"missing key {key!r}", where=where, allowed=", ".join(cls.__dataclass_fields__))
        space = Space.read(mapping["space"], f"{inside}space", check_method=check_method, find_method=find_method)
        hints = typing.get_type_hints(cls)
        values = {
            key: read_value(hints[key], item, f"{inside}{key}", cls.__dataclass_fields__[key].metadata)
            for key, item in {**mapping, "space": space}.items()
        }
        config = cls(**values)
        _check_objectives(config.objectives, f"{inside}objectives")
        return config

    @classmethod
    def from_yaml(cls, text: str, where: str = "", *, check_method: CheckMethod | None = None) -> StudyConfig:
        """The inverse of `to_yaml`."""
        return cls.from_plain(parse_yaml(text, where), where, check_method=check_method)

    @property
    def timed(self) -> Latency | None:
        """How pruned models are timed; None if neither an objective nor a constraint asks for it."""
        limits = self.constraints.limits()
        return self.latency if "latency" in (*self.objectives, *limits) or "latency_ms" in limits else None

    def to_plain(self) -> dict[str, Any]:
        """Plain data; `StudyConfig.from_plain(config.to_plain()) == config`."""
        fields = {f.name: to_plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {**fields, "space": self.space.to_plain()}

    def to_yaml(self) -> str:
        """A space file that stands alone, without `extends`."""
        return yaml.safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)


# -- files ---------------------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The ready spaces, found by name."""
    files = resources.files(SPACES).iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def load_space(
    name_or_path: str | Path,
    *,
    overrides: Sequence[str] = (),
    check_method: CheckMethod | None = None,
    find_method: FindMethod | None = None,
) -> StudyConfig:
    """Read a space file, what it extends, and the overrides.

    Args:
        name_or_path: a ready space or a file.
        overrides: `space.target.flops=0.5`: a dotted path and a value in YAML.
        check_method, find_method: see `Space.read`.

    Raises:
        InputError: naming the file, the path inside it and what is allowed.
    """
    where, data = _load_merged(name_or_path, Path(), ())
    data = {**{section: {} for section in _sections()}, **data}
    for override in overrides:
        _apply_override(data, override)
    where = f"{where} with --set {' '.join(overrides)}" if overrides else where
    return StudyConfig.from_plain(data, where, check_method=check_method, find_method=find_method)


def _sections() -> list[str]:
    """What a space file may leave out as a whole; overrides may name parts of it all the same."""
    return [f.name for f in dataclasses.fields(StudyConfig) if f.default_factory is not dataclasses.MISSING]


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML; keys may not repeat, and 1e-4 is a number.

    Raises:
        InputError: naming the line.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"not YAML: {error.problem or error.context}", where=f"{where}{line}") from None
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {error}", where=where) from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text and lets the last of two equal keys win; who writes a space expects neither."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load_merged(name_or_path: str | Path, base: Path, chain: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The file's label and its data merged over what it extends; `chain` are the files that led here."""
    where, text, folder = _find(str(name_or_path), base, chain[-1] if chain else "")
    if where in chain:
        raise InputError(f"extends itself: {' -> '.join((*chain, where))}", where=where)
    parsed = parse_yaml(text, where)
    if not isinstance(parsed, Mapping):
        keys = ", ".join(("extends", *StudyConfig.__dataclass_fields__))
        raise InputError("this is no space file", where=where, allowed=f"a mapping with the keys {keys}")
    data = dict(expect_mapping(parsed, where))
    if "extends" not in data:
        return where, data
    parent = data.pop("extends")
    if not isinstance(parent, str):
        raise InputError(f"expected a name or a path, found {parent!r}", where=f"{where}: extends")
    return where, merge(_load_merged(parent, folder, (*chain, where))[1], data)


def _find(name: str, base: Path, asked_by: str) -> tuple[str, str, Path]:
    """Label, text and folder of a space file; a path is relative to the file that names it."""
    if name in names():
        file = resources.files(SPACES) / f"{name}.yaml"
        return f"{name}.yaml", file.read_text(encoding="utf-8"), base
    path = base / Path(name).expanduser()
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        check_name(name, names(), kind="search space", where=f"{asked_by}: extends" if asked_by else "")
    try:
        return str(path), path.read_text(encoding="utf-8"), path.parent
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read it: {reason}", where=str(path), allowed=f"a YAML file, or one of {', '.join(names())}"
        ) from None


def merge(base: Any, top: Any) -> dict[str, Any]:
    """`top` over `base`, mapping by mapping; a parameter counts as one value and is replaced as a whole."""
    result = dict(base)
    for key, item in top.items():
        old = result.get(key)
        nested = isinstance(old, Mapping) and isinstance(item, Mapping)
        result[key] = merge(old, item) if nested and not (_is_parameter(old) or _is_parameter(item)) else item
    return result


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(
            f"expected key=value, found {override!r}", where="--set", allowed="for instance space.target.flops=0.5"
        )
    where = f"--set {path}"
    parent, key = _descend(data, path, where)
    parent[key] = parse_yaml(text, where)


def _descend(data: dict[str, Any], path: str, where: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds the last key of a dotted path; keys may have dots themselves (group ids)."""
    parts, here = path.split("."), data
    while len(parts) > 1:
        for size in range(len(parts), 0, -1):
            key, rest = ".".join(parts[:size]), parts[size:]
            if key in here:
                break
        else:
            raise InputError(f"there is no {parts[0]!r}", where=where, allowed=", ".join(here) or "nothing is set here")
        if not rest:
            return here, key
        if not isinstance(here[key], dict):
            raise InputError(f"{key!r} is {here[key]!r} and holds nothing", where=where)
        here[key] = here = dict(here[key])
        parts = rest
    return here, parts[0]


# -- reading -------------------------------------------------------------------------------------------------------


def _check_objectives(objectives: tuple[str, ...], where: str) -> None:
    if "accuracy" not in objectives or len(set(objectives)) != len(objectives) or not 2 <= len(objectives) <= 3:
        allowed = "accuracy, and one or two of flops, params, activations, latency"
        raise InputError(f"found {list(objectives)!r}", where=where, allowed=allowed)


def _check_method(choice: MethodChoice, where: str, check: CheckMethod | None) -> None:
    if check is None:
        return
    try:
        check(choice)
    except InputError as error:
        inside = error.where if error.where.startswith("method") else f"method.{choice.name}"
        raise type(error)(error.what, where=f"{where}.{inside}", allowed=error.allowed) from None


def _is_parameter(data: Any) -> bool:
    return isinstance(data, Mapping) and any(kind in data for kind in KINDS)


def _read_node(data: Any, where: str, path: tuple[str, ...]) -> Node:
    """`path` is the place in the recipe, without the names of branches."""
    if path in [(name,) for name in NAMED] and isinstance(data, str):
        return Nested({"name": Fixed(data)})
    if not isinstance(data, Mapping):
        return Fixed(data)
    expect_mapping(data, where)
    if path == RATIOS and "each" in data:
        return _read_each(data, where)
    if _is_parameter(data):
        return _read_parameter(data, where, path)
    return Nested({key: _read_node(item, f"{where}.{key}", (*path, key)) for key, item in data.items()})


def _read_each(data: Mapping[str, Any], where: str) -> Each:
    scope = check_name(data["each"], ("group", "stage"), kind="scope", where=f"{where}.each")
    rest = {key: item for key, item in data.items() if key != "each"}
    if not _is_parameter(rest):
        raise InputError(
            f"`each` without a parameter: {dict(data)!r}", where=where, allowed="{each: stage, float: [0, 1]}"
        )
    item = _read_parameter(rest, where, ())
    if isinstance(item, Branch):
        raise InputError("`each` cannot hold branches", where=where, allowed="float, int or a choice of scalars")
    return Each(scope, item)


def _read_parameter(data: Mapping[str, Any], where: str, path: tuple[str, ...]) -> Float | Int | Choice | Branch:
    kind = next(kind for kind in KINDS if kind in data)
    options = {"float": {"log"}, "int": {"log", "step"}, "choice": set()}[kind]
    for key in data:
        check_name(key, {kind, *options}, kind="key", where=where)
    if kind == "choice":
        return _read_choice(data["choice"], f"{where}.choice", path)
    low, high = _read_range(data[kind], f"{where}.{kind}", int if kind == "int" else float)
    log = read_value(bool, data.get("log", False), f"{where}.log", {})
    if log and low <= 0:
        raise InputError(f"a log scale from {low!r}", where=f"{where}.{kind}", allowed="a lower end above 0")
    if kind == "float":
        return Float(low, high, log)
    step = read_value(int, data.get("step", 1), f"{where}.step", within(1, 2**53))
    if (int(high) - int(low)) % step or (log and step != 1):
        allowed = "1 on a log scale" if log else f"a divisor of {high} - {low}"
        raise InputError(f"{step!r} does not fit the range", where=f"{where}.step", allowed=allowed)
    return Int(int(low), int(high), log, step)


def _read_range(data: Any, where: str, kind: type[int | float]) -> tuple[float, float]:
    allowed = "[low, high] with low < high"
    if not isinstance(data, (list, tuple)) or len(data) != 2:
        raise InputError(f"expected two numbers, found {data!r}", where=where, allowed=allowed)
    low, high = (read_value(kind, end, where, {}) for end in data)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"an empty range: {data!r}", where=where, allowed=allowed)
    return low, high


def _read_choice(data: Any, where: str, path: tuple[str, ...]) -> Choice | Branch:
    if isinstance(data, (list, tuple)) and data and path in [(name,) for name in NAMED]:
        data = {str(name): {} for name in data}
    if isinstance(data, Mapping) and data:
        return Branch(
            {key: _read_branch(item, f"{where}.{key}", path) for key, item in expect_mapping(data, where).items()}
        )
    if not isinstance(data, (list, tuple)) or not data:
        raise InputError(
            f"nothing to choose from: {data!r}", where=where, allowed="a list of values, or names with a mapping each"
        )
    for option in data:
        if not isinstance(option, Scalar):
            raise InputError(f"expected a number, text, true, false or null, found {option!r}", where=where)
    if len({(type(option), option) for option in data}) != len(data):
        raise InputError(f"an option appears twice: {list(data)!r}", where=where)
    return Choice(tuple(data))


def _read_branch(data: Any, where: str, path: tuple[str, ...]) -> Nested:
    mapping = expect_mapping({} if data is None else data, where)
    if "name" in mapping:
        raise InputError("'name' is the name of the branch", where=where, allowed="other keys")
    return Nested({key: _read_node(item, f"{where}.{key}", (*path, key)) for key, item in mapping.items()})


# -- what methods declare ------------------------------------------------------------------------------------------


def declared(method: type[Any]) -> dict[str, dict[str, Any] | None]:
    """Hyper-parameter -> the parameter that searches it, as a space file says it; None if it declares no range.

    Numbers need `reading.within`, with finite and valid ends or with `search`; text needs `reading.choices`.
    """
    hints = typing.get_type_hints(method)
    return {field.name: _parameter_of(hints[field.name], field.metadata) for field in dataclasses.fields(method)}


def _parameter_of(kind: Any, limits: Mapping[str, Any]) -> dict[str, Any] | None:
    if kind is str and "choices" in limits:
        return {"choice": list(limits["choices"])}
    if kind not in (int, float) or "low" not in limits:
        return None
    low, high = limits["search"] or (limits["low"], limits["high"])
    excluded = limits["open_low"] and low == limits["low"]
    if not (math.isfinite(low) and math.isfinite(high)) or excluded or (limits["log"] and low <= 0):
        return None
    return {kind.__name__: [low, high], "log": limits["log"]}


def _spell_out(method: Any, where: str, find: FindMethod | None) -> Any:
    """The `method` part of a space, `range` and `ranges` replaced by the parameters that they stand for."""
    if not isinstance(method, Mapping):
        return method
    options = method.get("choice")
    if isinstance(options, Mapping):
        spelt = {name: _spell_branch(name, item, f"{where}.choice.{name}", find) for name, item in options.items()}
        return {**method, "choice": spelt}
    return _spell_branch(method.get("name"), method, where, find)


def _spell_branch(name: Any, data: Any, where: str, find: FindMethod | None) -> Any:
    if isinstance(data, str) and data != RANGES:
        allowed = f"`{RANGES}`, or a mapping of hyper-parameters"
        raise InputError(f"expected what to search, found {data!r}", where=where, allowed=allowed)
    if data == RANGES:
        return _all_ranges(name, where, find)
    if not isinstance(data, Mapping) or RANGE not in [item for item in data.values() if isinstance(item, str)]:
        return data
    known = _declared(name, where, find)
    return {key: _one_range(name, key, known, where) if item == RANGE else item for key, item in data.items()}


def _all_ranges(name: Any, where: str, find: FindMethod | None) -> dict[str, Any]:
    """Every hyper-parameter that declares a range; at least one."""
    found = {key: item for key, item in _declared(name, where, find).items() if item is not None}
    if not found:
        raise InputError(f"method {name!r} declares no ranges", where=where, allowed="{}")
    return found


def _one_range(name: Any, key: str, known: Mapping[str, Any], where: str) -> Any:
    ranged = [other for other, item in known.items() if item is not None]
    if not known:
        raise InputError(f"method {name!r} has no hyper-parameters", where=f"{where}.{key}", allowed="{}")
    check_name(key, known, kind=f"hyper-parameter of {name!r}", where=where)
    if known[key] is None:
        raise InputError(f"{key!r} declares no range", where=f"{where}.{key}", allowed=", ".join(ranged) or "a value")
    return known[key]


def _declared(name: Any, where: str, find: FindMethod | None) -> dict[str, dict[str, Any] | None]:
    if find is None or not isinstance(name, str):
        missing = "no methods are known here" if find is None else "the method's name is not a plain name"
        raise InputError(f"`{RANGE}` cannot be looked up: {missing}", where=where, allowed="{float: [low, high]}")
    return declared(find(name, where))


# -- walking -------------------------------------------------------------------------------------------------------


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _walk(node: Node, name: str, suggest: Suggest) -> Any:
    match node:
        case Fixed(value):
            return value
        case Float(low, high, log):
            return suggest.suggest_float(name, low, high, log=log)
        case Int(low, high, log, step):
            return suggest.suggest_int(name, low, high, step=step, log=log)
        case Choice(options):
            return suggest.suggest_categorical(name, options)
        case Branch(options):
            picked = str(suggest.suggest_categorical(name, tuple(options)))
            return {"name": picked, **_walk(options[picked], _join(name, picked), suggest)}
        case Nested(items):
            return {key: _walk(item, _join(name, key), suggest) for key, item in items.items()}
        case Each():
            raise InputError("`each` needs a model", where=name, allowed="a space bound to the model's groups")


def _corners(node: Node, *, high: bool) -> list[Any]:
    match node:
        case Fixed(value):
            return [value]
        case Float() | Int():
            return [node.high if high else node.low]
        case Choice(options):
            return list(options)
        case Branch(options):
            return [{"name": name, **sub} for name, item in options.items() for sub in _corners(item, high=high)]
        case Each(item=item):
            return [{"*": value} for value in _corners(item, high=high)]
        case Nested(items):
            columns = {key: _corners(item, high=high) for key, item in items.items()}
            rows = max((len(column) for column in columns.values()), default=1)
            return [{key: column[min(i, len(column) - 1)] for key, column in columns.items()} for i in range(rows)]


def _parameters(node: Node, name: str) -> Iterator[tuple[str, Float | Int | Choice | Branch]]:
    match node:
        case Float() | Int() | Choice():
            yield name, node
        case Branch(options):
            yield name, node
            for key, branch in options.items():
                yield from _parameters(branch, _join(name, key))
        case Nested(items):
            for key, item in items.items():
                yield from _parameters(item, _join(name, key))


def _to_plain(node: Node) -> Any:
    plain: dict[str, Any]
    match node:
        case Fixed(value):
            return to_plain(value)
        case Float(low, high, log):
            plain = {"float": [low, high], "log": log}
        case Int(low, high, log, step):
            plain = {"int": [low, high], "log": log, "step": step}
        case Choice(options):
            plain = {"choice": list(options)}
        case Branch(options):
            plain = {"choice": {name: _to_plain(item) for name, item in options.items()}}
        case Each(scope, item):
            plain = {"each": scope, **_to_plain(item)}
        case Nested(items):
            plain = {key: _to_plain(node) for key, node in items.items()}
    return plain


# -- binding -------------------------------------------------------------------------------------------------------


def _bind(node: Node, groups: Sequence[tuple[str, int]], path: tuple[str, ...]) -> Node:
    match node:
        case Each(scope, item):
            keys = [f"stage{n}" for n in sorted({stage for _, stage in groups})]
            return Nested(dict.fromkeys([group for group, _ in groups] if scope == "group" else keys, item))
        case Branch(options):
            return Branch({name: _bind_nested(branch, groups, path) for name, branch in options.items()})
        case Nested():
            return _bind_nested(node, groups, path)
        case _:
            return node


def _bind_nested(node: Nested, groups: Sequence[tuple[str, int]], path: tuple[str, ...]) -> Nested:
    if path == RATIOS:
        for key in node.items:
            _check_ratio_key(key, groups)
    return Nested({key: _bind(item, groups, (*path, key)) for key, item in node.items.items()})


def _check_ratio_key(key: str, groups: Sequence[tuple[str, int]]) -> None:
    allowed = [group for group, _ in groups] + sorted({f"stage{stage}" for _, stage in groups})
    if not any(fnmatch.fnmatchcase(name, key) for name in allowed):
        check_name(key, allowed, kind="group, stage or pattern", where="space.allocation.ratios")
