"""Which parts of a batch are inputs, and which are targets."""

import pytest

from autoprune.errors import DataError, InputError
from autoprune.tasks.own.batches import BatchParts


@pytest.mark.parametrize(
    ("keys", "batch", "inputs", "targets"),
    [
        ((None, None), (1, 2), (1,), 2),
        ((None, None), ((1, 3), 2), (1, 3), 2),
        ((None, None), (1, 2, 3), (1,), (2, 3)),
        ((None, None), ([1, 3], 2), ([1, 3],), 2),
        (("x", None), {"x": 1, "y": 2}, (1,), 2),
        (("x", None), {"x": 1, "y": 2, "z": 3}, (1,), {"y": 2, "z": 3}),
        ((["z", "x"], "y"), {"x": 1, "y": 2, "z": 3}, (3, 1), 2),
    ],
)
def test_parts(keys, batch, inputs, targets):
    parts = BatchParts.of(*keys, "task")

    assert inputs == parts.inputs_of(batch)
    assert targets == parts.targets_of(batch)


@pytest.mark.parametrize(
    ("keys", "batch", "message"),
    [
        ((None, None), 7, "a batch is a int"),
        ((None, None), (7,), "a batch is a tuple of 1"),
        ((None, None), {"x": 1, "y": 2}, "a mapping with the keys x, y"),
        (("z", None), {"x": 1, "y": 2}, "no 'z'; allowed: x, y"),
    ],
)
def test_other_batches_are_refused(keys, batch, message):
    with pytest.raises(DataError, match=message):
        BatchParts.of(*keys, "task").inputs_of(batch)


def test_keys_are_text():
    with pytest.raises(InputError, match=r"task.inputs: 7 names no keys"):
        BatchParts.of(7, None, "task")
