"""Options that pick models of a front, for the commands that show some, hand one over or train some again."""

from __future__ import annotations

import itertools
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoprune.cli.options import cost_ratio, latency_limit, number_within
from autoprune.errors import InputError

if TYPE_CHECKING:
    from autoprune.study.folder import Study
    from autoprune.study.metric import MetricSpec

#: The options that limit what a model costs or loses, by their names in a namespace.
_OPTIONS = ("within", "metric", "min_accuracy", "max_flops", "max_params", "max_activations", "max_latency")

#: Options of which one says all that is to be said of the metric.
_OF_THE_METRIC = ("within", "metric", "min_accuracy")

#: What may stand beside each other.
LIMITS = "any of --within (or --metric, --min-accuracy), --max-flops, --max-params, --max-activations, --max-latency"

#: What `choose` shows if it is asked for nothing: points below the dense model, and a share of the first cost.
POINTS, HALF = (0.5, 1.0, 2.0), 0.5


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one model is to be picked by.

    Fields:
        text: in words, for a table.
        limits: as `pareto.pick` takes them; none = the knee.
    """

    text: str
    limits: Mapping[str, float]


def add_picks(parser: ArgumentParser, *, knee: str, several: bool = False) -> None:
    """The knee, and limits.

    Args:
        parser: of the command.
        knee: the help of `--knee`.
        several: whether an option takes several values, for a model each.
    """
    many: dict[str, Any] = {"nargs": "+", "default": []} if several else {}
    parser.add_argument("--knee", action="store_true", help=knee)
    parser.add_argument(
        "--within",
        type=number_within(0, sys.float_info.max),
        metavar="P",
        help="the cheapest that loses at most P points to the dense model, P hundredths of an accuracy; of a metric "
        "without %%, P of its unit",
        **many,
    )
    parser.add_argument(
        "--max-flops", type=cost_ratio, metavar="R", help="the best with at most this FLOPs ratio", **many
    )
    parser.add_argument("--max-params", type=cost_ratio, metavar="R", help="the same for parameters", **many)
    parser.add_argument("--max-activations", type=cost_ratio, metavar="R", help="the same for activations", **many)
    parser.add_argument(
        "--max-latency",
        type=latency_limit,
        metavar="T",
        help="the same for latency: 5ms, or a ratio such as 0.5",
        **many,
    )
    parser.add_argument(
        "--metric",
        type=number_within(-sys.float_info.max, sys.float_info.max),
        metavar="V",
        help="the cheapest whose metric is as good",
        **many,
    )
    parser.add_argument(
        "--min-accuracy", type=number_within(0, 1), metavar="A", help="the same in a study of accuracy", **many
    )


def picked_limits(args: Namespace, study: Study, *, trials: str | None) -> Mapping[str, float]:
    """What the model may cost at most and has to reach at least, as `pareto.pick` takes it; nothing for the knee.

    Args:
        args: with one value for each option.
        study: whose models are picked.
        trials: the option that names trials, if it was given.

    Raises:
        InputError: it does not go with the study's metric, or there is more than one choice.
    """
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if (trials is not None) + args.knee + bool(given) > 1:
        named = "--trial" if args.command == "export" else "--trials"
        raise InputError("more than one choice", where=args.command, allowed=f"{named}, --knee, or {LIMITS}")
    return _wish(given, study, args.command).limits


def picked_wishes(args: Namespace, study: Study) -> list[Wish]:
    """One wish for every combination of the values that limits were given, and the knee; the usual ones of none.

    Raises:
        InputError: they do not go with the study's metric, or say the same in two ways.
    """
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name)}
    if not given and not args.knee:
        return _usual_wishes(study)
    combined = itertools.product(*given.values()) if given else ()
    found = [_wish(dict(zip(given, values, strict=True)), study, args.command) for values in combined]
    return [*found, *([_KNEE] if args.knee else [])]


_KNEE = Wish(text="knee", limits={})


def picked_trials(study: Study, args: Namespace) -> tuple[int, ...]:
    """The trials that `--trials`, `--knee` or limits name; none if nothing was given."""
    from autoprune.study import choosing

    limits = picked_limits(args, study, trials="--trials" if args.trials else None)
    if args.most is not None and (args.trials or args.knee or limits):
        raise InputError("--most is for the whole front", where="finish", allowed=f"without --trials, --knee, {LIMITS}")
    if args.trials or not (args.knee or limits):
        return tuple(args.trials)
    return (choosing.choose(study, limits, searched=True).id,)


def _usual_wishes(study: Study) -> list[Wish]:
    """What is asked most: little lost, half the cost, the knee."""
    cost = study.tradeoff.costs[0]
    by_loss = study.dense_metric is not None and study.metric.unit == "%"
    lost = [_wish({"within": points}, study, "choose") for points in POINTS] if by_loss else []
    return [*lost, Wish(text=_limit_text(cost, HALF, study.metric), limits={cost: HALF}), _KNEE]


def _wish(given: Mapping[str, Any], study: Study, command: str) -> Wish:
    """The wish of some options, each with one value."""
    from autoprune.study import choosing

    _check_metric_options(given, study.metric, command)
    limits: dict[str, float] = {}
    texts = []
    for name, value in given.items():
        if name == "within":
            limits["metric"] = choosing.metric_within(study, value)
            texts.append(f"within {study.metric.points_text(value)}")
            continue
        key, limit = _limit_of(name, value)
        limits[key] = limit
        texts.append(_limit_text(key, limit, study.metric))
    return Wish(text=", ".join(texts), limits=limits)


def _check_metric_options(given: Mapping[str, Any], metric: MetricSpec, command: str) -> None:
    from autoprune.study.metric import ACCURACY

    named = [f"--{name.replace('_', '-')}" for name in _OF_THE_METRIC if name in given]
    if "min_accuracy" in given and metric.name != ACCURACY.name:
        raise InputError(f"this study is of {metric.name}", where="--min-accuracy", allowed="--metric VALUE")
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} say the same", where=command, allowed="one of them")


def _limit_of(option: str, value: Any) -> tuple[str, float]:
    """The name of a limit, as `pareto.pick` has it, and its number."""
    if option == "max_latency":
        name, most = value
        return name, most
    return ("metric" if option in _OF_THE_METRIC else option.removeprefix("max_")), value


def _limit_text(name: str, limit: float, metric: MetricSpec) -> str:
    """A limit in the words of a table's columns."""
    if name == "metric":
        return metric.wish(limit)
    return f"ms <= {limit:g}" if name == "latency_ms" else f"{name} <= {limit:g}"
