"""A step as graphs is the step layer by layer, to the last bit; where it cannot be, the training says so."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_graphs import FAKES_OF_CUDA, capture_on_cpu
from torch import Tensor, nn

from autoprune.recipe import Training
from autoprune.training import captured, distillation
from autoprune.training.captured import CaptureError
from autoprune.training.fit import FitLog, fit
from autoprune.training.runtime import Runtime

LAYERS, GRAPHS = Runtime(), Runtime(graphs=True)
PLAIN = Training(batch_size=100, lr=0.05)


class Shrinking:
    """A regulariser that adds to the gradients in place, and scales weights."""

    heard = 0

    def before_step(self, model: Any, step: int, steps: int) -> None:
        model.conv.weight.grad.add_(model.conv.weight.detach(), alpha=0.1 * step / steps)

    def after_step(self, model: Any, step: int, steps: int) -> None:
        self.heard += 1
        model.norm.weight.data.mul_(0.97)

    def state_dict(self) -> dict[str, Any]:
        return {"heard": self.heard}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heard = state["heard"]


class OtherGradients(Shrinking):
    """Puts new gradients in place of those that a graph would read, and takes one away."""

    def before_step(self, model: Any, step: int, steps: int) -> None:
        model.conv.weight.grad = model.conv.weight.grad + 0.1 * model.conv.weight.detach()
        model.linear.bias.grad = torch.zeros_like(model.linear.bias)


class OtherWeights(Shrinking):
    """Puts weights elsewhere at the third step."""

    def after_step(self, model: Any, step: int, steps: int) -> None:
        if step == 2:
            model.conv.weight.data = 0.9 * model.conv.weight.data


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was captured, of graphs on the CPU."""
    functions: list[Any] = []

    def capture(function: Any, device: str, put_back: Any) -> Any:
        functions.append(function)
        return capture_on_cpu(function, device, put_back)

    monkeypatch.setattr(captured, "capture", capture)
    for name in ("get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, FAKES_OF_CUDA[name])
    return functions


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


def trained(model: nn.Module, task: Any, training: Training, runtime: Runtime, **given: Any) -> FitLog:
    teacher = distillation.Teacher(task.build()) if training.distill else None
    return fit(model, task, training, runtime, images=700, seed=3, teacher=teacher, **given)


def check_equal(task: Any, small: nn.Module, training: Training, regulariser: Any = None) -> FitLog:
    layers, graphs = copy.deepcopy(small), copy.deepcopy(small)
    one = trained(layers, task, training, LAYERS, regulariser=copy.deepcopy(regulariser))
    other = trained(graphs, task, training, GRAPHS, regulariser=copy.deepcopy(regulariser))

    assert (one.steps, one.loss, one.images) == (other.steps, other.loss, other.images)
    for name, tensor in tensors_of(layers).items():
        assert torch.equal(tensor, tensors_of(graphs)[name]), name
    return other


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.0},
        {"ema": 0.9},
        {"clip": 0.3},
        {"distill": 0.4},
        {"accumulate": 4},
        {"schedule": "cosine", "warmup": 0.3},
        {"distill": 0.4, "ema": 0.9, "accumulate": 2, "clip": 0.5},
    ],
    ids=str,
)
def test_graphs_train_to_the_same_bits(captures: list[Any], digits: Any, small: nn.Module, changes: Any) -> None:
    assert check_equal(digits, small, replace(PLAIN, **changes)).remark == ""
    assert captures


@pytest.mark.parametrize("regulariser", [Shrinking(), OtherGradients()], ids=lambda it: type(it).__name__)
def test_a_regulariser_acts_between_the_graphs(
    captures: list[Any], digits: Any, small: nn.Module, regulariser: Any
) -> None:
    assert check_equal(digits, small, replace(PLAIN, ema=0.9), regulariser).remark == ""


def test_weights_that_move_end_the_graphs(captures: list[Any], digits: Any, small: nn.Module) -> None:
    remark = check_equal(digits, small, PLAIN, OtherWeights()).remark

    assert remark == "layer by layer from step 3: the shape of batches, or where weights lie, changed"


def test_a_run_of_graphs_is_resumed_to_the_bit(
    captures: list[Any], digits: Any, small: nn.Module, tmp_path: Path
) -> None:
    training = replace(PLAIN, rungs=(0.5,), ema=0.9)
    whole, resumed, by_layers = (copy.deepcopy(small) for _ in range(3))
    trained(whole, digits, training, GRAPHS, on_rung=lambda *_: True)

    stopped = copy.deepcopy(small)
    for file in ("a.pt", "b.pt"):
        trained(copy.deepcopy(stopped), digits, training, GRAPHS, on_rung=lambda *_: False, checkpoint=tmp_path / file)
    trained(resumed, digits, training, GRAPHS, on_rung=lambda *_: True, checkpoint=tmp_path / "a.pt")
    trained(by_layers, digits, training, LAYERS, on_rung=lambda *_: True, checkpoint=tmp_path / "b.pt")

    for name, tensor in tensors_of(whole).items():
        assert torch.equal(tensor, tensors_of(resumed)[name]), name
        assert torch.equal(tensor, tensors_of(by_layers)[name]), name


def test_what_cannot_be_captured_trains_layer_by_layer_and_is_asked_once(
    captures: list[Any], digits: Any, small: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(function: Any, _device: str, put_back: Any) -> Any:
        asked.append(function())
        put_back()
        raise CaptureError("waits for the device: .item()")

    monkeypatch.setattr(captured, "capture", refuse)

    assert check_equal(digits, small, PLAIN).remark == "layer by layer: a step waits for the device: .item()"
    assert len(asked) == 1


def test_batches_of_other_shapes_end_the_graphs(captures: list[Any], digits: Any, small: nn.Module) -> None:
    class Uneven:
        """The digits; in the fifth batch of a pass one image has no label."""

        def __init__(self) -> None:
            self.train = self

        def __getattr__(self, name: str) -> Any:
            return getattr(digits if name != "of_process" else digits.train, name)

        def __len__(self) -> int:
            return len(digits.train)

        def to(self, _device: str) -> Any:
            return self

        def batches(self, *args: Any, **named: Any) -> Any:
            for number, (images, labels) in enumerate(digits.train.batches(*args, **named)):
                yield images, labels[: len(labels) - (number == 4)]

        def loss(self, model: Any, batch: Any, training: Any = None) -> Any:
            images, labels = batch
            return digits.loss(model, (images[: len(labels)], labels), training)

    remark = check_equal(Uneven(), small, PLAIN).remark

    assert remark == "layer by layer from step 4: the shape of batches, or where weights lie, changed"


def test_the_teachers_pass_is_a_graph_too(captures: list[Any], digits: Any, small: nn.Module) -> None:
    trained(small, digits, replace(PLAIN, distill=0.4), GRAPHS)

    assert len(captures) == 3  # the teacher's pass, the gradients, the optimiser's step
