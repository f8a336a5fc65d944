"""A Keep is a value that fits its graph or is refused."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Chain, image, randomised

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError

NET = randomised(Chain(7, 11))
GRAPH = trace(NET, image())


def test_positions_are_a_set_whatever_order_and_type_they_come_in() -> None:
    keep = Keep.of({"second.0": np.array([10, 0]), "first.0": (5, 3, 1)})

    assert keep == Keep.of({"first.0": [1, 3, 5], "second.0": [0, 10]})
    assert keep.to_dict() == {"first.0": [1, 3, 5], "second.0": [0, 10]}


def test_groups_that_are_left_out_keep_all_their_units() -> None:
    keep = Keep.of({"second.0": [2, 3, 5]})

    assert keep.widths(GRAPH) == {"first.0": 7, "second.0": 3}
    assert keep.counts(GRAPH).tolist() == [7, 3]
    stays = keep.units(GRAPH)
    assert stays[GRAPH.by_id["first.0"].units].all()
    assert np.flatnonzero(stays[GRAPH.by_id["second.0"].units]).tolist() == [2, 3, 5]
    assert Keep.all().units(GRAPH).all()


@pytest.mark.parametrize("positions", [[], [0, 0], [7], [-1]])
def test_positions_that_make_no_sense_are_refused(positions: list[int]) -> None:
    with pytest.raises(InputError, match=r"keep of group 'first.0': .*1 to 7 different positions"):
        prune(NET, GRAPH, Keep.of({"first.0": positions}))


def test_frozen_and_unknown_groups_cannot_be_cut() -> None:
    with pytest.raises(InputError, match="group 'head' is frozen: reaches the model's output"):
        prune(NET, GRAPH, Keep.of({"head": [0]}))
    with pytest.raises(InputError, match=r"unknown group 'firts.0' \(did you mean 'first.0'\?\)"):
        prune(NET, GRAPH, Keep.of({"firts.0": [0]}))
