"""Fakes for the workers to import, and a session on a small space."""

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)


@pytest.fixture
def workers_see_fakes(monkeypatch):
    """Ray's workers start with the environment of the driver."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
