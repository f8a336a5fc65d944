"""methods, spaces, cluster: what there is."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from autoprune.errors import check_name
from autoprune.view import print_json, show

LAUNCH_FILES = "autoprune.cluster"


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
