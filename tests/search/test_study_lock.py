"""Study lock: one process at a time."""

import subprocess
import sys

import pytest

from autoprune.errors import InputError
from autoprune.search.study_lock import lock
from autoprune.study.folder import StudyFolder

HOLD = """
import sys
from pathlib import Path
from autoprune.search.study_lock import lock
from autoprune.study.folder import StudyFolder

with lock(StudyFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_free_again_after_its_block(tmp_path):
    folder = StudyFolder(tmp_path)
    with lock(folder), pytest.raises(InputError, match="a search is running in this folder"), lock(folder):
        pass
    with lock(folder):
        pass


def test_a_lock_dies_with_its_process(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="a search is running"), lock(StudyFolder(tmp_path)):
            pass
        other.kill()
    with lock(StudyFolder(tmp_path)):
        pass
