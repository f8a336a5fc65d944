"""Installed into a fresh environment, from the clone and as a wheel, it searches outside of the clone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

import autoprune

ROOT = Path(__file__).resolve().parents[2]
#: Folders that a package is not made of; the copy is made without them.
LEFT_OUT = (".git", ".venv*", ".*_cache", ".hypothesis", "build", "dist", "runs", "tests", "docs", "*.egg-info")
#: No network, and the build tools that are here.
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, since building leaves files in it."""
    return Path(
        shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / "it", ignore=shutil.ignore_patterns(*LEFT_OUT))
    )


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment with the libraries of this one, but not autoprune: a .pth file brings no other .pth files."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["clone", "wheel"])
def test_the_demo_searches_outside_of_the_clone(what: str, clone: Path, environment: Path, tmp_path: Path) -> None:
    source = clone
    if what == "wheel":
        run([sys.executable, "-m", "pip", "wheel", *OFFLINE, "--wheel-dir", tmp_path, clone], tmp_path)
        (source,) = tmp_path.glob("autoprune-*.whl")
        assert source.name.startswith(f"autoprune-{autoprune.__version__}-py3-none-any")
    run([sys.executable, "-m", "pip", "--python", environment / "python", "install", *OFFLINE, source], tmp_path)
    small = ("--trials", "4", "--set", "space.training.images=512", "--set", "task.model.train.images=4000")

    assert run([environment / "autoprune", "--version"], tmp_path) == f"autoprune {autoprune.__version__}\n"
    where = run([environment / "python", "-c", "import autoprune; print(autoprune.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parent)
    *_, end = run([environment / "autoprune", "search", "digits_demo", "--in-process", *small], tmp_path).splitlines()
    assert json.loads(end)["trials"] == {"completed": 4, "stopped": 0, "failed": 0}
    assert (tmp_path / "runs" / "digits_demo" / "report.html").is_file()
