"""What a capture leaves behind, what it refuses, and that replays read what they are given."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_graphs import FAKES_OF_CUDA, capture_on_cpu

from autoprune.training import captured
from autoprune.training.captured import CaptureError, Replayed, capture


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened on a GPU that is none."""
    events: list[str] = []

    class Graph:
        def replay(self) -> None:
            events.append("replayed")

    class Capturing:
        def __init__(self, _graph: Graph, *, capture_error_mode: str) -> None:
            events.append(f"captures, {capture_error_mode}")

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    fakes = {"CUDAGraph": Graph, "graph": Capturing, "set_sync_debug_mode": lambda mode: events.append(f"sync {mode}")}
    for name, fake in {**FAKES_OF_CUDA, **fakes}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return events


def noting(events: list[str], what: Callable[[], Any] = lambda: 7) -> Callable[[], Any]:
    def function() -> Any:
        events.append("called")
        return what()

    return function


def test_calls_come_first_then_all_is_put_back_then_it_is_captured(events: list[str]) -> None:
    replay, outputs = capture(noting(events), "cpu", lambda: events.append("put back"))
    replay()

    assert outputs == 7
    assert events == [
        *["called"] * (captured.BEFORE_CAPTURE - 1),
        *["sync error", "called", "sync 0"],
        *["put back", "captures, thread_local", "called", "replayed"],
    ]


def test_a_function_that_waits_is_refused_before_the_capture(events: list[str]) -> None:
    def wait() -> None:
        if "sync error" in events:
            raise RuntimeError("called a synchronizing CUDA operation\nand more")

    with pytest.raises(CaptureError, match=r"waits for the device: called a synchronizing CUDA operation$"):
        capture(noting(events, wait), "cpu", lambda: events.append("put back"))

    assert events[-2:] == ["sync 0", "put back"]


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), random.random, np.random.rand])
def test_what_draws_on_the_cpu_is_refused(events: list[str], draw: Callable[[], Any]) -> None:
    with pytest.raises(CaptureError, match="draws random numbers on the CPU"):
        capture(noting(events, draw), "cpu", lambda: None)

    assert "captures, thread_local" not in events


def test_what_fails_in_the_capture_is_refused(events: list[str]) -> None:
    def fail() -> None:
        if "captures, thread_local" in events:
            raise ValueError("not now")

    with pytest.raises(CaptureError, match="cannot be captured: not now"):
        capture(noting(events, fail), "cpu", lambda: None)


def test_an_error_of_the_functions_own_is_no_refusal(events: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        capture(noting(events, lambda: 1 // 0), "cpu", lambda: events.append("put back"))

    assert events[-1] == "put back"


class TestReplayed:
    @pytest.fixture(autouse=True)
    def graphs_on_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(captured, "capture", capture_on_cpu)

    def test_inputs_are_copied_to_where_the_graph_reads(self) -> None:
        first = torch.tensor([3.0, 5.0])
        double = Replayed(lambda pair: 2 * pair["x"], ({"x": first, "name": "a"},), "cpu")

        assert double({"x": torch.tensor([7.0, 11.0]), "name": "a"}).tolist() == [14, 22]
        assert first.tolist() == [3, 5]

    @pytest.mark.parametrize(
        ("other", "takes"),
        [
            (torch.zeros(5, 3), True),
            (torch.zeros(3, 5), False),
            (torch.zeros(5, 3, dtype=torch.float64), False),
            (torch.zeros(3, 5).T, False),
            ((torch.zeros(5, 3),), False),
        ],
    )
    def test_it_takes_what_is_as_its_first_inputs(self, other: Any, takes: bool) -> None:
        assert Replayed(lambda x: x + 1, (torch.ones(5, 3),), "cpu").takes((other,)) is takes
