"""Classification of users' own datasets: how many classes there are, which labels fit, and what need not be said."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate
from torchvision.transforms import v2
from user_tasks import CLASSES, Net, classes, images, several

from autoprune.errors import DataError, InputError
from autoprune.recipe import Training
from autoprune.study.metric import ACCURACY
from autoprune.tasks import load_task
from autoprune.tasks.checks import check_task
from autoprune.tasks.classification import Classification
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime

NAMES = ["ant", "cat", "eel", "newt", "otter"]


class Named(Dataset[tuple[Tensor, int]]):
    """Says its classes, as torchvision's datasets do."""

    def __init__(self, count: int = 40, seed: int = 0, names: Any = NAMES) -> None:
        self.images, self.classes = images(count, seed), names

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index % CLASSES


def mixing_loader() -> DataLoader[Any]:
    """Mixes images in its collate function, as torchvision's documentation shows it."""
    cutmix = v2.CutMix(num_classes=CLASSES)
    return DataLoader(Named(), batch_size=8, collate_fn=lambda items: cutmix(*default_collate(items)))


def labelled(labels: Tensor) -> TensorDataset:
    return TensorDataset(images(len(labels)), labels)


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's module."""
    module: Any = types.ModuleType("mine")
    module.named, module.build, module.mixing = Named, Net, mixing_loader
    module.train, module.validation = Named(), Subset(Named(30, 1), range(7, 30))
    module.loader = lambda batch_size: DataLoader(module.validation, batch_size=batch_size)
    module.plain = labelled(classes(40))
    module.labels = TensorDataset(images(40), several(40).double())
    module.keyed = [{"image": x, "label": y} for x, y in Named()]
    module.other = Named(names=[*NAMES[:4], "owl"])
    module.unnamed = Named(names=7)
    module.far, module.below = labelled(classes(40) + 2), labelled(classes(40) - 1)
    module.bytes = labelled(classes(40).to(torch.uint8))
    module.columns, module.values = labelled(several(40).long()), labelled(classes(40).float())
    module.text = [(x, NAMES[y]) for x, y in Named()]
    module.pairs = [((x, x), y) for x, y in Named()]
    module.wide = TensorDataset(images(40), torch.ones(40, 3))
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def task_of(data: dict[str, Any] | None = None, **changes: Any) -> Classification:
    found = {"train": "mine:train", "validation": "mine:validation", **(data or {})}
    task = load_task({"kind": "classification", "data": found, "model": {"factory": "mine:build"}, **changes})
    assert isinstance(task, Classification)
    return task


def use_data(data: dict[str, Any]) -> None:
    """As a search does: one item, then several."""
    task = task_of(data)
    task.example()
    next(task.train.batches(torch.arange(8), 8))


def test_datasets_that_say_their_classes_need_nothing_else() -> None:
    task = task_of()
    inputs, labels = next(task.train.batches(torch.tensor([3, 11]), 2))

    assert task.num_classes == 5
    assert task.metric_spec == ACCURACY
    assert labels.tolist() == [3, 1]
    assert torch.equal(inputs, images(40)[[3, 11]])
    assert (len(task.train), len(task.validation), task.test) == (40, 23, None)
    assert task.input_facts() == {}
    model = task.model()
    torch.testing.assert_close(task.loss(model, (inputs, labels)).value, F.cross_entropy(model(inputs), labels))
    check_task(task, model, Training(label_smoothing=0.1, distill=0.5))


def test_a_network_by_name_has_as_many_outputs_as_there_are_classes() -> None:
    model = {"name": "digits_net", "train": {"images": 0}}
    task = task_of({"train": "mine:plain", "num_classes": 11.0}, model=model)

    assert tuple(task.model()(*task.example()).shape) == (1, 11)


def test_the_loss_and_the_metric_that_are_named() -> None:
    loss, metric = {"name": "CrossEntropyLoss", "weight": [1.0, 3, 5, 7, 9]}, {"name": "MulticlassAccuracy", "top_k": 2}
    task = task_of(loss=loss, metric=metric)
    model, (inputs, labels) = task.model(), next(task.train.batches(torch.arange(7), 7))
    expected = F.cross_entropy(model(inputs), labels, torch.tensor([1.0, 3, 5, 7, 9]))

    torch.testing.assert_close(task.loss(model, (inputs, labels)).value, expected)
    assert task.metric_spec.name == "MulticlassAccuracy"
    check_task(task, model)


def test_several_labels_per_image() -> None:
    both = {"train": "mine:labels", "validation": "mine:labels"}
    task = task_of(both, metric="MultilabelF1Score")
    model, (inputs, labels) = task.model(), next(task.train.batches(torch.arange(7), 7))
    expected = F.binary_cross_entropy_with_logits(model(inputs), several(7))

    assert task.num_classes == 5
    assert torch.equal(labels, several(7))
    torch.testing.assert_close(task.loss(model, (inputs, labels)).value, expected)
    check_task(task, model)
    with pytest.raises(InputError, match=r"task\.metric: images with several labels have no accuracy"):
        task_of(both)
    with pytest.raises(InputError, match=r"task\.data\.num_classes: images have 5 labels, not 7"):
        task_of({**both, "num_classes": 7}, metric="MultilabelF1Score")


def test_a_loader_that_mixes_its_images_gives_shares_of_classes() -> None:
    task = task_of({"train": "mine:mixing"})
    model = task.model()
    check_task(task, model)
    inputs, shares = next(task.train.batches(torch.arange(8), 8, seed=3))
    fit(model, task, Training(images=16, batch_size=8), Runtime(channels_last=True), images=16, seed=5)

    assert shares.shape == (8, 5)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    torch.testing.assert_close(
        task.loss(model, (inputs, shares)).value, -(shares * model(inputs).log_softmax(1)).sum(1).mean()
    )


def test_mappings_as_batches_and_labels_of_small_types() -> None:
    keyed = task_of({"train": "mine:keyed", "validation": "mine:keyed", "inputs": "image", "num_classes": 5})
    small = task_of({"train": "mine:bytes", "num_classes": 5})

    assert next(keyed.train.batches(torch.tensor([3]), 1))[1].tolist() == [3]
    assert next(small.train.batches(torch.tensor([3]), 1))[1].dtype == torch.int64


def test_how_many_images_fit_into_a_pass() -> None:
    loader = {"function": "mine:loader", "batch_size": 11}

    assert task_of({"validation": loader}).images_per_pass == 11
    assert task_of({"validation": loader, "images_per_pass": 7}).images_per_pass == 7
    assert task_of().images_per_pass == 128


def test_weights_are_trained_once_for_the_same_data(data_folder: Any) -> None:
    model = {"factory": "mine:build", "train": {"images": 80, "batch_size": 8, "lr": 0.05}}
    before = set((data_folder / "trained").glob("*"))
    first, again = task_of(model=model).model(), task_of(model=model).model()
    other = task_of({"train": {"function": "mine:named", "seed": 3}}, model=model).model()

    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert len(set((data_folder / "trained").glob("*")) - before) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"augment": ["flip"]}, r"task\.data: 'augment' means nothing to datasets of your own; allowed: transforms"),
        ({"mean": [0.5]}, "'mean' means nothing to datasets of your own; allowed: transforms"),
        ({"splits": {"train": "train"}}, "'splits' means nothing.*allowed: a dataset for each split"),
        ({"num_classses": 5}, "did you mean 'num_classes'"),
        ({"num_classes": "five"}, r"task\.data\.num_classes: expected a whole number"),
        ({"num_classes": 0}, r"task\.data\.num_classes: 0 is out of range"),
        ({"images_per_pass": 0}, r"task\.data\.images_per_pass: 0 is out of range"),
        ({"train": "mine:plain"}, r"task\.data\.num_classes: how many classes are there\?"),
        ({"train": "mine:unnamed"}, "how many classes are there"),
        ({"validation": "mine:other"}, "the validation data: other classes than train"),
        ({"train": "mine:keyed", "num_classes": 5}, "a batch is a mapping with the keys image, label"),
        ({"train": "mine:far", "num_classes": 5}, "the train data: a label is 5; allowed: 0 to 4"),
        ({"train": "mine:below", "num_classes": 5}, "the train data: a label is -1; allowed: 0 to 4"),
        ({"train": "mine:columns", "num_classes": 5}, r"labels are int64 2-d \(1, 5\); allowed: whole numbers \(B,\)"),
        ({"train": "mine:values", "num_classes": 5}, r"labels are float32 1-d \(1,\)"),
        ({"train": "mine:text", "num_classes": 5}, r"labels are \(str.*; allowed: whole numbers"),
        ({"train": "mine:wide", "num_classes": 5}, r"labels are float32 2-d \(1, 3\)"),
        ({"train": "mine:pairs", "num_classes": 5}, r"the inputs are \(float32 4-d, float32 4-d\)"),
        ({"validation": "mine:labels"}, r"images with several labels have no accuracy"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, DataError), match=message) as caught:
        use_data(data)

    assert "\n" not in str(caught.value)


def test_several_labels_are_as_many_in_each_batch() -> None:
    task = task_of({"train": "mine:wide", "validation": "mine:labels"}, metric="MultilabelF1Score")

    with pytest.raises(DataError, match=r"labels are float32 2-d \(1, 3\); allowed: floating-point \(B, 5\)"):
        task.model()
