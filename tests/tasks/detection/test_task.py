"""The detection task: its parts belong together, from the mapping to the metric."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import InputError, ModelError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.tasks.detection.task import Detection
from autoprune.training.evaluate import evaluate
from autoprune.training.loss_mode import asked_for_losses
from autoprune.training.runtime import Runtime

SCENES = {"size": 32, "train": 24, "validation": 7, "test": 5, "most": 2}
SMALL = {"widths": [7, 11], "pyramid": 13, "anchors": [8, 16]}
UNTRAINED = {"name": "small_retinanet", "arguments": SMALL, "train": {"images": 0}}


def task_of(**fields: Any) -> Detection:
    mapping = {"kind": "detection", "data": {"name": "digit_scenes", "arguments": SCENES}, "model": UNTRAINED}
    task = load_task({**mapping, **fields})
    assert isinstance(task, Detection)
    return task


class Finds(nn.Module):
    """Finds what it is told, and has the losses it is told."""

    def __init__(self, found: Any, losses: Any = None) -> None:
        super().__init__()
        self.layer, self.found = nn.Conv2d(1, 1, 1), found
        self.losses = {"a": 3.0, "b": 4.0} if losses is None else losses

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        if self.training:
            self.targets = targets
            losses = self.losses if targets is not None else 1 / 0
            return {name: torch.tensor(value) for name, value in losses.items()}
        return [self.found for _ in images]


NOTHING = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}


def finds_a_tensor() -> nn.Module:
    return Finds(torch.zeros(3))


def finds_no_scores() -> nn.Module:
    return Finds({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)})


def has_no_losses() -> nn.Module:
    return Finds(NOTHING, losses=3)


def has_an_infinite_loss() -> nn.Module:
    return Finds(NOTHING, losses={"a": float("inf")})


def test_boxes_losses_and_metric_fit_together() -> None:
    task = task_of()
    model, batch = task.model(), next(iter(task.train.batches(torch.arange(3), 3)))

    with asked_for_losses(model):
        loss = task.loss(model, batch)

    assert sorted(loss.outputs) == ["bbox_regression", "classification"]
    assert loss.value.item() == pytest.approx(sum(value.item() for value in loss.outputs.values()))
    assert not model.training
    assert len(task.predict(model, batch)) == 3
    assert 0 <= evaluate(model, task.validation, task, Runtime()) <= 1
    assert task.metric_spec.name == "mAP"


def test_what_is_ignored_is_not_learnt_from() -> None:
    task, model = task_of(), Finds(NOTHING)
    images, (target, *_) = next(iter(task.train.batches(torch.arange(1), 1)))
    crowd = {name: torch.cat([values, values]) for name, values in target.items()}
    crowd["iscrowd"] = torch.tensor([0] * len(target["labels"]) + [1] * len(target["labels"]))

    loss = task.loss(model.train(), (images, [crowd]))

    assert loss.value.item() == 7
    assert model.targets is not None
    assert torch.equal(model.targets[0]["boxes"], target["boxes"])
    assert sorted(model.targets[0]) == ["boxes", "labels"]


def test_a_detector_that_finds_what_was_pasted_has_all_of_the_metric() -> None:
    task = task_of()
    metric = task.metric()
    for images, targets in task.test.batches(torch.arange(5), 2):
        found = [
            {"boxes": one["boxes"], "labels": one["labels"], "scores": torch.ones(len(one["labels"]))}
            for one in targets
        ]
        metric.update(found, (images, targets))

    assert metric.value() == pytest.approx(1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metric": "accuracy"}, "unknown metric 'accuracy'; allowed: map, map_50, map_75"),
        ({"model": {"name": "resnet20"}}, "unknown model 'resnet20'"),
        ({"model": {"name": "small_retinanet"}}, "no trained weights for small_retinanet"),
        ({"model": {**UNTRAINED, "arguments": {**SMALL, "anchors": [8]}}}, "1 anchors for 2 stages"),
        ({"loss": {}}, "unknown key 'loss'"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        task_of(**fields).model()


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("finds_a_tensor", "in eval mode a list of mappings with boxes, scores, labels"),
        ("finds_no_scores", "in eval mode a list of mappings with boxes, scores, labels"),
        ("has_no_losses", "no losses in training mode: AttributeError"),
        ("has_an_infinite_loss", "the loss of two images is inf; allowed: a finite number"),
    ],
)
def test_a_network_of_another_convention_is_refused_before_it_is_trained(
    factory: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(model={"factory": "some:network", "train": {"images": 0}})
    monkeypatch.setattr("autoprune.tasks.dense_model.load_function", lambda *_: globals()[factory])

    with pytest.raises(ModelError, match=words):
        task.model()


def test_detectors_are_not_distilled() -> None:
    with pytest.raises(InputError, match=r"training\.distill: detectors are not distilled; allowed: 0"):
        task_of().distillation({}, [], 4.0)


def test_labels_of_detectors_are_not_smoothed() -> None:
    task = task_of()
    batch = next(task.train.batches(torch.arange(2), 2))
    with pytest.raises(InputError, match=r"training\.label_smoothing: a detector computes its losses itself .* 0"):
        task.loss(Finds(NOTHING).train(), batch, Training(images=2, label_smoothing=0.1))


def test_augmentation_decides_the_cached_weights() -> None:
    trained = {**UNTRAINED, "train": {"images": 16, "batch_size": 8, "lr": 0.01}}
    data = {"name": "digit_scenes", "arguments": SCENES}
    one, again, other = (
        task_of(model=trained, data={**data, "augment": augment}).model() for augment in ([], [], ["scale"])
    )

    weights = [net.head.classification_head.cls_logits.weight for net in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
