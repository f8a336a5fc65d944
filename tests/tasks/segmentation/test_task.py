"""The segmentation task: its parts belong together, from the mapping to the metric."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import InputError, ModelError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.tasks.segmentation.task import Segmentation
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime

SCENES = {"size": 32, "train": 24, "validation": 7, "test": 5, "most": 2}
UNTRAINED = {"name": "unet", "arguments": {"widths": [7, 11]}, "train": {"images": 0}}


def task_of(**fields: Any) -> Segmentation:
    mapping = {"kind": "segmentation", "data": {"name": "digit_scenes", "arguments": SCENES}, "model": UNTRAINED}
    task = load_task({**mapping, **fields})
    assert isinstance(task, Segmentation)
    return task


class TwoOutputs(nn.Module):
    """As torchvision's networks: a mapping, with an auxiliary output in training."""

    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, classes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.head(x)
        return {"out": out, "aux": 3 * out} if self.training else {"out": out}


def test_logits_loss_and_metric_fit_together() -> None:
    task = task_of(loss={"cross_entropy": 1, "dice": 0.5})
    model, batch = task.model(), next(task.train.batches(torch.arange(3), 3))

    loss = task.loss(model, batch)

    assert loss.outputs.shape == (3, 11, 32, 32)
    assert torch.equal(task.predict(model, batch), loss.outputs)
    assert loss.value.item() == pytest.approx(task.loss_spec.of(loss.outputs, batch[1], 0.0).item())
    assert 0 <= evaluate(model, task.validation, task, Runtime()) <= 1
    assert task.metric_spec.name == "mIoU"


def test_label_smoothing_of_a_recipe_is_used() -> None:
    task = task_of()
    model, batch = task.model(), next(task.train.batches(torch.arange(3), 3))
    plain, smooth = (task.loss(model, batch, how).value.item() for how in (None, Training(label_smoothing=0.3)))

    logits = task.predict(model, batch)
    assert smooth == pytest.approx(task.loss_spec.of(logits, batch[1], 0.3).item())
    assert smooth != pytest.approx(plain)


def test_an_auxiliary_output_adds_its_share_in_training() -> None:
    task, model = task_of(loss={"auxiliary": 0.25}), TwoOutputs()
    batch = next(task.train.batches(torch.arange(3), 3))
    logits = model(batch[0])["out"]
    out, aux = (task.loss_spec.of(factor * logits, batch[1], 0.0).item() for factor in (1, 3))

    assert task.loss(model.train(), batch).value.item() == pytest.approx(out + 0.25 * aux)
    assert task.loss(model.eval(), batch).value.item() == pytest.approx(out)
    assert torch.equal(task.predict(model, batch), logits)


def test_distillation_is_that_of_classifiers_mean_over_pixels() -> None:
    task, (student, teacher) = task_of(), torch.randn(2, 1, 11, 3, 2)
    pixels = [(row, column) for row in range(3) for column in range(2)]

    found = task.distillation(student, teacher, 3.0)

    p, q = (torch.log_softmax(logits[0] / 3, 0) for logits in (teacher, student))
    by_hand = sum((p[:, r, c].exp() * (p - q)[:, r, c]).sum() for r, c in pixels) * 9 / 6
    assert found.item() == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "torchvision/lraspp_mobilenet_v3_large"])
def test_torchvisions_networks_go_by_name(name: str) -> None:
    scenes = {**SCENES, "size": 64, "channels": 3}
    data = {"name": "digit_scenes", "arguments": scenes}

    task = task_of(data=data, model={"name": name, "train": {"images": 0}})

    assert task.predict(task.model(), next(task.train.batches(torch.arange(2), 2))).shape == (2, 11, 64, 64)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metric": "accuracy"}, "unknown metric 'accuracy'; allowed: dice, miou"),
        ({"loss": {"focal": 1}}, "focal"),
        ({"loss": {"cross_entropy": 0}}, "a loss of nothing"),
        ({"model": {"name": "resnet20"}}, "unknown model 'resnet20'"),
        ({"model": {"name": "unet"}}, "no trained weights for unet"),
        ({"model": {**UNTRAINED, "arguments": {"depth": 3}}}, "unet cannot be built"),
        ({"model": {"factory": "torch.nn:Identity", "train": {"images": 0}}}, r"returns \(2, 1, 32, 32\)"),
        ({"sizes": 3}, "unknown key 'sizes'"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        task_of(**fields).model()


def test_a_network_of_another_kind_is_refused() -> None:
    model = {"factory": "torch.nn:LSTM", "arguments": {"input_size": 32, "hidden_size": 3}, "train": {"images": 0}}

    with pytest.raises(ModelError, match=r"cannot run on 1x32x32 images|returns a tuple"):
        task_of(model=model).model()


def test_the_loss_decides_the_cached_weights() -> None:
    trained = {**UNTRAINED, "train": {"images": 24, "batch_size": 8, "lr": 0.1}}
    one, again, other = (
        task_of(model=trained, loss=loss).model() for loss in ({}, {"cross_entropy": 1.0}, {"dice": 1.0})
    )

    weights = [net.classifier.weight for net in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
