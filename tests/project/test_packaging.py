"""What a user gets: one name in site-packages, data files, one version, commands that exist."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import autoprune
from autoprune.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = ("constraints.txt", "constraints-lowest.txt")
MAPPED = ("analysis", "cluster", "search_spaces")
# The promise of the design page: these are what `import autoprune as ap` gives.
PUBLIC = (
    "trace",
    "allocate",
    "cost",
    "prune",
    "save",
    "load",
    "run_trial",
    "search",
    "load_study",
    "Target",
    "AutopruneError",
)


def python(code: str, *, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run code in a new process in another folder, so that the repository is not found by being here."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=check)


def commands() -> dict[str, argparse.ArgumentParser]:
    """Subcommand -> its parser."""
    actions = build_parser()._actions
    return dict(next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices)


def test_the_version_is_the_same_everywhere() -> None:
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert newest is not None
    assert (
        PROJECT["project"]["version"] == autoprune.__version__ == importlib.metadata.version("autoprune") == newest[1]
    )


def test_every_package_folder_is_listed() -> None:
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    found = set()
    for package, folder in mapping.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inside)))

    assert sorted(found) == sorted(PROJECT["tool"]["setuptools"]["packages"])


def test_every_data_file_is_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    missing = []
    for folder in MAPPED:
        shipped = {file for pattern in patterns[f"autoprune.{folder}"] for file in (ROOT / folder).glob(pattern)}
        data = {file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
        # Pictures, notes and rows of runs are for readers of the repository; modules are shipped as modules.
        others = {".py", ".pyc", ".svg", ".png", ".md", ".jsonl"}
        missing += [file for file in data - shipped if file.suffix not in others]

    assert missing == []


def test_data_files_are_found_where_users_look(tmp_path: Path) -> None:
    code = (
        "from importlib import resources\n"
        "for package in ('search_spaces', 'cluster', 'analysis.report'):\n"
        "    print(package, *[f.name for f in resources.files(f'autoprune.{package}').iterdir()])"
    )
    found = {line.split()[0]: line.split()[1:] for line in python(code, cwd=tmp_path).stdout.splitlines()}

    assert "digits_demo.yaml" in found["search_spaces"]
    assert {"Dockerfile", "aws.yaml", "local_multinode.sh", "slurm.sbatch"} <= set(found["cluster"])
    assert "templates" in found["analysis.report"]


@pytest.mark.parametrize("folder", MAPPED)
def test_the_folders_at_the_top_do_not_land_in_site_packages(folder: str, tmp_path: Path) -> None:
    ran = python(f"import {folder}", cwd=tmp_path, check=False)

    assert "ModuleNotFoundError" in ran.stderr


def test_public_names_stay_what_they_are_when_their_modules_are_imported(tmp_path: Path) -> None:
    # `autoprune.search` is a function and a package; importing the module must not hide the function.
    code = (
        f"import autoprune as ap, importlib\nnames = {PUBLIC!r}\n"
        "for name in ('search', 'trial.run', 'engine.cost', 'engine.tracing.trace'):\n"
        "    importlib.import_module(f'autoprune.{name}')\n"
        "print([name for name in names for _ in range(2) if not callable(getattr(ap, name))])"
    )

    assert python(code, cwd=tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in commands()), ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autoprune.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        "print('heavy:', *{'torch', 'ray', 'optuna', 'numpy', 'yaml'} & set(sys.modules))"
    )

    assert python(code, cwd=tmp_path).stdout.splitlines()[-1].strip() == "heavy:"


@pytest.mark.parametrize("name", [None, *commands()])
def test_help_fits_80_columns_and_says_something(name: str | None) -> None:
    parser = build_parser() if name is None else commands()[name]
    text = parser.format_help()

    assert max(len(line) for line in text.splitlines()) <= 80
    assert parser.description
    assert "examples:\n  autoprune" in text


def test_examples_in_the_help_are_accepted() -> None:
    parser = build_parser()
    for command in commands().values():
        text = (command.epilog or "").replace("\\\n", " ")
        for line in re.findall(r"^ +autoprune (.*)$", text, re.MULTILINE):
            parser.parse_args(re.split(r" [|>] ", line)[0].split())


def test_every_command_has_a_function() -> None:
    homes = {name: parser.get_default("home") for name, parser in commands().items()}
    absent = [name for name, home in homes.items() if not hasattr(import_module(f"autoprune.cli.{home}"), name)]

    assert absent == []


@pytest.mark.parametrize("file", CONSTRAINTS)
def test_versions_are_pinned_and_name_no_host(file: str) -> None:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]

    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert "://" not in (ROOT / file).read_text()


def pins(file: str) -> dict[str, str]:
    """Package -> its pinned version."""
    text = (ROOT / file).read_text().lower().replace("_", "-")
    return dict(line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))


def wanted(extra: str | None) -> list[Requirement]:
    """The requirements of the package, or of one of its extras."""
    project = PROJECT["project"]
    found = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return [Requirement(text) for text in found]


PINNED = [*((extra, file) for extra in (None, "onnx", "timm", "dev") for file in CONSTRAINTS), ("docs", CONSTRAINTS[0])]


@pytest.mark.parametrize(("extra", "file"), PINNED)
def test_pins_are_within_the_ranges(extra: str | None, file: str) -> None:
    for requirement in wanted(extra):
        assert requirement.specifier.contains(pins(file)[requirement.name.lower()]), requirement


@pytest.mark.parametrize("extra", [None, "onnx", "timm"])
def test_lower_bounds_are_the_versions_that_the_lowest_suite_runs_with(extra: str | None) -> None:
    for requirement in wanted(extra):
        (lowest,) = [spec.version for spec in requirement.specifier if spec.operator == ">="]
        assert (
            Version(lowest).release
            == Version(pins("constraints-lowest.txt")[requirement.name.lower()]).release[: len(Version(lowest).release)]
        ), requirement


def test_the_page_of_limits_names_the_oldest_and_the_newest_versions() -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z-]+) \| ([0-9.]+) \| ([0-9.]+) \|$", text, re.MULTILINE)
    bounds = {
        requirement.name: spec.version
        for extra in (None, "onnx", "timm")
        for requirement in wanted(extra)
        for spec in requirement.specifier
        if spec.operator == ">="
    }
    newest = pins("constraints.txt")

    assert rows == [(name, bounds[name], newest[name]) for name, _, _ in rows]
    assert {"torch", "numpy", "pandas", "optuna", "ray", "onnxruntime"} <= {name for name, _, _ in rows}
