"""inspect, methods, spaces, cluster: what there is."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.commands.common import model_by_name
from autoprune.errors import check_name
from autoprune.view import print_json, show

if TYPE_CHECKING:
    from autoprune.graph import ChannelGraph

LAUNCH_FILES = "autoprune.cluster"


def inspect(args: Namespace) -> None:
    """Print a model's groups, what holds channels back, and how far it can be pruned."""
    from autoprune.allocate import smallest
    from autoprune.cost import cost
    from autoprune.keep import Keep
    from autoprune.trace import trace

    model, example = model_by_name(args)
    graph = trace(model, example)
    dense = cost(graph, Keep.all())
    floor = smallest(graph).ratios(dense)
    rows = [_group_row(graph, group.id) for group in graph.prunable]
    frozen = [{"group": g.id, "channels": g.size, "why": g.frozen} for g in graph.groups if g.frozen is not None]
    if args.json:
        totals = {"dense": dataclasses.asdict(dense), "smallest": floor}
        print_json({"model": args.model, **totals, "groups": rows, "frozen": frozen})
        return
    print(f"{args.model}: {dense.flops:,} FLOPs (1 multiply-add = 2), {dense.params:,} parameters")
    show(
        [_as_text(row) for row in rows],
        title="groups of coupled channels; cutting a group to one channel saves the shares",
    )
    show(frozen, title="frozen")
    print(f"smallest reachable: {floor['flops']:.1%} of the FLOPs, {floor['params']:.1%} of the parameters")


def methods(args: Namespace) -> None:
    """Print every method with its hyper-parameters."""
    from autoprune import methods as registry

    rows = [_method_row(name) for name in registry.names()]
    if args.json:
        print_json(rows)
        return
    flat = [
        {
            "method": row["name"],
            "ranks channels by": row["summary"],
            "hyper-parameters": _ranges(row),
            "source": row["source"],
        }
        for row in rows
    ]
    show(flat)


def spaces(args: Namespace) -> None:
    """Print the ready search spaces."""
    from autoprune import space as files

    rows = [_space_row(name, files.load_space(name)) for name in files.names()]
    if args.json:
        print_json(rows)
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
    shares = {
        f"% of {name}": f"{100 * row[key]:5.1f}" for name, key in (("FLOPs", "flops_share"), ("params", "params_share"))
    }
    return {
        "group": row["group"],
        "stage": row["stage"],
        "channels": row["channels"],
        **shares,
        "layers": len(row["layers"]),
    }


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
