"""Rows of the zoo benchmark as a Markdown table, and as a summary for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from autoprune.analysis.benchmarks.markdown import table_head, table_row
from autoprune.analysis.benchmarks.zoo_case import TOLERANCE, steps_of
from autoprune.analysis.benchmarks.zoo_models import BATCH

Row = dict[str, Any]
#: The share of FLOPs that a model should lose when half of every group goes.
LOSS = 0.4

#: The reason of groups that are a model's outputs.
OUTPUT = "reaches the model's output"

#: What the table shows for a check that failed; the reason stands below the table.
RAN = "**no**"

#: The share of FLOPs in layers with frozen channels from which on the table says why these are frozen.
FROZEN = 0.05

_SHARED = (
    "params, M", "GFLOPs", "FLOPs lost", "cannot shrink", "groups", "frozen", "trace, s", "cut, s", "masked - cut",
    "cost = torch's count", "backward", "sizes true", "again", "artefact",
)  # fmt: skip
COLUMNS = ("model", "pixels", *_SHARED, "ONNX - cut")
WILD_COLUMNS = ("model", "package", "input", *_SHARED, "target 0.5", "torch.export", "ONNX")


def lost(row: Row) -> float:
    """Share of the dense FLOPs that is gone; 0 if the model was not traced."""
    return float(row["checks"].get("trace", {}).get("lost", 0.0))


def passes(row: Row) -> bool:
    """Every check ran and passed."""
    return bool(row["checks"]) and all(found["ok"] for found in row["checks"].values())


def failures(row: Row) -> Iterator[str]:
    """`check: reason [where]` of every check that failed by itself, not for want of an earlier one."""
    for name, found in row["checks"].items():
        if not found["ok"] and not found.get("skipped"):
            yield f"{name}: {found['reason']}" + (f" [{found['where']}]" if found.get("where") else "")


def held_up(row: Row) -> list[str]:
    """Reasons of frozen groups with the share of the FLOPs in the layers they touch, the largest first."""
    return [f"{reason} ({share:.0%})" for reason, share in _reasons_of(row)]


def frozen_early(row: Row) -> list[str]:
    """The same without the outputs, which have to stay, and without what holds up next to nothing."""
    found = [(reason, share) for reason, share in _reasons_of(row) if share > FROZEN and reason != OUTPUT]
    return [f"{reason} ({share:.0%})" for reason, share in found]


def _reasons_of(row: Row) -> list[tuple[str, float]]:
    return [(reason, share) for reason, share in row["checks"].get("trace", {}).get("reasons", [])]


def line(row: Row) -> str:
    """One model on one line."""
    why = list(failures(row)) or ["passes"]
    if lost(row) < LOSS and held_up(row):
        why += ["frozen: " + "; ".join(held_up(row))]
    return f"{row['model']}: loses {lost(row):.1%}, {row.get('seconds', 0):.0f} s; {'; '.join(why)}"


def tally(rows: Sequence[Row]) -> Iterator[str]:
    """How many models pass each check that was run, all of them, and lose enough FLOPs."""
    for step in steps_of(rows[0]["library"]) if rows else ():
        ran = [row["checks"][step.name]["ok"] for row in rows if step.name in row["checks"]]
        if ran:
            yield f"{step.name}: {sum(ran)} of {len(rows)}"
    yield f"every check: {sum(passes(row) for row in rows)} of {len(rows)}"
    yield f"lose at least {LOSS:.0%} of their FLOPs: {sum(lost(row) >= LOSS for row in rows)} of {len(rows)}"


def summary(rows: Sequence[Row]) -> str:
    """Every model that fails or loses little, then the tally."""
    return "\n".join([*(line(row) for row in rows if not passes(row) or lost(row) < LOSS), *tally(rows)])


# ---- Markdown --------------------------------------------------------------------------------------------------------


def table(library: str, listed: Sequence[str], measured: Mapping[str, Row]) -> str:
    """The result as Markdown: conditions, the tally, a line per model, and the reasons of all that is missing."""
    rows = [measured[name] for name in listed if name in measured]
    missing = [name for name in listed if name not in measured]
    parts = [
        f"`python -m autoprune.analysis.benchmarks.zoo {library}`",
        _conditions_part(rows),
        "\n".join(f"- {said}" for said in tally(rows)),
        _result_grid(library, rows),
        _reasons_part("Failed", [(row, list(failures(row))) for row in rows if not passes(row)]),
        f"Listed but not measured: {', '.join(missing)}" if missing else "",
        _reasons_part(f"Lose less than {LOSS:.0%}", [(row, held_up(row)) for row in rows if lost(row) < LOSS]),
        _wild_parts(rows) if library == "wild" else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions_part(rows: Sequence[Row]) -> str:
    machines = "; ".join(sorted({f"{row['machine']}, {row['versions']}" for row in rows}))
    limits = "; ".join(sorted({f"{r['limits']['total']} s and {r['limits']['memory']} GiB a model" for r in rows}))
    return (
        f"{machines}; at most {limits}.\n"
        f"Random weights and statistics, batch {BATCH}, float32, one process a model. A random half of the channels of "
        "every prunable group goes. `masked - cut`: largest difference of the outputs over the largest output, at most "
        f"{TOLERANCE:g}; `cannot shrink`: share of the FLOPs in operations of which no dimension can be cut; `cost = "
        "torch's count`: FLOPs and parameters equal FlopCounterMode's and the tensors', for the half and for a random "
        "share of every group; `again`: the cut model is traced and pruned once more. FLOPs are per image."
    )


def _wild_parts(rows: Sequence[Row]) -> str:
    """Why channels before the output are frozen, and which dense models do not export either."""
    inherent = [
        (row, [f"{name}: {found['not_dense']}" for name, found in row["checks"].items() if "not_dense" in found])
        for row in rows
    ]
    frozen = [(row, frozen_early(row)) for row in rows]
    parts = (
        _reasons_part(f"Frozen before the output, in layers with more than {FROZEN:.0%} of the FLOPs", frozen),
        _reasons_part("The dense model does not export either", inherent),
    )
    return "\n\n".join(part for part in parts if part)


def _result_grid(library: str, rows: Sequence[Row]) -> str:
    wild = library == "wild"
    head = table_head(WILD_COLUMNS, (0, 1, 2)) if wild else table_head(COLUMNS)
    return "\n".join([*head, *(table_row(_wild_cells(row) if wild else _row_cells(row)) for row in rows)])


def _row_cells(row: Row) -> Iterator[str]:
    yield row["model"]
    yield str(row["size"])
    yield from _shared_cells(row)
    yield _check_cell(row, "onnx", lambda found: f"{found['relative_error']['onnx']:.0e}")


def _wild_cells(row: Row) -> Iterator[str]:
    yield row["model"]
    yield f"{row['family']} {row['version']}"
    yield str(row["size"])
    yield from _shared_cells(row)
    yield _check_cell(row, "target", lambda found: f"{found['ratio']:.3f}")
    for name in ("program", "onnx"):
        yield _check_cell(row, name, lambda found: f"{found['error']:.0e}" if "error" in found else "nor the dense one")


def _shared_cells(row: Row) -> Iterator[str]:
    yield _check_cell(row, "build", lambda found: f"{found['params'] / 1e6:.1f}")
    yield from (
        _check_cell(row, "trace", show)
        for show in (
            lambda found: f"{found['flops'] / BATCH / 1e9:.2f}",
            lambda found: f"{found['lost']:.1%}",
            lambda found: f"{found['rigid']:.1%}",
            lambda found: str(found["groups"]),
            lambda found: str(found["frozen"]),
            lambda found: f"{found['trace_seconds']:.2f}",
        )
    )
    yield _check_cell(row, "cut", lambda found: f"{found['cut_seconds']:.2f}")
    yield _check_cell(row, "equal", _difference_text)
    yield _check_cell(row, "cost", lambda _: "yes")
    yield _check_cell(row, "backward", lambda found: found["mode"])
    yield from (_check_cell(row, name, lambda _: "yes") for name in ("attributes", "again", "artefact"))


def _check_cell(row: Row, name: str, show: Any) -> str:
    found = row["checks"].get(name)
    if found is None:
        return "not run"
    return str(show(found)) if found["ok"] else RAN


def _difference_text(found: Row) -> str:
    single = f"{found['difference']:.0e}"
    return f"{single}; float64 {found['difference64']:.0e}" if "difference64" in found else single


def _reasons_part(title: str, found: Iterable[tuple[Row, list[str]]]) -> str:
    lines = [f"- {row['model']}: {'; '.join(why).replace('|', '/')}" for row, why in found if why]
    return "\n".join([f"{title}:", "", *lines]) if lines else ""
