"""What the engine finds in the models of the zoo under one version of torch, and what differs between versions.

    python -m autoprune.analysis.benchmarks.torch_versions measure FILE.jsonl [--models GLOB ...]
    python -m autoprune.analysis.benchmarks.torch_versions compare FILE.jsonl FILE.jsonl ... [--table FILE.md]

`measure` runs once in an environment for each version; `compare` then needs no particular one. Operations have other
names, tags and decompositions from version to version: a rule that does not know one freezes the channels that reach
it, so that the same model could be pruned less under one torch than under another.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from autoprune.analysis.benchmarks.markdown import table_head, table_row
from autoprune.analysis.benchmarks.zoo_checks import half, reach
from autoprune.analysis.benchmarks.zoo_models import LIBRARIES, Entry, entries, select
from autoprune.engine.tracing.trace import trace
from autoprune.errors import first_line

Row = dict[str, Any]

#: What has to be the same under every version.
NUMBERS = ("flops", "groups", "frozen", "rigid", "lost", "smallest")


def measure(entry: Entry) -> Row:
    """What is frozen in a model, and what half of every group costs less; where it fails, the error."""
    row: Row = {"model": f"{entry.library}/{entry.name}", "torch": torch.__version__.partition("+")[0]}
    try:
        graph = trace(entry.build().eval(), entry.inputs())
        return row | reach(graph, half(graph, seed=0))
    except Exception as error:  # noqa: BLE001 - a model that this version's libraries cannot build is a row, too
        return row | {"error": f"{type(error).__name__}: {first_line(error, 120)}"}


def differences(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Model -> torch -> what was found, for the models that are not the same under all versions.

    A model that some version's libraries cannot build is compared among the others.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["model"], {})[row["torch"]] = row
    return {
        model: {name: describe(row) for name, row in by_torch.items() if "error" not in row}
        for model, by_torch in found.items()
        if len({_numbers(row) for row in by_torch.values() if "error" not in row}) > 1
    }


def _numbers(row: Row) -> str:
    return " ".join(f"{name} {row[name]:.6g}" for name in NUMBERS)


def describe(row: Row) -> str:
    """What has to be the same, and reasons, in a line."""
    reasons = "; ".join(f"{reason} {share:.1%}" for reason, share in row["reasons"])
    return _numbers(row) + (f" ({reasons})" if reasons else "")


def table(rows: Sequence[Row]) -> str:
    """The Markdown page: a line for every version, and one for every model that differs."""
    versions = sorted({row["torch"] for row in rows}, key=lambda text: [int(part) for part in text.split(".")])
    columns = ["torch", "models", "not built", "groups", "frozen", "FLOPs out of reach, mean", "lost at half, mean"]
    lines = [_summary(name, [row for row in rows if row["torch"] == name]) for name in versions]
    differing = [f"- {model}: {_by_version(found)}" for model, found in sorted(differences(rows).items())]
    verdict = "These models differ:" if differing else f"No model differs in any of: {', '.join(NUMBERS)}."
    return "\n".join([_HEAD, *table_head(columns), *lines, "", verdict, *differing, ""])


_HEAD = """# The same models under every torch

Models of torchvision and timm, traced and cut to half the channels of every group. *Not built*: these libraries cannot
make the model with that torch. Written by `python -m autoprune.analysis.benchmarks.torch_versions`.
"""


def _summary(name: str, rows: Sequence[Row]) -> str:
    good = [row for row in rows if "error" not in row]
    count = max(1, len(good))
    rigid, lost = (sum(row[key] for row in good) / count for key in ("rigid", "lost"))
    totals = [sum(row[key] for row in good) for key in ("groups", "frozen")]
    return table_row([name, len(good), len(rows) - len(good), *totals, f"{rigid:.4f}", f"{lost:.4f}"])


def _by_version(found: dict[str, str]) -> str:
    return "; ".join(f"torch {name}: {text}" for name, text in sorted(found.items()))


def _read(files: Sequence[Path]) -> list[Row]:
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Measure under the torch of this environment, or compare what was measured."""
    options = _parse_options()
    if options.command == "compare":
        page = table(_read(options.files))
        print(page)
        if options.table is not None:
            options.table.write_text(page, encoding="utf-8")
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # What R-CNNs cost depends on the boxes that they find, and these on the last bit of every kernel.
    chosen = [e for name in LIBRARIES for e in entries(name) if not e.big and "rcnn" not in e.name]
    with options.file.open("w", encoding="utf-8") as file:
        for entry in select(chosen, options.models):
            row = measure(entry)
            print(row["torch"], row["model"], row.get("error") or describe(row), flush=True)
            file.write(json.dumps(row) + "\n")
            file.flush()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measured = commands.add_parser("measure")
    measured.add_argument("file", type=Path, help="where the rows go, JSON lines")
    measured.add_argument("--models", nargs="+", default=[], metavar="GLOB", help="only models of these names")
    compared = commands.add_parser("compare")
    compared.add_argument("files", type=Path, nargs="+")
    compared.add_argument("--table", type=Path, help="write the Markdown page here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
