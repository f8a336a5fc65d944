"""methods, spaces: the lists of what comes with autoprune."""

from __future__ import annotations

import dataclasses
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from autoprune.cli.view import print_json, show

#: Columns of a terminal that the list of methods fits.
WIDTH = 80


def methods(args: Namespace) -> None:
    """Print every method with its hyper-parameters."""
    from autoprune import methods as registry

    rows = [_method_row(name) for name in registry.names()]
    if args.json:
        print_json(rows)
        return
    for row in rows:
        needs = f"; needs {row['least_steps']:,} steps a trial" if row["least_steps"] > 1 else ""
        print(_two_paragraphs(f"{row['name']}: {row['summary']}", f"{row['source']}{needs}"))
        show([_parameter_row(name, limits) for name, limits in row["params"].items()])
        if not row["params"]:
            print()


def spaces(args: Namespace) -> None:
    """Print the ready search spaces."""
    from autoprune import methods as registry
    from autoprune.study import space_file

    rows = [_space_row(name, space_file.load_space(name, find_method=registry.find)) for name in space_file.names()]
    if args.json:
        print_json(rows)
    else:
        show(rows)


def _method_row(name: str) -> dict[str, Any]:
    from autoprune.methods import METHODS
    from autoprune.study.declared_ranges import declared

    kind = METHODS[name]
    searched = declared(kind)
    fields = {
        field.name: {"default": _default_value(field), **field.metadata, "search": searched[field.name]}
        for field in dataclasses.fields(kind)
    }
    facts = {"name": name, "summary": kind.summary, "source": kind.source, "least_steps": kind.least_steps}
    return {**facts, "params": fields}


def _default_value(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _two_paragraphs(head: str, source: str) -> str:
    """Two paragraphs, the second one indented."""
    indent = "    "
    below = textwrap.fill(source, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{textwrap.fill(head, WIDTH, subsequent_indent=indent)}\n{below}"


def _parameter_row(name: str, limits: Mapping[str, Any]) -> dict[str, str]:
    default = limits["default"]
    return {
        "hyper-parameter": name,
        "default": f"{default:g}" if isinstance(default, (int, float)) else str(default),
        "allowed": _allowed_values(limits),
        "searched by `range`": _searched_range(limits["search"]),
    }


def _allowed_values(limits: Mapping[str, Any]) -> str:
    if "choices" in limits:
        return ", ".join(limits["choices"])
    if "low" not in limits:
        return "anything"
    bracket = "(" if limits["open_low"] else "["
    return f"{bracket}{limits['low']:g}, {limits['high']:g}]"


def _searched_range(parameter: Mapping[str, Any] | None) -> str:
    """The parameter that `range` stands for, briefly; empty if there is none."""
    if parameter is None:
        return ""
    if "choice" in parameter:
        return "all"
    kind = "int" if "int" in parameter else "float"
    low, high = parameter[kind]
    return f"{kind} [{low:g}, {high:g}]{', log' if parameter['log'] else ''}"


def _space_row(name: str, config: Any) -> dict[str, Any]:
    data, model = config.task["data"], config.task["model"]
    limits = _counted(config.budget.trials, "trials"), _counted(config.budget.minutes, "min")
    return {
        "space": name,
        "data": data.get("name") or data.get("function") or "",
        "model": model.get("name") or model.get("factory") or "",
        "methods": " ".join(config.space.methods()),
        "budget": ", ".join(part for part in limits if part),
    }


def _counted(number: float | None, noun: str) -> str:
    return "" if number is None else f"{number:g} {noun}"
