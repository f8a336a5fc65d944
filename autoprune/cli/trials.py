"""replay, prune: one trial."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autoprune.cli.common import find_outcome, member_facts, model_by_name
from autoprune.cli.view import print_json, show
from autoprune.errors import DataError, InputError, StudyError
from autoprune.recipe import Allocation, Recipe
from autoprune.schema import to_plain
from autoprune.study.folder import load_study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from autoprune.engine.graph import ChannelGraph
    from autoprune.engine.keep import Keep

#: What `prune --task` prints of the training, beside --json, which has all of it.
TOLD_OF_TRAINING = ("images", "batch_size", "lr")


def replay(args: Namespace) -> None:
    """Run one recorded trial again; `StudyError` if it gives something else."""
    from autoprune.search.recorded_trial import run_again
    from autoprune.tasks import load_task

    study = load_study(args.folder)
    before = find_outcome(study, args.trial)
    after = run_again(study, before, load_task(study.config["task"]))
    rows = _comparison_rows(before, after, args.tolerance, study.metric)
    if args.json:
        notes = {"recorded": dict(before.notes), "again": dict(after.notes)}
        print_json({"trial": before.id, "same": all(row["same"] for row in rows), "compared": rows, "notes": notes})
    else:
        show(rows, title=f"trial {before.id} of {args.folder}")
    wrong = [row["what"] for row in rows if not row["same"]]
    if wrong:
        raise StudyError(f"trial {before.id} gave another {', '.join(wrong)}", where=str(args.folder))


def prune(args: Namespace) -> None:
    """Run one recipe on a task, or cut a model without data."""
    from autoprune.files import check_new_folder

    if (args.model is None) == (args.task is None):
        raise InputError("give either MODEL or --task", where="prune", allowed="one of the two")
    if args.to is not None:
        check_new_folder(args.to)
    facts = _prune_task(args) if args.model is None else _prune_model(args)
    if args.to is not None:
        facts["folder"] = str(args.to)
    _print_facts(facts, as_json=args.json)


def _comparison_rows(before: Outcome, after: Outcome, tolerance: float, metric: MetricSpec) -> list[dict[str, Any]]:
    """One row per number of a trial; status, counted costs and widths must be equal, the metric near, by its height.

    Times are not compared: they are the machine's, not the recipe's.
    """
    rows = []
    for name in ("status", "flops_ratio", "params_ratio", "activations_ratio", "metric"):
        old, new = getattr(before, name), getattr(after, name)
        near = old == new
        if name == "metric" and old is not None and new is not None:
            near = abs(metric.height(old) - metric.height(new)) <= tolerance
        rows.append({"what": metric.name if name == "metric" else name, "recorded": old, "again": new, "same": near})
    widths = dict(before.widths) == dict(after.widths)
    rows.append(
        {"what": "widths", "recorded": sum(before.widths.values()), "again": sum(after.widths.values()), "same": widths}
    )
    return rows


def _prune_task(args: Namespace) -> dict[str, Any]:
    from autoprune import methods
    from autoprune.engine.allocation.allocate import check_prunable
    from autoprune.engine.surgery import artifact
    from autoprune.search.prepare import check_recipes
    from autoprune.search.proposing.first_recipes import middle_training
    from autoprune.study.space_file import load_space
    from autoprune.tasks import load_task
    from autoprune.trial.run import run
    from autoprune.trial.shared import SharedState

    _given_recipe(args)  # before the data are read
    config = load_space(args.task, check_method=methods.build, find_method=methods.find)
    recipe = _given_recipe(args, middle_training(config.space))
    task = load_task(config.task)
    check_recipes(task, task.model(), [recipe])
    shared = SharedState.of(task)
    check_prunable(shared.graph)
    shared.check_reachable(replace(recipe.target, latency=None), recipe.allocation)
    done = run(recipe, shared, latency=config.latency)
    if not done.outcome.completed or done.model is None or done.keep is None or done.graph is None:
        raise StudyError(done.outcome.error or f"the trial ended as {done.outcome.status}", where="prune")
    outcome, metric = done.outcome, task.metric_spec
    if args.to is not None:
        info = {"outcome": json.loads(outcome.to_json(metric))}
        artifact.save(args.to, done.model, done.graph, done.keep, info=info)
    timed = _time_remark(outcome.flops_ratio, outcome.latency_ratio, outcome.latency_low, outcome.latency_high)
    widths = _width_remark(done.graph, done.keep, recipe.allocation)
    remarks = [text for text in (*task.remarks, task.weights_remark(shared.model), timed, widths) if text]
    told = {
        "remarks": remarks,
        "training": to_plain(recipe.training),
        "notes": dict(outcome.notes),
        "seconds": dict(outcome.seconds),
    }
    facts = member_facts(outcome, metric) | {f"dense_{metric.name}": shared.dense_metric()}
    return {**facts, "widths": dict(outcome.widths), "training": to_plain(recipe.training), **told}


def _prune_model(args: Namespace) -> dict[str, Any]:
    from autoprune import methods
    from autoprune.engine.allocation.allocate import check_prunable
    from autoprune.engine.cost import cost
    from autoprune.engine.keep import Keep
    from autoprune.engine.surgery import artifact
    from autoprune.engine.tracing.trace import trace
    from autoprune.methods.base.method import Context
    from autoprune.study.constraints import Latency
    from autoprune.timing.pairs import Timer
    from autoprune.training.runtime import Runtime

    recipe = _given_recipe(args)
    method = methods.build(recipe.method)
    model, example = model_by_name(args)
    graph = trace(model, example)
    check_prunable(graph)
    context = Context(model=model, graph=graph, batches=_no_data, loss=_no_data, predict=_no_data, seed=recipe.seed)
    keep = method.select(context, method.score(context), recipe.target, recipe.allocation).keep
    pruned = method.rebuild(context, keep)
    if args.to is not None:
        artifact.save(args.to, pruned, graph, keep, info={"recipe": recipe.to_dict(), "model": args.model})
    dense, after = cost(graph, Keep.all()), cost(graph, keep)
    ratios = {f"{name}_ratio": ratio for name, ratio in after.ratios(dense).items()}
    inputs = example if isinstance(example, tuple) else (example,)
    timing = Timer(lambda: model, inputs, Runtime()).time(pruned, Latency())
    times = {"latency_ratio": timing.ratio, "latency_ms": timing.ms}
    remarks = [] if ":" in args.model else [f"the weights are those that {args.model} begins with, untrained"]
    remarks += [_time_remark(ratios["flops_ratio"], timing.ratio, timing.low, timing.high)]
    remarks += [_width_remark(graph, keep, recipe.allocation)]
    found = {"method": recipe.method.name, **ratios, **times, "widths": keep.widths(graph)}
    return {**found, "remarks": [text for text in remarks if text]}


def _time_remark(flops: float | None, ratio: float | None, low: float | None, high: float | None) -> str:
    """A warning where the model has fewer FLOPs and, as far as was measured here, may take as long."""
    from autoprune.study.front_timings import is_as_slow

    if not is_as_slow(flops, ratio, high):
        return ""
    takes = f"{ratio:.2f} of the dense model's time here, in PyTorch, {low:.2f} to {high:.2f}"
    if low is not None and low < 1:
        return f"FLOPs fell and time may not have: {takes}; on an idle machine it is known better"
    return f"FLOPs fell and time did not: it takes {takes}"


def _width_remark(graph: ChannelGraph, keep: Keep, allocation: Allocation) -> str:
    """Which groups have other widths than `round_to: auto` wants."""
    from autoprune.engine.allocation.widths import slow_groups

    slow = slow_groups(graph, keep, allocation)
    if not slow:
        return ""
    most = f"{', '.join(slow[:3])}{', ...' if len(slow) > 3 else ''}"
    return f"no fast widths come within 1 % of the target: those of {most} are finer"


def _no_data(*_: Any) -> Any:
    raise DataError("this method looks at data", where="prune MODEL", allowed="--task SPACE, or a method such as l1")


def _given_recipe(args: Namespace, training: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe that the options say; raises `InputError` if there is none such, or it prunes nothing.

    Args:
        training: of the space, where there is one; options go before it.
    """
    from autoprune import methods
    from autoprune.search.prepare import check_target_given
    from autoprune.study.space_file import merge

    plain: dict[str, Any] = {"method": {"name": args.method}, "target": {}, "seed": args.seed}
    plain["training"] = dict(training or {})
    plain["target"] = {name: getattr(args, name) for name in ("flops", "params") if getattr(args, name) is not None}
    plain["allocation"] = {"round_to": args.round_to}
    for override in args.set:
        plain = merge(plain, _nested_override(override))
    recipe = Recipe.from_dict(plain)
    methods.build(recipe.method)
    check_target_given(recipe, "prune: target")
    if recipe.weights == "front":
        raise InputError("there is no front to go on from", where="prune: weights", allowed="trained, scratch")
    return recipe


def _nested_override(override: str) -> dict[str, Any]:
    """`a.b=1` to {"a": {"b": 1}}."""
    from autoprune.study.space_file import read_override

    path, value = read_override(override, "training.lr=0.1")
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def _print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    rows: Sequence[Mapping[str, Any]] = [
        {"what": name, "value": value} for name, value in facts.items() if not isinstance(value, (Mapping, list))
    ]
    show(rows)
    training = facts.get("training", {})
    show([{"what": name, "value": training[name]} for name in TOLD_OF_TRAINING if training], title="training")
    show([{"what": name, "value": value} for name, value in facts.get("notes", {}).items()], title="notes")
    show([{"group": group, "kept": width} for group, width in facts["widths"].items()], title="widths")
    for remark in facts.get("remarks", ()):
        print(remark)
