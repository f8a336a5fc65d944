"""What each subcommand does: arguments to a few calls into the package, results to text or JSON.

Every public function takes the arguments that `cli.py` parsed. Heavy imports are inside the functions: `--help`, wrong
options and commands that only read a study must not wait for torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.errors import DataError, ExportError, InputError, StudyError, check_name
from autoprune.results import Outcome, Study, StudyFolder, load_study

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autoprune.graph import ChannelGraph
    from autoprune.tasks import Task

HALF = 0.5
LAUNCH_FILES = "autoprune.cluster"


# --- searching --------------------------------------------------------------------------------------------------------


def search(args: Namespace) -> None:
    """Search a space until its budget is spent; then report."""
    from autoprune import search as engine

    out = args.out or Path("runs") / Path(args.space).stem
    _watch(engine.search, args.space, out=out, overrides=args.set, **_budget(args))


def resume(args: Namespace) -> None:
    """Go on with the study of a folder; then report."""
    from autoprune import search as engine

    load_study(args.folder)
    _watch(engine.resume, args.folder, **_budget(args))


def status(args: Namespace) -> None:
    """Print how a study stands and its front."""
    study = load_study(args.folder)
    if args.json:
        _print_json(study_facts(study))
    else:
        _print_study(study)


def report(args: Namespace) -> None:
    """Write the report and the front as a table."""
    study = load_study(args.folder)
    for path in _write_report(study):
        print(path)


def study_facts(study: Study) -> dict[str, Any]:
    """A study in plain data: counts by status, dense model, front, the best at half the FLOPs, hypervolume."""
    from autoprune import pareto

    members = pareto.front(study.outcomes)
    under_half = [member for member in members if (member.flops_ratio or math.inf) <= HALF]
    names = ("completed", "stopped", "failed")
    return {
        "study": str(study.folder.path),
        "trials": {name: sum(outcome.status == name for outcome in study.outcomes) for name in names},
        "unfinished": len(study.unfinished()),
        "dense": study.config.get("dense"),
        "front": [_member(member) for member in members],
        "best_under_half": _member(under_half[-1]) if under_half else None,
        "hypervolume": pareto.hypervolume(pareto.objectives(members)),
        "report": str(study.folder.report) if study.folder.report.is_file() else None,
    }


def _budget(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("trials", "minutes", "address", "in_process")}


def _watch(run: Any, *args: Any, **options: Any) -> None:
    """Run a search under the live view, write the report and print what came out."""
    from autoprune.view import open_view

    view = open_view(sys.stdout)
    try:
        study = run(*args, **options, view=view)
    finally:
        view.close()
    _write_report(study)
    if not sys.stdout.isatty():
        _print_json({"event": "end", **study_facts(study)})
        return
    _print_study(study)
    folder = study.folder.path
    print(f"\nreport: {study.folder.report}\nexport: autoprune export {folder} --max-flops {HALF} --to {folder}/export")


def _write_report(study: Study) -> list[Path]:
    from autoprune.analysis.frames import write_pareto_csv
    from autoprune.analysis.report import write_report

    return [write_report(study, study.folder.report), write_pareto_csv(study, study.folder.pareto)]


def _print_study(study: Study) -> None:
    from autoprune.analysis.summary import summarise
    from autoprune.view import front_table, show

    summary = summarise(study)
    show(front_table(study), title=f"front of {study.folder.path}")
    for line in (summary.headline, *summary.facts):
        print(line)


def _member(outcome: Outcome) -> dict[str, Any]:
    ratios = {name: getattr(outcome, name) for name in ("flops_ratio", "params_ratio", "activations_ratio")}
    return {"id": outcome.id, "method": outcome.recipe.method.name, "accuracy": outcome.accuracy, **ratios}


# --- one trial --------------------------------------------------------------------------------------------------------


def replay(args: Namespace) -> None:
    """Run one recorded trial again; `StudyError` if it gives something else."""
    from autoprune.view import show

    study = load_study(args.folder)
    before = _outcome(study, args.trial)
    after = _run_again(study, before)
    rows = _compare(before, after, args.tolerance)
    if args.json:
        _print_json({"trial": before.id, "same": all(row["same"] for row in rows), "compared": rows})
    else:
        show(rows, title=f"trial {before.id} of {args.folder}")
    wrong = [row["what"] for row in rows if not row["same"]]
    if wrong:
        raise StudyError(f"trial {before.id} gave another {', '.join(wrong)}", where=str(args.folder))


def prune(args: Namespace) -> None:
    """Run one recipe on a task, or cut a model without data."""
    from autoprune.export import check_new_folder

    if (args.model is None) == (args.task is None):
        raise InputError("give either MODEL or --task", where="prune", allowed="one of the two")
    if args.to is not None:
        check_new_folder(args.to)
    facts = _prune_task(args) if args.model is None else _prune_model(args)
    if args.to is not None:
        facts["folder"] = str(args.to)
    _print_facts(facts, as_json=args.json)


def _outcome(study: Study, trial: int) -> Outcome:
    for outcome in study.outcomes:
        if outcome.id == trial:
            return outcome
    ids = sorted(outcome.id for outcome in study.outcomes)
    allowed = ", ".join(map(str, ids)) if len(ids) <= 20 else f"{ids[0]} to {ids[-1]}"
    allowed = allowed or "none, as no trial has ended yet"
    raise InputError(f"there is no ended trial {trial}", where=str(study.folder.path), allowed=allowed)


def _run_again(study: Study, before: Outcome) -> Outcome:
    from autoprune import trial
    from autoprune.tasks import load_task

    task = load_task(study.config["task"])
    bench = trial.Bench(task)
    return trial.run(before.recipe, bench, id=before.id, control=before.control).outcome


def _compare(before: Outcome, after: Outcome, tolerance: float) -> list[dict[str, Any]]:
    """One row per number of a trial; status, costs and widths must be equal, the accuracy near."""
    rows = []
    for name in ("status", "flops_ratio", "params_ratio", "activations_ratio", "accuracy"):
        old, new = getattr(before, name), getattr(after, name)
        near = old == new
        if name == "accuracy" and old is not None and new is not None:
            near = abs(old - new) <= tolerance
        rows.append({"what": name, "recorded": old, "again": new, "same": near})
    widths = dict(before.widths) == dict(after.widths)
    rows.append({"what": "widths", "recorded": sum(before.widths.values()), "again": sum(after.widths.values()), "same": widths})
    return rows


def _prune_task(args: Namespace) -> dict[str, Any]:
    from autoprune import artifact, trial
    from autoprune.space import load_space
    from autoprune.tasks import load_task

    recipe = _recipe(args)
    bench = trial.Bench(load_task(load_space(args.task).task))
    bench.check(recipe.target)
    done = trial.run(recipe, bench)
    if not done.outcome.completed or done.model is None or done.keep is None:
        raise StudyError(done.outcome.error or f"the trial ended as {done.outcome.status}", where="prune")
    if args.to is not None:
        artifact.save(args.to, done.model, bench.graph, done.keep, info={"outcome": json.loads(done.outcome.to_json())})
    return {**_member(done.outcome), "widths": dict(done.outcome.widths), "seconds": dict(done.outcome.seconds)}


def _prune_model(args: Namespace) -> dict[str, Any]:
    from autoprune import artifact, methods
    from autoprune.cost import cost
    from autoprune.keep import Keep
    from autoprune.methods.base import Context
    from autoprune.trace import trace

    recipe = _recipe(args)
    method = methods.build(recipe.method)
    model, example = _model(args)
    graph = trace(model, example)
    context = Context(model=model, graph=graph, batches=_no_data, loss=_no_data, seed=recipe.seed)
    keep = method.select(context, method.score(context), recipe.target, recipe.allocation)
    pruned = method.rebuild(context, keep)
    if args.to is not None:
        artifact.save(args.to, pruned, graph, keep, info={"recipe": recipe.to_dict(), "model": args.model})
    dense, after = cost(graph, Keep.all()), cost(graph, keep)
    ratios = {f"{name}_ratio": ratio for name, ratio in after.ratios(dense).items()}
    return {"method": recipe.method.name, **ratios, "widths": keep.widths(graph)}


def _no_data(*_: Any) -> Any:
    raise DataError("this method looks at data", where="prune MODEL", allowed="--task SPACE, or a method such as l1")


def _recipe(args: Namespace) -> Any:
    from autoprune import methods
    from autoprune.recipe import Recipe
    from autoprune.space import merge

    plain: dict[str, Any] = {"method": {"name": args.method}, "target": {}, "seed": args.seed}
    plain["target"] = {name: getattr(args, name) for name in ("flops", "params") if getattr(args, name) is not None}
    for override in args.set:
        plain = merge(plain, _nested(override))
    recipe = Recipe.from_dict(plain)
    methods.build(recipe.method)
    return recipe


def _nested(override: str) -> dict[str, Any]:
    """`a.b=1` to {"a": {"b": 1}}."""
    from autoprune.space import parse_yaml

    path, equals, text = override.partition("=")
    if not path or not equals:
        raise InputError(f"expected key=value, found {override!r}", where="--set", allowed="for instance training.lr=0.1")
    value = parse_yaml(text, f"--set {path}")
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


# --- export -----------------------------------------------------------------------------------------------------------


def export(args: Namespace) -> None:
    """Write one model of a study in every format."""
    from autoprune import export as exporter
    from autoprune.tasks import load_task

    study = load_study(args.folder)
    outcome = _choose(study, args)
    source = _stored_model(study, outcome)
    exporter.require_onnx()
    exporter.check_new_folder(args.to)
    task = load_task(study.config["task"])
    info = {
        "task": study.config["task"],
        "pixels": dataclasses.asdict(task.validation.pixels),
        "dense": study.config.get("dense"),
        "groups": study.config.get("groups"),
        "outcome": json.loads(outcome.to_json()),
    }
    files = exporter.export(source, task.build, task.example(), args.to, info=info)
    print(f"trial {outcome.id}: accuracy {outcome.accuracy:.4f} at {outcome.flops_ratio:.1%} of the FLOPs")
    for file in files:
        print(file)


def verify(args: Namespace) -> None:
    """Score every file of an exported folder; `ExportError` unless all have the accuracy that was reported."""
    from autoprune import export as exporter
    from autoprune.tasks import load_task
    from autoprune.view import show

    record = exporter.read_record(args.folder)
    reported = (record.get("outcome") or {}).get("accuracy")
    if reported is None or not record.get("task"):
        raise InputError("export.json names no task or accuracy to compare with", where=str(args.folder))
    task = load_task(record["task"])
    count = len(task.validation)
    found = exporter.verify(args.folder, task)
    rows = [_verified(name, accuracy, reported, count) for name, accuracy in found.items()]
    if args.json:
        _print_json({"reported": reported, "images": count, "found": found})
    else:
        show(rows, title=f"{args.folder}: {count} validation images, reported accuracy {reported:.4f}")
    wrong = [row["file"] for row in rows if not row["as reported"]]
    if wrong:
        raise ExportError(f"{', '.join(wrong)}: not the accuracy that was reported", where=str(args.folder))


def _verified(name: str, accuracy: float, reported: float, images: int) -> dict[str, Any]:
    # Kernels add in another order: a logit on the edge may fall to the other side, in one image of a thousand.
    off = abs(round(accuracy * images) - round(reported * images))
    return {"file": name, "accuracy": accuracy, "as reported": off <= math.ceil(images / 1000), "images off": off}


def _choose(study: Study, args: Namespace) -> Outcome:
    from autoprune import pareto

    limits = args.max_flops is not None or args.min_accuracy is not None
    if (args.trial is not None) + args.knee + limits > 1:
        raise InputError("more than one choice", where="export", allowed="--trial, --knee, or --max-flops and --min-accuracy")
    if args.trial is not None:
        return _outcome(study, args.trial)
    members = pareto.front(study.outcomes)
    if limits:
        return pareto.pick(members, max_flops=args.max_flops, min_accuracy=args.min_accuracy)
    return pareto.knee(members)


def _stored_model(study: Study, outcome: Outcome) -> Path:
    folder = study.folder.models / str(outcome.id)
    if not folder.is_dir():
        kept = sorted((int(path.name) for path in study.folder.models.glob("*") if path.name.isdecimal()))
        allowed = f"trials that were on the front when they ended: {', '.join(map(str, kept))}"
        raise InputError(f"the model of trial {outcome.id} was not kept", where=str(study.folder.models), allowed=allowed)
    return folder


# --- looking things up ------------------------------------------------------------------------------------------------


def inspect(args: Namespace) -> None:
    """Print a model's groups, what holds channels back, and how far it can be pruned."""
    from autoprune.allocate import smallest
    from autoprune.cost import cost
    from autoprune.keep import Keep
    from autoprune.trace import trace
    from autoprune.view import show

    model, example = _model(args)
    graph = trace(model, example)
    dense = cost(graph, Keep.all())
    floor = smallest(graph).ratios(dense)
    rows = [_group_row(graph, group.id) for group in graph.prunable]
    frozen = [{"group": g.id, "channels": g.size, "why": g.frozen} for g in graph.groups if g.frozen is not None]
    if args.json:
        totals = {"dense": dataclasses.asdict(dense), "smallest": floor}
        _print_json({"model": args.model, **totals, "groups": rows, "frozen": frozen})
        return
    print(f"{args.model}: {dense.flops:,} FLOPs (1 multiply-add = 2), {dense.params:,} parameters")
    show([_as_text(row) for row in rows], title="groups of coupled channels; cutting a group to one channel saves the shares")
    show(frozen, title="frozen")
    print(f"smallest reachable: {floor['flops']:.1%} of the FLOPs, {floor['params']:.1%} of the parameters")


def methods(args: Namespace) -> None:
    """Print every method with its hyper-parameters."""
    from autoprune import methods as registry
    from autoprune.view import show

    rows = [_method_row(name) for name in registry.names()]
    if args.json:
        _print_json(rows)
        return
    flat = [
        {"method": row["name"], "ranks channels by": row["summary"], "hyper-parameters": _ranges(row), "source": row["source"]}
        for row in rows
    ]
    show(flat)


def spaces(args: Namespace) -> None:
    """Print the ready search spaces."""
    from autoprune import space as files
    from autoprune.view import show

    rows = [_space_row(name, files.load_space(name)) for name in files.names()]
    if args.json:
        _print_json(rows)
    else:
        show(rows)


def cluster(args: Namespace) -> None:
    """Print a launch file, or the list of them."""
    files = {Path(str(file)).stem: Path(str(file)) for file in resources.files(LAUNCH_FILES).iterdir()}
    names = [name for name, file in files.items() if file.suffix in {".yaml", ".sh", ".sbatch"}]
    if args.name is None:
        for name in sorted(names):
            print(f"{name:12} {files[name]}")
        return
    path = files[check_name(args.name, names, kind="launch file", where="cluster")]
    print(path if args.path else path.read_text(), end="\n" if args.path else "")


def _model(args: Namespace) -> tuple[nn.Module, torch.Tensor]:
    """The model that MODEL names, in eval mode, and an example input."""
    import torch

    from autoprune.errors import ModelError
    from autoprune.tasks import zoo
    from autoprune.tasks.data import load_function

    if ":" in args.model:
        try:
            model = load_function(args.model, "MODEL")()
        except TypeError as error:
            raise ModelError(f"cannot be called without arguments: {error}", where=args.model) from error
    else:
        model = zoo.build(args.model, args.input, args.classes, {}, "MODEL")
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"returns a {type(model).__name__}", where=args.model, allowed="a torch.nn.Module")
    stream = torch.Generator().manual_seed(0)
    return model.eval(), torch.randn(1, *args.input, generator=stream)


def _group_row(graph: ChannelGraph, group_id: str) -> dict[str, Any]:
    from autoprune.cost import cost
    from autoprune.keep import Keep

    dense, cut = cost(graph, Keep.all()), cost(graph, Keep.of({group_id: [0]}))
    ratios = cut.ratios(dense)
    group = graph.by_id[group_id]
    return {
        "group": group_id,
        "stage": group.stage,
        "channels": group.size,
        "layers": list(group.layers),
        "flops_share": 1 - ratios["flops"],
        "params_share": 1 - ratios["params"],
    }


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    shares = {f"% of {name}": f"{100 * row[key]:5.1f}" for name, key in (("FLOPs", "flops_share"), ("params", "params_share"))}
    return {"group": row["group"], "stage": row["stage"], "channels": row["channels"], **shares, "layers": len(row["layers"])}


def _method_row(name: str) -> dict[str, Any]:
    from autoprune.methods import METHODS

    kind = METHODS[name]
    fields = {field.name: {"default": field.default, **field.metadata} for field in dataclasses.fields(kind)}
    return {"name": name, "summary": kind.summary, "source": kind.source, "params": fields}


def _ranges(row: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} = {_range(limits)}" for name, limits in row["params"].items())


def _range(limits: Mapping[str, Any]) -> str:
    if "choices" in limits:
        return f"{limits['default']} ({', '.join(limits['choices'])})"
    if "low" in limits:
        bracket = "(" if limits["open_low"] else "["
        return f"{limits['default']:g} {bracket}{limits['low']:g}, {limits['high']:g}]"
    return str(limits["default"])


def _space_row(name: str, config: Any) -> dict[str, Any]:
    data, model = config.task["data"], config.task["model"]
    budget = config.budget
    return {
        "space": name,
        "data": data.get("name") or data.get("function") or "",
        "model": model.get("name") or model.get("factory") or "",
        "methods": " ".join(config.space.methods()),
        "budget": ", ".join(part for part in (_count(budget.trials, "trials"), _count(budget.minutes, "min")) if part),
    }


def _count(number: float | None, noun: str) -> str:
    return "" if number is None else f"{number:g} {noun}"


def _print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    from autoprune.view import show

    if as_json:
        _print_json(facts)
        return
    rows: Sequence[Mapping[str, Any]] = [
        {"what": name, "value": value} for name, value in facts.items() if not isinstance(value, Mapping)
    ]
    show(rows)
    show([{"group": group, "kept": width} for group, width in facts["widths"].items()], title="widths")


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False, default=str), flush=True)
