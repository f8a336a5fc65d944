"""Every method of the registry: what it does, its source, its hyper-parameters, a figure where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprune.analysis.reference.docstrings import cell, introduction, markdown
from autoprune.analysis.reference.fields import Row, rows
from autoprune.methods import METHODS, Method
from autoprune.study.declared_ranges import declared

#: Our own: a test or a package may have added others.
OWN = {name: kind for name, kind in METHODS.items() if kind.__module__.startswith("autoprune.")}

#: Where figures lie, and how a page in `docs/` names that place.
FIGURES, LINK = Path(__file__).parents[1] / "claims", "../analysis/claims"


def text() -> str:
    """An overview, then a section for each method, in Markdown."""
    columns = "| method | what it does | stage before the cut | steps it needs |"
    head = ["## All methods", "", columns, "|---|---|---|---|"]
    overview = [
        f"| [`{name}`](#{name}) | {cell(kind.summary)} | {_stage_text(kind)} | {_needs_text(kind)} |"
        for name, kind in OWN.items()
    ]
    return "\n".join([*head, *overview, "", *(line for kind in OWN.values() for line in _section(kind))])


def unexplained() -> list[str]:
    """Hyper-parameters whose meaning no docstring gives."""
    return [f"{name}.{row.names[0]}" for name, kind in OWN.items() for row in rows(kind) if not row.meaning]


def _stage_text(kind: type[Method]) -> str:
    """The share of the training images that is spent before cuts, by the defaults."""
    shares = kind().stage_shares
    cuts = "" if len(shares) == 1 else f", {len(shares)} cuts"
    return f"{sum(shares):.0%}{cuts}" if any(shares) else f"none{cuts}"


def _needs_text(kind: type[Method]) -> str:
    return f"{kind.least_steps:,}" if kind.least_steps > 1 else ""


def _section(kind: type[Method]) -> Iterator[str]:
    yield from (f"## `{kind.name}`", "", f"*{markdown(kind.source)}.*", "", markdown(introduction(kind)), "")
    if table := [_line(row, declared(kind)) for row in rows(kind)]:
        yield from ("| hyper-parameter | default | allowed | searched by `range` | meaning |", "|---|---|---|---|---|")
        yield from (*table, "")
    if figure := figure_of(kind):
        yield from (f"![What was measured of {kind.name}]({LINK}/{figure})", "")


def figure_of(kind: type[Method]) -> str | None:
    """The figure of the module that a method is in, which shows all methods of that module."""
    name = f"{kind.__module__.rpartition('.')[2]}.svg"
    return name if (FIGURES / name).is_file() else None


def _line(row: Row, searched: dict[str, dict[str, Any] | None]) -> str:
    names = ", ".join(f"`{name}`" for name in row.names)
    ranges = _range_text(searched[row.names[0]])
    return f"| {names} | {row.default} | {cell(row.allowed)} | {ranges} | {cell(row.meaning)} |"


def _range_text(parameter: dict[str, Any] | None) -> str:
    """What `range` stands for in a space file; empty where the method declares none."""
    if parameter is None:
        return ""
    if "choice" in parameter:
        return "all"
    low, high = next(parameter[kind] for kind in ("int", "float") if kind in parameter)
    return f"[{low:g}, {high:g}]{', log' if parameter['log'] else ''}"
