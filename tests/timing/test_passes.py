"""A pass runs the model once, as it was told, and says how long that took."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_graphs import FAKES_OF_CUDA
from torch import Tensor, nn

from autoprune.errors import AutopruneError, ExportError, InputError
from autoprune.study.constraints import RUNTIMES, Latency
from autoprune.timing import cuda_graph, passes
from autoprune.timing.passes import build_pass, on_clock, resolved
from autoprune.training import captured
from autoprune.training.runtime import Runtime

CPU = Runtime(threads=1, channels_last=True)


class Listening(nn.Module):
    """Keeps what its layer was given."""

    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(5, 3, 3)
        type(self).seen = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.layer(x)


def test_a_clock_is_read_before_and_after() -> None:
    moments = iter([3.0, 10.5])

    assert on_clock(lambda: None, lambda: next(moments))() == 7.5


def test_eager_runs_a_copy_in_the_memory_format_of_the_runtime_in_eval_mode() -> None:
    model = Listening().train()
    run = build_pass(model, (torch.zeros(2, 5, 7, 7),), Latency(runtime="eager"), CPU)

    assert run() > 0
    assert len(Listening.seen) == 1
    assert Listening.seen[0].is_contiguous(memory_format=torch.channels_last)
    assert model.training


def test_weights_and_images_have_the_type_that_is_asked_for_and_whole_numbers_stay() -> None:
    class Both(Listening):
        def forward(self, x: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
            self.seen.append(index)
            return super().forward(x)

    inputs = (torch.zeros(2, 5, 7, 7), torch.ones(2, dtype=torch.int64))
    build_pass(Both(), inputs, Latency(runtime="eager", dtype="bfloat16"), CPU)()

    assert [x.dtype for x in Both.seen] == [torch.int64, torch.bfloat16]


@pytest.mark.parametrize(
    ("runtime", "package"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("compile", "torch")]
)
@pytest.mark.slow
def test_other_runtimes_run_a_model(runtime: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    network = nn.Sequential(nn.Conv2d(5, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    run = build_pass(network, (torch.zeros(2, 5, 7, 7),), Latency(runtime=runtime, threads=1), CPU)

    assert run() > 0
    assert run() > 0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_is_named(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InputError, match=rf"{runtime}.* not installed; run: pip install 'autoprune\["):
        build_pass(nn.Conv2d(5, 3, 3), (torch.zeros(1, 5, 7, 7),), Latency(runtime=runtime), CPU)


def test_a_model_that_takes_lists_is_refused_with_a_way_out() -> None:
    with pytest.raises(ExportError, match=r"inputs that are no tensors.*; allowed: eager"):
        passes._arrays(([torch.zeros(3, 7, 7)],))


class TestResolved:
    def test_on_a_gpu_it_is_a_graph_in_bfloat16_else_eager_in_float32(self) -> None:
        assert resolved(Latency(batch=3), "cuda:1") == Latency(batch=3, runtime="graph", dtype="bfloat16")
        assert resolved(Latency(threads=5), "cpu") == Latency(runtime="eager", dtype="float32", threads=5)
        assert resolved(Latency(runtime="eager"), "cuda") == Latency(runtime="eager", dtype="float32")

    def test_a_graph_needs_a_gpu(self) -> None:
        with pytest.raises(InputError, match=r"latency.runtime: graph needs a GPU, and this is cpu"):
            resolved(Latency(runtime="graph"), "cpu")


class TestGraph:
    """Without a GPU: a graph that calls what it captured when it is replayed, and events of a clock of their own."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [0.0]

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = now[0]

            def elapsed_time(self, other: Any) -> float:
                return float(other.at - self.at)

        class Graph:
            def replay(self) -> None:
                now[0] += 7.0

        fakes = {"Event": Event, "CUDAGraph": Graph, "synchronize": lambda _device: None}
        for name, fake in {**FAKES_OF_CUDA, **fakes}.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        return now

    def test_a_replay_is_timed_by_events_in_milliseconds(self, now: list[float]) -> None:
        run = cuda_graph.captured_pass(nn.Conv2d(5, 3, 3), (torch.zeros(1, 5, 7, 7),), "cpu")

        assert run() == pytest.approx(0.007)
        assert now == [7.0]

    def test_warm_up_and_capture_run_the_model_and_replays_do_not(self, now: list[float]) -> None:
        model = Listening()
        run = cuda_graph.captured_pass(model, (torch.zeros(1, 5, 7, 7),), "cpu")
        run(), run()

        assert len(Listening.seen) == captured.BEFORE_CAPTURE + 1

    def test_a_model_that_cannot_be_captured_is_refused_with_a_way_out(self, now: list[float]) -> None:
        class Waiting(nn.Module):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                if self.calls > captured.BEFORE_CAPTURE:
                    raise RuntimeError("operation not permitted when stream is capturing\nand more")
                return x

        with pytest.raises(ExportError, match=r"cannot be captured: operation not permitted .*; allowed: eager"):
            cuda_graph.captured_pass(Waiting(), (torch.zeros(1),), "cpu")


def test_every_runtime_that_a_space_file_may_name_has_a_builder() -> None:
    assert {*passes._BUILDERS} == {*RUNTIMES} - {"auto"}


class TestOwnRuntime:
    """A function of the user's, as TensorRT would be one."""

    @pytest.fixture(autouse=True)
    def module(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "my_runtime.py").write_text(
            "def build_pass(model, inputs):\n    return lambda: model(*inputs)\n\n"
            "def no_pass(model, inputs):\n    return model(*inputs)\n\n"
            "def failing(model, inputs):\n    raise OSError('no engine')\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)

    def build(self, name: str) -> passes.Pass:
        latency = Latency(runtime=f"my_runtime:{name}", dtype="bfloat16")
        return build_pass(Listening(), (torch.zeros(2, 5, 7, 7),), latency, CPU)

    def test_it_gets_model_and_inputs_as_they_are_timed(self) -> None:
        assert self.build("build_pass")() > 0
        assert [x.dtype for x in Listening.seen] == [torch.bfloat16]

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("no_pass", r"my_runtime:no_pass gave a Tensor; allowed: a function without arguments"),
            ("failing", "no engine"),
            ("nothing", "nothing"),
        ],
    )
    def test_what_gives_no_pass_is_named(self, name: str, error: str) -> None:
        with pytest.raises(AutopruneError, match=error):
            self.build(name)
