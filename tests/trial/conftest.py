"""One digits network, trained for a moment, for tests that need no task of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits import TASK

from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState


@pytest.fixture(scope="module")
def one_thread(data_folder: Path) -> SharedState:
    """What trials on it share, on one thread: its numbers are the same bits every time."""
    assert data_folder.is_dir()
    return SharedState.of(load_task(TASK), Runtime(threads=1))
