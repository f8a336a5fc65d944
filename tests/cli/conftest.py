"""Every test of the command line runs in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import write_space

from autoprune.cli import parser


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search of five trials on the digits, run in process."""
    folder = tmp_path_factory.mktemp("searched")
    space = write_space(folder / "s.yaml")
    assert parser.main(["search", space, "--in-process", "--out", str(folder / "study")]) == 0
    return folder / "study"
