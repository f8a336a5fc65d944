"""Names of workers in the logs."""

from __future__ import annotations

import pytest

from autoprune.study.worker_name import WorkerName


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (WorkerName(node="node3", process=4711), "node3:4711"),
        (WorkerName(node="node3", process=7, gpus=("0",)), "node3:7:gpu0"),
        (WorkerName(node="a.b.org", process=7, gpus=("1", "GPU-4f-2")), "a.b.org:7:gpu1+GPU-4f-2"),
    ],
)
def test_a_name_says_node_process_and_gpus(name: WorkerName, text: str) -> None:
    assert str(name) == text
    assert WorkerName.parse(text) == name


@pytest.mark.parametrize("text", ["", "here", "here:", ":7", "a:b"])
def test_other_texts_name_no_process(text: str) -> None:
    assert WorkerName.parse(text) is None
