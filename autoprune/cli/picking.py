"""Options that pick models of a front, for the commands that hand one over or train some again."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from autoprune.cli.options import cost_ratio, latency_limit, number_within
from autoprune.errors import InputError

if TYPE_CHECKING:
    from autoprune.study.folder import Study
    from autoprune.study.metric import MetricSpec

#: What may stand beside each other.
LIMITS = "any of --metric, --min-accuracy, --max-flops, --max-params, --max-activations, --max-latency"


def add_picks(parser: ArgumentParser, *, knee: str) -> None:
    """The knee, and limits; `knee` is its help."""
    parser.add_argument("--knee", action="store_true", help=knee)
    parser.add_argument("--max-flops", type=cost_ratio, metavar="R", help="the best with at most this FLOPs ratio")
    parser.add_argument("--max-params", type=cost_ratio, metavar="R", help="the same for parameters")
    parser.add_argument("--max-activations", type=cost_ratio, metavar="R", help="the same for activations")
    parser.add_argument(
        "--max-latency", type=latency_limit, metavar="T", help="the same for latency: 5ms, or a ratio such as 0.5"
    )
    parser.add_argument(
        "--metric",
        type=number_within(-sys.float_info.max, sys.float_info.max),
        metavar="V",
        help="the cheapest whose metric is as good",
    )
    parser.add_argument("--min-accuracy", type=number_within(0, 1), metavar="A", help="the same in a study of accuracy")


def picked_limits(args: Namespace, metric: MetricSpec, *, trials: str | None) -> dict[str, float]:
    """What the model may cost at most and has to reach at least, as `pareto.pick` takes it.

    Args:
        trials: the option that names trials, if it was given.

    Raises:
        InputError: it does not go with the study's metric, or there is more than one choice.
    """
    limits = _given_limits(args, metric)
    if (trials is not None) + args.knee + bool(limits) > 1:
        named = "--trial" if args.command == "export" else "--trials"
        raise InputError("more than one choice", where=args.command, allowed=f"{named}, --knee, or {LIMITS}")
    return limits


def picked_trials(study: Study, args: Namespace) -> tuple[int, ...]:
    """The trials that `--trials`, `--knee` or limits name; none if nothing was given."""
    from autoprune.study import pareto

    limits = picked_limits(args, study.metric, trials="--trials" if args.trials else None)
    if args.most is not None and (args.trials or args.knee or limits):
        raise InputError("--most is for the whole front", where="finish", allowed=f"without --trials, --knee, {LIMITS}")
    if args.trials or not (args.knee or limits):
        return tuple(args.trials)
    if limits:
        return (pareto.pick(study.front, limits, study.tradeoff).id,)
    return (pareto.knee(study.front, study.tradeoff).id,)


def _given_limits(args: Namespace, metric: MetricSpec) -> dict[str, float]:
    from autoprune.study.metric import ACCURACY

    if args.min_accuracy is not None and metric.name != ACCURACY.name:
        raise InputError(f"this study is of {metric.name}", where="--min-accuracy", allowed="--metric VALUE")
    if args.min_accuracy is not None and args.metric is not None:
        raise InputError("--min-accuracy and --metric say the same", where=args.command, allowed="one of the two")
    given = {"flops": args.max_flops, "params": args.max_params, "activations": args.max_activations}
    given["metric"] = args.metric if args.min_accuracy is None else args.min_accuracy
    if args.max_latency is not None:
        name, most = args.max_latency
        given[name] = most
    return {name: limit for name, limit in given.items() if limit is not None}
