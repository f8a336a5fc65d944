"""inspect: groups of coupled channels and their worth, frozen ones and the reason, the smallest ratio in reach."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from autoprune.cli.common import model_by_name
from autoprune.cli.view import PIPE_WIDTH, print_json

if TYPE_CHECKING:
    from autoprune.engine.graph import ChannelGraph, Group


Row = Mapping[str, Any]

#: Columns that names of coupled layers get at least.
LEAST = 12


def inspect(args: Namespace) -> None:
    """Print a model's groups, what holds channels back, and how far it can be pruned; `StudyError` if not at all."""
    from autoprune.engine.allocation.allocate import check_prunable
    from autoprune.engine.tracing.trace import trace

    model, example = model_by_name(args)
    graph = trace(model, example)
    found = {"model": args.model, "input": [1, *args.input], **graph_facts(graph)}
    if args.json:
        print_json(found)
    else:
        width = shutil.get_terminal_size((PIPE_WIDTH, 0)).columns
        print("\n".join(page_lines(found, width, full=args.layers)))
    check_prunable(graph)


def graph_facts(graph: ChannelGraph) -> dict[str, Any]:
    """A graph in plain data; shares are of the dense model's FLOPs and parameters."""
    from autoprune.engine.allocation.allocate import held_up_by, smallest
    from autoprune.engine.cost import cost
    from autoprune.engine.keep import Keep

    dense, spent = cost(graph, Keep.all()), _flops_shares(graph)
    frozen = [group for group in graph.groups if group.frozen is not None]
    held = [_group_facts(graph, group) | {"flops_share": spent[group.id], "why": group.frozen} for group in frozen]
    return {
        "dense": dataclasses.asdict(dense),
        "smallest": smallest(graph).ratios(dense),
        "held_up_by": held_up_by(graph),
        "groups": [_group_facts(graph, group) | _savable_shares(graph, group) for group in graph.prunable],
        "frozen": held,
    }


def _group_facts(graph: ChannelGraph, group: Group) -> dict[str, Any]:
    from autoprune.engine.allocation.widths import channels_per_unit

    at_once = channels_per_unit(graph)[group.id]
    sizes = {"units": group.size, "channels_per_unit": at_once, "channels": group.size * at_once}
    return {"group": group.id, "stage": group.stage, **sizes, "layers": list(group.layers)}


def _savable_shares(graph: ChannelGraph, group: Group) -> dict[str, float]:
    """The worth of a prunable group: the share of the cost that is saved if all but one unit go."""
    from autoprune.engine.cost import cost
    from autoprune.engine.keep import Keep

    ratios = cost(graph, Keep.of({group.id: [0]})).ratios(cost(graph, Keep.all()))
    return {f"{name}_share": 1 - ratios[name] for name in ("flops", "params")}


def _flops_shares(graph: ChannelGraph) -> dict[str, float]:
    """Group -> the share of the FLOPs that convolutions and linear layers spend on making or reading its channels.

    In a layer that is 1 - (1 - a)(1 - b), where a of its filters and b of its inputs are the group's.
    """
    import numpy as np

    from autoprune.engine.cost import flops_by_layer
    from autoprune.engine.keep import Keep

    owner = graph.per_unit(len(graph.groups), ((group.units, i) for i, group in enumerate(graph.groups)))
    others: dict[str, Any] = {}
    for slot in graph.slots:
        if slot.role in ("out", "in"):
            own = np.bincount(owner[slot.units], minlength=len(graph.groups) + 1) / len(slot.units)
            others[slot.layer] = others.get(slot.layer, 1.0) * (1 - own)
    flops = flops_by_layer(graph, Keep.all())
    spent = sum((flops.get(layer, 0) * (1 - share) for layer, share in others.items()), np.zeros(len(graph.groups) + 1))
    return {group.id: float(spent[i] / (sum(flops.values()) or 1)) for i, group in enumerate(graph.groups)}


def page_lines(found: Mapping[str, Any], width: int, *, full: bool) -> Iterator[str]:
    """The lines to print, for a terminal of `width` columns; with `full`, all coupled layers under each group."""
    dense, least = found["dense"], found["smallest"]
    size = "x".join(map(str, found["input"][1:]))
    counts = f"{dense['flops']:,} FLOPs (1 multiply-add = 2), {dense['params']:,} parameters"
    yield from textwrap.wrap(f"{found['model']} at {size}: {counts}", width)
    for rows, title in ((found["groups"], ()), (found["frozen"], ("frozen, cannot be pruned:",))):
        if rows:
            yield from ("", *title)
            yield from _table_lines(rows, width, full=full)
    left = ", ".join(f"{name} ({share:.0%})" for name, share in found["held_up_by"].items())
    said = f"smallest reachable: {least['flops']:.1%} of the FLOPs, {least['params']:.1%} of the parameters"
    yield from ("", *textwrap.wrap(f"{said}; most of those FLOPs are in {left}", width))


def _table_lines(rows: Sequence[Row], width: int, *, full: bool) -> Iterator[str]:
    """Numbers in columns; the rest of the line names the coupled layers, or the reason."""
    cells = [_cell_texts(row) for row in rows]
    if all(row["channels_per_unit"] == 1 for row in rows):
        cells = [{name: text for name, text in row.items() if name != "at once"} for row in cells]
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in cells[0]}
    numbers = sum(widths.values()) + 2 * len(widths) - widths["group"]
    heading, least = ("why", 0) if "why" in rows[0] else ("coupled with", LEAST)
    widths["group"] = min(widths["group"], max(width - numbers - least, len("group")))
    room = max(width - numbers - widths["group"], least)
    yield (_join_cells({name: name for name in widths}, widths) + heading[:room]).rstrip()
    for row, own in zip(rows, cells, strict=True):
        if len(row["group"]) > widths["group"]:  # an id is what recipes name: it gets a line rather than being cut
            yield row["group"]
            own["group"] = ""
        reason = row.get("why", "")
        rest = (reason if len(reason) <= room else "") + fit_names(_coupled_layers(row), room)
        yield (_join_cells(own, widths) + rest).rstrip()
        yield from _wrap_indented(reason, width) if len(reason) > room else ()
        yield from _wrap_indented(", ".join(row["layers"]), width) if full else ()


def _wrap_indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")


def _cell_texts(row: Row) -> dict[str, str]:
    cells = {
        "group": row["group"],
        "stage": str(row["stage"]),
        "channels": f"{row['channels']:,}",
        "at once": str(row["channels_per_unit"]),
        "FLOPs": f"{row['flops_share']:.1%}",
    }
    return cells | ({"params": f"{row['params_share']:.1%}"} if "params_share" in row else {})


def _join_cells(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    texts = [
        cells[name].ljust(width) if name == "group" else cells[name].rjust(width) for name, width in widths.items()
    ]
    return "".join(f"{text}  " for text in texts)


def _coupled_layers(row: Row) -> list[str]:
    """The other layers: `.bn1` is beside the one that names the group, `…1.conv1` begins like it."""
    if "why" in row:
        return []
    own = row["group"].partition("#")[0]
    return [_relative_name(layer, own.split(".")[:-1]) for layer in row["layers"] if layer != own]


def _relative_name(layer: str, parent: Sequence[str]) -> str:
    parts = layer.split(".")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, parent, strict=False)))
    mark = "" if shared == 0 else "." if shared == len(parent) else "…"
    return mark + ".".join(parts[shared:])


def fit_names(names: Sequence[str], room: int) -> str:
    """As many names as there is room for, and how many more there are; the first is cut if need be, at its start."""
    for count in range(len(names), 0, -1):
        left = len(names) - count
        text = " ".join([*names[:count], *([f"+{left}"] if left else [])])
        if len(text) <= room:
            return text
    if not names:
        return ""
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return f"…{names[0][len(more) + 1 - room :]}{more}"
