"""Fakes for the workers to import."""

import os
from pathlib import Path

import pytest

HELPERS = str(Path(__file__).resolve().parent.parent / "helpers")


@pytest.fixture
def workers_see_fakes(monkeypatch):
    """Ray's workers start with the environment of the driver."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")]))
