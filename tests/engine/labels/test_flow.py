"""What rules tell the flow arrives where the tracer looks for it."""

from __future__ import annotations

import numpy as np
import torch

from autoprune.engine.labels.flow import Flow
from autoprune.engine.labels.pass_state import PassState
from autoprune.engine.labels.tensor_labels import TensorLabels


def new_flow(path: str = "block.conv") -> Flow:
    return Flow(TensorLabels(np.arange(20)), PassState({}, path=path))


def test_a_reason_names_the_running_module_and_at_the_root_none() -> None:
    inside, root = new_flow(), new_flow("")
    for flow in (inside, root):
        flow.freeze(np.array([3]), "a size")
        flow.tie(np.array([5, 7]), np.array([0, 9]), "met a fixed entry")

    assert [reason for _, reason in inside.ties.freezes] == ["a size in block.conv", "met a fixed entry in block.conv"]
    assert [reason for _, reason in root.ties.freezes] == ["a size", "met a fixed entry"]


def test_labels_along_one_dimension_and_all_others_frozen() -> None:
    flow, x = new_flow(), torch.empty(2, 3, 5)
    flow.set(x, [((1,), np.array([3, 4, 5])), ((2,), np.arange(7, 12)), ((0, 2), np.arange(10).reshape(2, 5))])

    found = flow.along(x, 1, "no rule")

    assert found is not None
    assert found.tolist() == [3, 4, 5]
    assert [labels.tolist() for labels, _ in flow.ties.freezes] == [[7, 8, 9, 10, 11], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert flow.along(torch.empty(3), 0, "no rule") is None


def test_blocks_that_share_a_dimension_become_one() -> None:
    flow = new_flow()

    merged = flow.merge([((0,), np.array([3, 4])), ((0, 1), np.array([[5, 6, 7], [8, 9, 10]]))], (2, 3), "met")

    assert [(dims, labels.tolist()) for dims, labels in merged] == [((0,), [3, 4])]
    assert [pair.tolist() for pair in flow.ties.pairs] == [[[3, 3, 3, 4, 4, 4], [5, 6, 7, 8, 9, 10]]]


def test_new_labels_follow_the_known_ones_and_repeat_only_where_splits_tied_them() -> None:
    flow = new_flow()
    fresh = flow.fresh(4).reshape(2, 2)

    assert fresh.tolist() == [[20, 21], [22, 23]]
    assert not flow.repeats(fresh, [0])
    flow.labels.unify(fresh[1], fresh[0])
    assert flow.repeats(fresh, [0])
    assert not flow.repeats(fresh, [1])


def test_a_cross_channel_call_is_noted_with_its_number_and_the_blocks_that_it_works_on() -> None:
    flow, x = new_flow(), torch.empty(2, 3, 5)
    flow.set(x, [((1,), np.array([3, 4, 5])), ((2,), np.arange(7, 12))])
    flow.state.calls["_softmax"] = 3

    flow.mix("_softmax", x, {1})
    flow.mix("_softmax", x, {0})

    (call,) = flow.evidence.cross_channel
    assert (call.name, call.index, call.over) == ("_softmax", 2, (1,))
    assert [dims for dims, _ in call.blocks] == [(1,)]
    assert [(module, name) for module, name, _ in flow.evidence.attributes] == [("block.conv", "normalized_shape")]
