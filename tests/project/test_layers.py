"""The layout holds: imports run one way down a list, torch-free modules get by without torch, functions are short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A folder may import only from the rows above its own. The files in a folder's root belong to the folder itself; what
# lies at the root of the package has a row of its own.
ORDER = (
    "errors",
    "files schema",
    "recipe",
    "engine analysis cluster search_spaces",
    "engine/allocation engine/labels",
    "engine/rules engine/surgery",
    "engine/tracing study",
    "training analysis/report",
    "methods/base tasks",
    "methods tasks/detection tasks/own tasks/segmentation",
    "tasks/ultralytics",
    "timing",
    "trial",
    "export search/proposing testing",
    "search/running search/tracking",
    "search/on_ray",
    "search",
    "cli",
    "analysis/benchmarks",
    "analysis/claims",
    "analysis/reference",
    "rules __init__ __main__",
)
#: No torch, no Ray, no Optuna: neither named nor loaded by what they import.
TORCH_FREE = ("errors", "files", "schema", "recipe", "engine", "engine/allocation", "study")
HEAVY = ("torch", "torchvision", "ray", "optuna", "timm", "onnx", "onnxruntime")
MAPPED = ("analysis", "cluster", "search_spaces")
LONGEST_FUNCTION = 60
LONGEST_FILE = 450
TESTS = ROOT / "tests"
#: Folders of tests whose subject is more than a module: contracts of plug-ins, laws of the engine, the project itself.
WHOLE = ("contract", "laws", "project")

PLACE = {name: place for place, row in enumerate(ORDER) for name in row.split()}


def modules() -> Iterator[tuple[str, Path]]:
    """(name inside the package, file) of every module, the mapped folders included."""
    for file in sorted((ROOT / "autoprune").rglob("*.py")):
        yield ".".join(file.relative_to(ROOT / "autoprune").with_suffix("").parts), file
    for folder in MAPPED:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield ".".join(file.relative_to(ROOT).with_suffix("").parts), file


def imports(file: Path, *, deferred: bool) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of what a file imports, for types only too; with `deferred`, inside functions as well."""
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
        if not deferred and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield child
        yield from _statements(child, deferred=deferred)


def entry(name: str) -> str:
    """The entry of ORDER that a module belongs to: its folder, `search.on_ray.worker` -> `search/on_ray`."""
    parts = name.split(".")
    if name in FOLDERS:
        return "/".join(parts)
    return "/".join(parts[:-1]) or name


ALL = dict(modules())
#: Packages, by the name that imports them.
FOLDERS = {name.removesuffix(".__init__") for name in ALL if name.endswith(".__init__")}
LIGHT = [name for name in ALL if entry(name) in TORCH_FREE]
REPORT = [name for name in ALL if entry(name) == "analysis/report"]


def home(imported: str) -> str:
    """The module of the package that `autoprune.x.y.name` means: the longest part of it that is one."""
    parts = imported.split(".")[1:]
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in ALL or name in FOLDERS:
            return name
    return "__init__"


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
        other = entry(home(imported))
        if other != own and PLACE[other] >= PLACE[own]:
            wrong.append(f"{ALL[name].relative_to(ROOT)}:{line} imports {imported} from below")

    assert wrong == []


def test_no_file_is_in_a_circle() -> None:
    arrows = {
        name: {home(i) for i, _ in imports(ALL[name], deferred=True) if i.startswith("autoprune.")} for name in ALL
    }
    arrows = {
        name: {f"{t}.__init__" if t in FOLDERS else t for t in targets} - {name} for name, targets in arrows.items()
    }
    graph = TopologicalSorter({name: targets & set(arrows) for name, targets in arrows.items()})

    graph.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", ALL)
def test_the_folders_at_the_top_are_only_known_by_their_full_name(name: str) -> None:
    bare = [imported for imported, _ in imports(ALL[name], deferred=True) if imported.split(".")[0] in MAPPED]

    assert bare == []


@pytest.mark.parametrize("name", [*LIGHT, *REPORT])
def test_torch_free_modules_name_nothing_heavy(name: str) -> None:
    heavy = [imported for imported, _ in imports(ALL[name], deferred=True) if imported.split(".")[0] in HEAVY]

    assert heavy == []


def test_light_modules_load_nothing_heavy() -> None:
    light = [*LIGHT, *REPORT, "cli.parser", "cli.studies", "cli.lookup"]
    loaded = modules_after("".join(f"import autoprune.{name.removesuffix('.__init__')}\n" for name in light))

    assert loaded.isdisjoint(HEAVY), loaded.intersection(HEAVY)


def test_what_status_prints_takes_no_tables_and_no_plots() -> None:
    loaded = modules_after("import autoprune.cli.studies\nimport autoprune.analysis.report.summary")

    assert loaded.isdisjoint({"pandas", "scipy", "plotly", "jinja2"})


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

    assert at_once == ["torch", "ray"]
    assert at_any_time == ["torch", "autoprune.cli", "ray"]


def test_the_root_is_small_and_no_file_is_long() -> None:
    tests = {str(file.relative_to(ROOT)): file for file in TESTS.rglob("*.py")}
    root = [path for path in (ROOT / "autoprune").iterdir() if path.name != "__pycache__"]
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in (ALL | tests).items()}

    assert sum(path.is_file() for path in root) <= 7
    assert sum(path.is_dir() for path in root) <= 11
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


@pytest.mark.parametrize("file", sorted(TESTS.rglob("test_*.py")), ids=lambda file: file.name)
def test_each_test_file_has_its_module(file: Path) -> None:
    folder, *rest = file.relative_to(TESTS).parts
    if folder in WHOLE:
        return
    if folder == "cluster":  # a file or two, of a kind that Python does not import
        named = {launch.stem.lower() for launch in (ROOT / "cluster").iterdir()} - {"readme", "__init__"}
        assert set(file.stem.removeprefix("test_").split("_and_")) <= named
        return
    subject = (ROOT / ("autoprune" if folder != "analysis" else "")).joinpath(folder, *rest)
    subject = subject.with_name(subject.name.removeprefix("test_"))

    assert subject.is_file() or subject.with_suffix("").is_dir() or subject.parent.with_suffix(".py").is_file()
