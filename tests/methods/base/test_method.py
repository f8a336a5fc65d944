"""What a method is given, and what it gives."""

from __future__ import annotations

from autoprune.methods import Stage
from autoprune.recipe import Allocation, Target, Training, stable_hash


def test_a_stored_stage_is_found_again() -> None:
    stage = Stage(Target(), Allocation(), Training(), steps=7, weight_decay=0.1)

    assert stable_hash([stage.to_dict()]) == "0f76c7f15dc5"  # as it was when the allocation was called `how`
