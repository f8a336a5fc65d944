"""The layout holds: imports run one way down a list, torch-free modules get by without torch, functions are short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module may import only from above itself; modules on one line may not import each other. A folder is one entry.
ORDER = (
    "errors",
    "reading",
    "recipe",
    "space search_spaces cluster",
    "graph",
    "keep",
    "cost shrink",
    "shape",
    "allocate",
    "pareto",
    "results store",
    "finalists",
    "analysis card",
    "labels",
    "meta copying",
    "flow",
    "rules",
    "surgery decompose",
    "masking",
    "attributes",
    "grouping",
    "scales",
    "labelled",
    "trace",
    "artifact",
    "midway",
    "norm",
    "train",
    "latency",
    "methods",
    "sensitivity",
    "tasks",
    "trial",
    "export",
    "search",
    "view",
    "commands",
    "cli",
    "benchmarks claims",
    "__init__",
    "__main__",
)
TORCH_FREE = (
    "errors",
    "reading",
    "recipe",
    "space",
    "graph",
    "keep",
    "cost",
    "shrink",
    "shape",
    "allocate",
    "pareto",
    "results",
    "store",
    "finalists",
    "card",
)
HEAVY = ("torch", "torchvision", "ray", "optuna", "timm", "onnx", "onnxruntime")
MAPPED = ("analysis", "cluster", "search_spaces")
LONGEST_FUNCTION = 60

PLACE = {name: place for place, line in enumerate(ORDER) for name in line.split()}


def modules() -> Iterator[tuple[str, Path]]:
    """(name inside the package, file) of every module, the mapped folders included."""
    for file in sorted((ROOT / "autoprune").rglob("*.py")):
        yield ".".join(file.relative_to(ROOT / "autoprune").with_suffix("").parts), file
    for folder in MAPPED:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield ".".join(file.relative_to(ROOT).with_suffix("").parts), file


def imports(file: Path, *, deferred: bool) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of what a file imports at run time; with `deferred`, inside functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in _statements(tree, deferred=deferred):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            # `from autoprune import trace` imports a module, `from autoprune.trace import trace` a name of one.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _statements(node: ast.AST, *, deferred: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not deferred and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield child
        yield from _statements(child, deferred=deferred)


def entry(name: str) -> str:
    """The entry of ORDER that a module of the package belongs to: `methods.base` -> `methods`."""
    # Benchmarks and claims run what the rest of analysis only reads about.
    return name.removeprefix("analysis." if name in MEASURING else "").split(".", 1)[0]


ALL = dict(modules())
MEASURING = {name for name in ALL if name.startswith(("analysis.benchmarks", "analysis.claims"))}


def test_every_module_has_its_place() -> None:
    unknown = {entry(name) for name in ALL} - set(PLACE)

    assert unknown == set()


@pytest.mark.parametrize("name", ALL)
def test_imports_run_down_the_list(name: str) -> None:
    own = entry(name)
    wrong = []
    for imported, line in imports(ALL[name], deferred=True):
        if not imported.startswith("autoprune."):
            continue
        other = entry(imported.removeprefix("autoprune."))
        # `from autoprune import Target` in a folder that is not the package itself would go through __init__.
        place = PLACE.get(other, PLACE["__init__"])
        if other != own and place >= PLACE[own]:
            wrong.append(f"{ALL[name].relative_to(ROOT)}:{line} imports {imported} from below")

    assert wrong == []


@pytest.mark.parametrize("name", ALL)
def test_the_folders_at_the_top_are_only_known_by_their_full_name(name: str) -> None:
    bare = [imported for imported, _ in imports(ALL[name], deferred=True) if imported.split(".")[0] in MAPPED]

    assert bare == []


@pytest.mark.parametrize(
    "name", [name for name in ALL if entry(name) in (*TORCH_FREE, "analysis") and name not in MEASURING]
)
def test_torch_free_modules_name_nothing_heavy(name: str) -> None:
    heavy = [imported for imported, _ in imports(ALL[name], deferred=True) if imported.split(".")[0] in HEAVY]

    assert heavy == []


@pytest.mark.parametrize("name", [name for name in ALL if entry(name) == "analysis"])
def test_nothing_in_analysis_imports_ray(name: str) -> None:
    assert [i for i, _ in imports(ALL[name], deferred=True) if i.split(".")[0] == "ray"] == []


@pytest.mark.parametrize("name", [*TORCH_FREE, "cli", "commands.studies", "commands.lookup", "analysis.report"])
def test_light_modules_load_nothing_heavy(name: str) -> None:
    loaded = modules_after(f"import autoprune.{name}")

    assert loaded.isdisjoint(HEAVY), loaded.intersection(HEAVY)


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules of a new process after it ran `code`."""
    show = "import sys; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.mark.parametrize("name", ALL)
def test_functions_are_short(name: str) -> None:
    tree = ast.parse(ALL[name].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = {
        node.name: lines for node in functions if (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }

    assert long == {}


@pytest.mark.parametrize("name", ALL)
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(ast.parse(ALL[name].read_text(encoding="utf-8")))


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import torch\ndef f():\n    from autoprune import cli\nif TYPE_CHECKING:\n    import ray\n")

    at_once = [name for name, _ in imports(file, deferred=False)]
    at_any_time = [name for name, _ in imports(file, deferred=True)]

    assert at_once == ["torch"]
    assert at_any_time == ["torch", "autoprune.cli"]
