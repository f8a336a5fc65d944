"""Every task that is built in, and tasks of users' own, keep the contract of tasks."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from user_tasks import SPEC, Net, OwnLosses, TwoHeads, classes, evaluate, images, several, train_loader

import autoprune as ap
from autoprune.tasks import Task, load_task
from autoprune.tasks.own.loaders import LoaderSplit
from autoprune.testing import TaskContract


class TestDigits(TaskContract):
    """Classification, resident in memory, augmented."""

    def make_task(self) -> Task:
        data = {"name": "digits", "augment": ["crop"]}
        return load_task({"data": data, "model": {"name": "digits_net", "train": {"images": 0}}})


class TestMixedDigits(TaskContract):
    """Classification with all that a space file can ask of its images."""

    def make_task(self) -> Task:
        data = {"name": "digits", "augment": ["crop", "flip", "trivial_augment", "rand_augment", "mixup", "cutmix"]}
        return load_task({"data": data, "model": {"name": "digits_net", "train": {"images": 0}}})


SCENES = {"name": "digit_scenes", "arguments": {"size": 32, "train": 24, "validation": 7, "test": 5, "most": 2}}


class TestSegmentation(TaskContract):
    """A class per pixel."""

    def make_task(self) -> Task:
        model = {"name": "unet", "arguments": {"widths": [7, 11]}, "train": {"images": 0}}
        return load_task({"kind": "segmentation", "data": SCENES, "model": model})


class TestDetection(TaskContract):
    """Lists of images and boxes, losses by the network."""

    def make_task(self) -> Task:
        small = {"widths": [7, 11], "pyramid": 13, "anchors": [8, 16]}
        model = {"name": "small_retinanet", "arguments": small, "train": {"images": 0}}
        return load_task({"kind": "detection", "data": SCENES, "model": model})


class TestReferences(TaskContract):
    """A user's loaders by name, with a sampler, a plain loss and a function as metric."""

    def make_task(self) -> Task:
        return load_task(SPEC)


class TestOwnClasses(TaskContract):
    """Classification of a user's loaders, of which only the number of classes is said."""

    def make_task(self) -> Task:
        data = {**SPEC["data"], "num_classes": 5}
        return load_task({"kind": "classification", "data": data, "model": SPEC["model"]})


class TestLabels(TaskContract):
    """Several labels per image, mappings as batches, torchmetrics."""

    def make_task(self) -> Task:
        train, validation = (
            [{"image": x, "labels": y} for x, y in zip(images(20, seed), several(20), strict=True)] for seed in (0, 1)
        )
        return ap.Task(
            model=Net(),
            train=train,
            validation=validation,
            inputs="image",
            loss="BCEWithLogitsLoss",
            metric={"name": "MultilabelF1Score", "num_labels": 5},
        )


class TestTwoOutputs(TaskContract):
    """A network with two outputs, and a loss that takes both."""

    def make_task(self) -> Task:
        return ap.Task(
            model=TwoHeads,
            train=TensorDataset(images(20), classes(20)),
            validation=TensorDataset(images(20, 1), classes(20)),
            loss=lambda outputs, targets: outputs[0].logsumexp(1).mean() + (outputs[1][:, 0] - targets).square().mean(),
            metric={"function": lambda model, loader: sum(model(x)[1].mean().item() for x, _ in loader), "best": 100},
        )


class TestOwnLosses(TaskContract):
    """A network that returns its losses in training mode."""

    def make_task(self) -> Task:
        return ap.Task(
            model=OwnLosses,
            train=TensorDataset(images(20), classes(20)),
            validation=TensorDataset(images(20, 1), classes(20)),
            loss="model",
            metric=evaluate,
        )


class TestImages(TaskContract):
    """Images in, images of twice the size out."""

    def make_task(self) -> Task:
        def upscale() -> nn.Module:
            return nn.Sequential(nn.Conv2d(1, 13, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(13, 1, 2, stride=2))

        train, validation = (TensorDataset(images(12, seed), images(12, seed).repeat(1, 1, 2, 2)) for seed in (0, 1))
        metric = {"name": "StructuralSimilarityIndexMeasure", "data_range": [0, 2]}
        return ap.Task(model=upscale, train=train, validation=validation, loss="L1Loss", metric=metric)


CALLS = itertools.count()


class Restless(LoaderSplit):
    """A split that breaks the contract: each time other images, and a number of the caller's is gone."""

    def batches(self, order: Tensor, batch_size: int, **options: Any) -> Iterator[Any]:
        """In another order than the last time."""
        torch.rand(1)
        return super().batches(order.roll(next(CALLS)), batch_size, **options)


def test_the_contract_fails_where_a_task_breaks_it() -> None:
    task = TestReferences().make_task()
    broken = copy.copy(task)
    object.__setattr__(broken, "train", Restless.of(train_loader(), "train", "train"))

    TestReferences().test_the_same_seed_gives_the_same_batches(task)
    with pytest.raises(AssertionError):
        TestReferences().test_the_same_seed_gives_the_same_batches(broken)
    with pytest.raises(AssertionError):
        TestReferences().test_the_caller_s_random_numbers_are_not_drawn(broken)
