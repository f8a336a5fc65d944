"""Methods of other packages: found when installed, and told apart from what is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from autoprune import methods
from autoprune.errors import InputError
from autoprune.methods import L1
from autoprune.study.outcome import DENSE, RANDOM

EXAMPLE = Path(__file__).parent / "third_party"


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Pretend that these entry points are installed."""

    def announce(**points: str) -> None:
        found = [EntryPoint(name, value, methods.ENTRY_POINTS) for name, value in points.items()]
        monkeypatch.setattr(methods, "entry_points", lambda group: found)
        monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
        methods._add_installed.cache_clear()

    yield announce
    monkeypatch.undo()
    methods._add_installed.cache_clear()


def test_the_controls_of_a_study_are_methods_one_of_which_removes_nothing() -> None:
    assert {name: methods.find(name).is_dense for name in (DENSE, RANDOM)} == {DENSE: True, RANDOM: False}


class Mine(L1):
    """A method of this file."""

    name = "mine"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which this file can be imported."""
    monkeypatch.setitem(sys.modules, "a_third_party", sys.modules[__name__])
    return "a_third_party"


def test_an_announced_method_is_found_by_its_name(announced, module: str) -> None:  # type: ignore[no-untyped-def]
    announced(mine=f"{module}:Mine")

    assert methods.names()[-1] == "mine"
    assert methods.find("mine") is Mine


def test_what_is_no_method_is_refused_with_package_and_reason(announced, module: str) -> None:  # type: ignore[no-untyped-def]
    announced(mine=f"{module}:EXAMPLE")
    with pytest.raises(InputError, match=r"'mine' of an unknown package: a_third_party:EXAMPLE is no such method"):
        methods.names()
    announced(yours=f"{module}:Mine")
    with pytest.raises(InputError, match=r"a subclass of autoprune\.methods\.Method with name = 'yours'"):
        methods.find("l1")
    announced(mine="no_such_module:Mine")
    with pytest.raises(InputError, match=r"cannot be loaded: ModuleNotFoundError"):
        methods.names()


def test_a_name_that_is_taken_is_refused(announced, module: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(Mine, "name", "l1")
    announced(l1=f"{module}:Mine")

    with pytest.raises(InputError, match="there is a method of that name already"):
        methods.names()


@pytest.mark.slow
def test_pip_install_of_the_example_adds_it_to_the_methods_and_it_prunes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True, text=True)
    run = {"env": {**os.environ, "PYTHONPATH": str(target)}, "cwd": tmp_path, "capture_output": True, "text": True}

    listed = subprocess.run([sys.executable, "-m", "autoprune", "methods", "--json"], check=True, **run)  # type: ignore[call-overload]
    command = ["prune", "lenet5", "--input", "1x28x28", "--flops", "0.5", "--method", "thinnest", "--json"]
    pruned = subprocess.run([sys.executable, "-m", "autoprune", *command], check=True, **run)  # type: ignore[call-overload]

    assert json.loads(listed.stdout)[-1]["name"] == "thinnest"
    assert json.loads(pruned.stdout)["flops_ratio"] == pytest.approx(0.5, abs=0.01)
