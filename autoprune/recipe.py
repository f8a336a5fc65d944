"""Recipe: one point of the search space, a plain value that JSON holds and `run_trial` turns into an Outcome."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.errors import InputError, brief_repr
from autoprune.schema import brief, choices, expect_mapping, or_words, read, read_field, to_plain, within

#: The value of `round_to` that leaves widths to what they take on a device.
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class MethodChoice:
    """A method by name and the hyper-parameters that differ from its defaults (checked by `methods.build`)."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the pruned model may cost, as ratios of the dense model; every ratio given must be met.

    Ratios make papers that count multiply-adds and tools that count FLOPs agree (see `engine/cost.py`).

    Fields:
        flops: of the dense model's FLOPs, within 1 %.
        params: the same of its parameters.
        latency: of its time, as the study's `latency` measures it: met by the FLOPs at which models come down to it.
    """

    flops: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    params: float | None = field(default=None, metadata=within(0, 1, open_low=True))
    latency: float | None = field(default=None, metadata=brief(within(0, 1, open_low=True)))

    def __post_init__(self) -> None:
        for name, ratio in self.ratios().items():
            if not 0 < ratio <= 1:
                raise InputError(f"{ratio!r} is out of range", where=f"target.{name}", allowed="(0, 1]")

    def ratios(self) -> dict[str, float]:
        """The limits that are set: cost name -> ratio."""
        limits = {"flops": self.flops, "params": self.params, "latency": self.latency}
        return {name: ratio for name, ratio in limits.items() if ratio is not None}


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How scores and a target become widths (`engine/allocation`), flat as in a file: the keys of all strategies.

    Fields:
        name: `uniform` prunes the same share of every group; `ratios` prunes shares in proportion to `ratios`;
            `global` ranks the units of all groups together by normalised score; `features` is `ratios` with weights
            that follow from a few coefficients, so that a search has the same numbers for every network.
        normalise: `global` only: what a group's scores are divided by before they are compared with other groups'.
            `isomorphic` divides by the mean and compares groups of equal structure alone, such as the insides of all
            blocks; every class of them loses the same share of its units.
        per: `global` only: scores are divided by what a channel of the group saves, of `flops` or of `latency` as the
            study's `latency` measures it, so that as much as possible is kept for what the model costs; `given`: by
            `prices`, 1 for groups that these do not name. `channel`: by nothing.
        prices: `global` per `given` only: what a channel counts, by keys as those of `ratios`.
        ratios: `ratios` only: weight per group id, `stageN` or glob pattern; the target scales them all by one scalar.
            The most specific key wins (id, stage, then the first pattern that fits); unlisted groups are not pruned.
        depth: `features` only, as the next three: a coefficient; all 0 = uniform. Above 0, later groups lose more.
        flops: above 0, groups lose more that save more FLOPs.
        stream: above 0, groups lose more that more layers write to, such as a residual stream.
        sensitivity: above 0, groups lose more whose weaker half the loss misses more (measured once per study).
        max_ratio: largest share of a group that may go.
        min_channels: smallest number of channels of a group; a narrower group is not pruned.
        round_to: channels of a pruned group are a multiple of this (4, 8, 16, ... for hardware that likes them). The
            dense width is always allowed, so a group that is narrower than `round_to` is not pruned. `auto`: widths
            that are worth their time on `device`, none that a wider layer undercuts, and no gap above a quarter or 16.
        device: `auto` only: whose times by width count. A name (`autoprune widths` lists them) or a file that
            `autoprune widths` has measured.
        grouped: what grouped convolutions and norms lose: `offsets`, the same in every group, whole `groups`, or
            `either`, whichever lets more of the scores stay. A recipe that goes on from another cuts as that did.

    Channels are filters of one layer. Where groups of a convolution lose channels together, a unit holds several of
    them: with 32 groups, a `round_to` of 8 asks for nothing that does not hold anyway.
    """

    name: str = field(default="global", metadata=choices("uniform", "ratios", "global", "features"))
    normalise: str = field(default="mean", metadata=choices("none", "mean", "max", "std", "isomorphic"))
    per: str = field(default="channel", metadata=brief(choices("channel", "flops", "latency", "given")))
    prices: Mapping[str, float] = field(default_factory=dict, metadata=brief(within(0, 1, open_low=True)))
    ratios: Mapping[str, float] = field(default_factory=dict, metadata=within(0, 1))
    depth: float = field(default=0.0, metadata=within(-5, 5))
    flops: float = field(default=0.0, metadata=within(-5, 5))
    stream: float = field(default=0.0, metadata=within(-5, 5))
    sensitivity: float = field(default=0.0, metadata=within(-5, 5))
    max_ratio: float = field(default=0.95, metadata=within(0, 1, open_low=True))
    min_channels: int = field(default=1, metadata=within(1, 2**20))
    round_to: int | str = field(default=1, metadata=or_words(within(1, 512), AUTO))
    device: str = field(default="cpu", metadata=brief())
    grouped: str = field(default="offsets", metadata=choices("offsets", "groups", "either"))

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, read_field(Allocation, name, value, f"allocation.{name}"))


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained, in units that mean the same for every batch size and data set.

    Fields:
        images: every training image that the trial sees, a stage before the cut included, so that methods with and
            without such a stage spend the same budget.
        batch_size: images of a step.
        lr: the highest learning rate, after the warm-up.
        momentum: Nesterov's with `sgd`, the first of the two betas with `adamw` and `adam`.
        weight_decay: of weights; see `decay_all`.
        schedule: how the learning rate comes down: along a cosine or a line to 0, or not at all.
        warmup: share of a stage's steps in which the learning rate rises.
        label_smoothing: share of a label that is spread over all classes; of cross entropies only.
        distill: share of the loss that is the distance to what the dense model says; the rest is the labels'.
        temperature: of distillation.
        ema: decay per step of a moving average of the weights, which is what is measured and kept; 0 = none.
        rungs: shares of `images` after which the metric is measured, so far as the pruned model is there by then; 0 is
            right after the cut, whatever came before it, and 1 (the end) is always measured.
        optimizer: `sgd` has Nesterov momentum; `adamw` decays weights apart from the gradient.
        decay_all: whether weight decay also holds what has one dimension, norms and biases; None = not with `adamw`.
        clip: largest norm of all gradients together, 0 = any; what a regulariser adds is not clipped.
        accumulate: passes that a step's batch is divided among, for memory. Batch norms see a part at a time.
    """

    images: int = field(default=50_000, metadata=within(0, 10**12))
    batch_size: int = field(default=128, metadata=within(1, 2**20))
    lr: float = field(default=0.01, metadata=within(0, 100, open_low=True))
    momentum: float = field(default=0.9, metadata=within(0, 0.9999))
    weight_decay: float = field(default=5e-4, metadata=within(0, 1))
    schedule: str = field(default="cosine", metadata=choices("cosine", "linear", "constant"))
    warmup: float = field(default=0.0, metadata=within(0, 0.9))
    label_smoothing: float = field(default=0.0, metadata=within(0, 0.9))
    distill: float = field(default=0.0, metadata=within(0, 1))
    temperature: float = field(default=4.0, metadata=within(0, 100, open_low=True))
    ema: float = field(default=0.0, metadata=within(0, 0.99999))
    rungs: tuple[float, ...] = field(default=(0.0, 1.0), metadata=within(0, 1))
    optimizer: str = field(default="sgd", metadata=brief(choices("sgd", "adamw", "adam")))
    decay_all: bool | None = field(default=None, metadata=brief())
    clip: float = field(default=0.0, metadata=brief(within(0, 10**6)))
    accumulate: int = field(default=1, metadata=brief(within(1, 2**20)))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a trial does; two equal recipes on one task are the same experiment.

    Fields:
        method: how units are scored, and what a trial does besides: a name, and hyper-parameters beside it. Both
            `"l1"` and `{"name": "bn_scale", "penalty": 1e-4}` become a `MethodChoice`.
        weights: where training begins: with the `trained` weights, from `scratch`, as for Early-Bird tickets, or with
            the final model of another recipe, a member of the `front`. The target is relative to the dense model all
            the same; one that the parent meets already lets it train on without a cut.
        parent: with `front`, the number of the trial that is gone on from.
        target: what the pruned model may cost.
        allocation: how scores and a target become widths: a name, and what goes with it.
        training: of the trial, before and after the cut.
        seed: of all that is drawn.
    """

    method: MethodChoice
    weights: str = field(default="trained", metadata=choices("trained", "scratch", "front"))
    parent: int | None = field(default=None, metadata=within(0, 2**53))
    target: Target = field(default_factory=Target)
    allocation: Allocation = field(default_factory=Allocation)
    training: Training = field(default_factory=Training)
    seed: int = field(default=0, metadata=within(0, 2**32 - 1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", _method_choice(self.method))
        if self.parent is not None and self.weights != "front":
            raise InputError(
                f"a parent with weights {self.weights!r}",
                where="recipe.parent",
                allowed="weights 'front', or no parent",
            )

    @classmethod
    def from_dict(cls, data: object, where: str = "recipe") -> Recipe:
        """Read a recipe from plain data.

        The method is one flat mapping, `{"name": "bn_scale", "penalty": 1e-4}`.

        Raises:
            InputError: naming the path inside `where` and what is allowed.
        """
        mapping = dict(expect_mapping(data, where))
        method = dict(expect_mapping(mapping.get("method"), f"{where}.method"))
        if not isinstance(method.get("name"), str):
            raise InputError("missing key 'name'", where=f"{where}.method")
        mapping["method"] = {"name": method.pop("name"), "params": {}}
        recipe = read(cls, mapping, where)
        return Recipe(**{**vars(recipe), "method": MethodChoice(name=recipe.method.name, params=method)})

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `Recipe.from_dict(recipe.to_dict()) == recipe`."""
        plain: dict[str, Any] = to_plain(self)
        plain["method"] = {"name": self.method.name, **plain["method"]["params"]}
        if self.parent is None:
            del plain["parent"]
        return plain

    def key(self) -> str:
        """A stable hash of the recipe: 12 hexadecimal digits, the same in every process and on every machine."""
        return stable_hash(self.to_dict())


def _method_choice(given: object) -> MethodChoice:
    where = "recipe.method"
    if isinstance(given, MethodChoice):
        return given
    if isinstance(given, str):
        return MethodChoice(name=given)
    if not isinstance(given, Mapping):
        allowed = "a name, or a mapping with name and hyper-parameters"
        raise InputError(f"{brief_repr(given)} is no method", where=where, allowed=allowed)
    params = dict(expect_mapping(given, where))
    if not isinstance(name := params.pop("name", None), str):
        raise InputError("missing key 'name'", where=where)
    return MethodChoice(name=name, params=params)


def stable_hash(value: Any) -> str:
    """12 hexadecimal digits of SHA-256 over the canonical JSON of plain data."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
