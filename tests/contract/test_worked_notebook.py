"""The notebook of the pages: every cell runs, in order, in an interpreter of its own, and the last one holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "worked-example.ipynb"

#: Runs the cells as a notebook does: one after the other in one module, whose last expressions are shown.
RUNNER = """
import ast, json, sys
names = {"__name__": "__main__"}
for source in json.load(open(sys.argv[1])):
    *body, last = ast.parse(source).body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module(body if shown else [*body, last], []), "cell", "exec"), names)
    if shown:
        print(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), names)))
"""


def cells() -> list[str]:
    """The code of the notebook."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs() -> None:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]

    assert [cell["id"] for cell in found if cell.get("outputs") or cell.get("execution_count")] == []
    assert len(cells()) >= 5


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text(json.dumps(cells()))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, "cells.json"],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "<study 'runs/notebook': 8 trials" in done.stdout
    assert "flops_ratio" in done.stdout
    assert "'int8'" in done.stdout
    assert (tmp_path / "exported" / "README.md").is_file()
