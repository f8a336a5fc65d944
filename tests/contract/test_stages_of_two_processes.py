"""Two processes that share their gradients and nothing else come to the same end of a stage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ranks import stages
from torch import multiprocessing

NAMES = ("l0_hqs", "greg1", "greg2", "orthoreg", "increg", "sfp", "asfp", "srfp", "asrfp", "group_fisher")
pytestmark = pytest.mark.slow

Ends = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """What each of two processes ended with, `together` and `alone`, by method."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(stages, (folder, 2, NAMES, 40), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def alike(ends: Ends, how: str, what: str) -> set[str]:
    """The methods of which both processes ended with the same."""
    one, two = (end[how] for end in ends)
    return {name for name in NAMES if one[name][what] == two[name][what]}


def test_every_process_ends_a_stage_with_the_same_state_and_keeps_the_same(ends: Ends) -> None:
    assert alike(ends, "together", "loss") == set()  # each process has images of its own
    assert alike(ends, "together", "state") == alike(ends, "together", "kept") == set(NAMES)
    assert all(ends[0]["together"][name]["kept"] for name in NAMES)


def test_without_shared_gradients_they_end_elsewhere(ends: Ends) -> None:
    """Otherwise the test above could not fail. GReg-1 chooses before the stage; Fisher adds up its scores itself."""
    assert alike(ends, "alone", "state") & alike(ends, "alone", "kept") == {"greg1", "group_fisher"}
