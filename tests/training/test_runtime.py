"""Where and how networks compute: what is chosen, and that it ends with its block."""

import copy
import dataclasses
import math

import pytest
import torch

from autoprune.errors import InputError
from autoprune.training import runtime as runtime_module
from autoprune.training.captured import CaptureError
from autoprune.training.runtime import Runtime


def test_choose_runtime_measures_without_touching_the_model(digits, small):
    before = copy.deepcopy(small.state_dict())

    runtime = runtime_module.choose_runtime(small, digits, 32, threads=1)

    assert ("cpu", False, 1) == (runtime.device, runtime.graphs, runtime.threads)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())
    assert not small.training
    assert all(p.grad is None for p in small.parameters())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1.0, 1.0, 0.95, 0.95), ("fp32", True)),
        ((1.0, 1.0, 0.9, 1.0), ("bf16", True)),
        ((1.0, 0.8, 0.9, 1.0), ("fp32", False)),
        ((1.0, 0.95, 0.95, 0.7), ("bf16", False)),
    ],
)
def test_fewer_digits_and_odd_layouts_must_win_by_a_margin(monkeypatch, digits, small, seconds, expected):
    monkeypatch.setattr(
        runtime_module, "_measure_seconds", lambda model, task, batch, options: dict(zip(options, seconds, strict=True))
    )

    runtime = runtime_module.choose_runtime(small, digits, 32, "cpu")

    assert expected == (runtime.precision, runtime.channels_last)


@pytest.mark.parametrize(
    ("known", "seconds", "expected"),
    [
        (Runtime(precision="bf16", channels_last=True), (1.0, 1.3, 1.4, 1.3), ("bf16", True)),
        (Runtime(precision="bf16", channels_last=True), (1.0, 1.3, 51.0, 52.0), ("fp32", True)),
        (Runtime(threads=3), (1.0, 1.0, 1.4, 1.4), ("fp32", True)),
    ],
)
def test_what_is_known_is_kept_unless_it_is_far_slower(monkeypatch, digits, small, known, seconds, expected):
    """A study of a machine with bfloat16 went on in it on one without, ten times as slow as in fp32."""
    monkeypatch.setattr(
        runtime_module, "_measure_seconds", lambda model, task, batch, options: dict(zip(options, seconds, strict=True))
    )

    runtime = runtime_module.choose_runtime(small, digits, 32, "cpu", known=known)

    assert expected == (runtime.precision, runtime.channels_last)
    assert runtime.threads is None


def test_slow_options_are_measured_less(monkeypatch, small):
    calls = []

    def timed(model, task, batch, runtime):
        calls.append(runtime.precision)
        return 1.0 if runtime.precision == "fp32" else 2.0

    monkeypatch.setattr(runtime_module, "_timed_pass", timed)
    options = [Runtime(), Runtime(precision="bf16")]

    assert [1.0, 2.0] == list(runtime_module._measure_seconds(small, None, None, options).values())
    assert (5, 2) == (calls.count("fp32"), calls.count("bf16"))


def test_a_hopeless_precision_is_tried_once(monkeypatch, small):
    """A processor without bfloat16 takes ten times as long with it, whatever the layout: 8.6 s a pass."""
    calls = []

    def timed(model, task, batch, runtime):
        calls.append((runtime.precision, runtime.channels_last))
        return 10.0 if runtime.precision == "bf16" else 1.0

    monkeypatch.setattr(runtime_module, "_timed_pass", timed)
    options = [
        Runtime(precision=precision, channels_last=layout) for precision in ("fp32", "bf16") for layout in (1, 0)
    ]
    seconds = runtime_module._measure_seconds(small, None, None, options)

    assert list(seconds.values()) == [1.0, 1.0, math.inf, math.inf]
    assert calls.count(("fp32", 1)) == calls.count(("fp32", 0)) == 5
    assert calls[5:].count(("bf16", 1)) == calls.count(("bf16", 0)) == 0


def test_threads_are_set_within_the_limits_only():
    before = torch.get_num_threads()

    with Runtime(threads=before + 1).limits():
        assert before + 1 == torch.get_num_threads()
    assert before == torch.get_num_threads()


def test_devices():
    assert runtime_module.pick_device("cpu") == "cpu"
    assert runtime_module.pick_device("auto") in {"cpu", "cuda"}
    with pytest.raises(InputError, match="no device 'gpu'"):
        runtime_module.pick_device("gpu")
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        Runtime(precision="bf61")


def test_only_what_a_task_allows_is_chosen(digits, small, monkeypatch):
    def bf16_is_fast(model, task, batch, options):
        return {option: 0.1 if option.precision == "bf16" else 1.0 for option in options}

    monkeypatch.setattr(runtime_module, "_measure_seconds", bf16_is_fast)
    careful = dataclasses.replace(digits, precisions=("fp32",))

    assert runtime_module.choose_runtime(small, digits, 8).precision == "bf16"
    assert runtime_module.choose_runtime(small, careful, 8).precision == "fp32"


@pytest.mark.parametrize("same_shapes", [True, False])
def test_on_a_gpu_steps_are_graphs_where_batches_have_the_same_shapes(digits, small, monkeypatch, same_shapes):
    monkeypatch.setattr(runtime_module, "pick_device", lambda _device: "meta")
    monkeypatch.setattr(
        runtime_module, "_measure_seconds", lambda model, task, batch, options: dict.fromkeys(options, 1.0)
    )
    task = dataclasses.replace(digits, same_shapes=same_shapes)

    assert runtime_module.choose_runtime(small, task, 8).graphs is same_shapes


def test_what_is_measured_is_the_replay_of_a_graph(digits, small, monkeypatch):
    happened = []

    def capture(function, device, put_back):
        function()
        return lambda: happened.append("replayed"), None

    monkeypatch.setattr(runtime_module, "capture", capture)
    batch = next(iter(digits.train.batches(torch.arange(8), 8)))

    assert runtime_module._timed_pass(small, digits, batch, Runtime(graphs=True)) < 1
    assert happened == ["replayed"]
    assert all(p.grad is not None for p in small.parameters())


def test_what_cannot_be_captured_is_measured_layer_by_layer(digits, small, monkeypatch):
    def refuse(function, device, put_back):
        raise CaptureError("waits for the device")

    monkeypatch.setattr(runtime_module, "capture", refuse)
    batch = next(iter(digits.train.batches(torch.arange(8), 8)))
    runtime_module._timed_pass(small, digits, batch, Runtime(graphs=True))

    assert all(p.grad is not None for p in small.parameters())
