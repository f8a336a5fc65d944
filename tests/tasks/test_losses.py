"""Losses by name, reference and object, and how far outputs are from a teacher's."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import InputError, ModelError
from autoprune.recipe import Training
from autoprune.tasks.losses import read_loss, total_loss
from autoprune.training.distillation import distillation

LOGITS = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 0.25]])
LABELS = torch.tensor([2, 1])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("CrossEntropyLoss", F.cross_entropy(LOGITS, LABELS)),
        ("cross_entropy", F.cross_entropy(LOGITS, LABELS)),
        ("user_tasks:loss", F.cross_entropy(LOGITS, LABELS)),
        (nn.CrossEntropyLoss(), F.cross_entropy(LOGITS, LABELS)),
        (
            {"name": "CrossEntropyLoss", "weight": [1.0, 3.0, 5.0]},
            F.cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 3.0, 5.0])),
        ),
        ({"name": "cross_entropy", "label_smoothing": 0.3}, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.3)),
        ({"function": "user_tasks:loss"}, F.cross_entropy(LOGITS, LABELS)),
        (lambda outputs, targets: outputs.sum() * targets.sum(), LOGITS.sum() * 3),
    ],
)
def test_losses_are_found(spec, expected):
    torch.testing.assert_close(read_loss(spec, "loss").of(LOGITS.double(), LABELS, None), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("CrossEntropy", "unknown loss 'CrossEntropy'"),
        ("Linear", "unknown loss"),
        ({"name": "CrossEntropyLoss", "wieght": [1.0]}, "CrossEntropyLoss refuses its arguments.*wieght"),
        ({"weight": [1.0]}, "missing key 'name'"),
        ("user_tasks:nothing", "cannot be imported"),
        ("user_tasks:CLASSES", "a int is no loss"),
        (7, "a int is no loss"),
    ],
)
def test_what_is_no_loss_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        read_loss(spec, "task.loss")


def test_label_smoothing_of_a_recipe_reaches_cross_entropy_and_nothing_else():
    weight = [1.0, 3.0, 5.0]
    loss = read_loss({"name": "CrossEntropyLoss", "weight": weight}, "loss")
    expected = F.cross_entropy(LOGITS, LABELS, torch.tensor(weight), label_smoothing=0.1)

    assert torch.equal(expected, loss.of(LOGITS, LABELS, Training(label_smoothing=0.1)))
    with pytest.raises(InputError, match=r"training\.label_smoothing: MSELoss has no labels to smooth"):
        read_loss("MSELoss", "loss").of(LOGITS, LOGITS, Training(label_smoothing=0.1))


def test_the_distance_to_a_teacher_fits_the_loss():
    taught = LOGITS.roll(1, 0)
    by_class, by_label = read_loss("CrossEntropyLoss", "loss"), read_loss("BCEWithLogitsLoss", "loss")
    two_classes = [torch.stack([values, torch.zeros_like(values)], -1).flatten(0, 1) for values in (LOGITS, taught)]

    torch.testing.assert_close(by_class.distance(LOGITS, taught, 3.0), distillation(LOGITS, taught, 3.0))
    torch.testing.assert_close(by_label.distance(LOGITS, taught, 3.0), distillation(*two_classes, 3.0))
    assert torch.equal(F.mse_loss(LOGITS, taught), read_loss("MSELoss", "loss").distance(LOGITS, taught, 3.0))


def test_maps_are_distilled_pixel_by_pixel():
    student, teacher = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    flat = [maps.movedim(1, -1).reshape(-1, 3) for maps in (student, teacher)]
    found = read_loss("CrossEntropyLoss", "loss").distance(student, teacher, 2.0)

    torch.testing.assert_close(found, distillation(*flat, 2.0))


@pytest.mark.parametrize(("spec", "outputs"), [("user_tasks:loss", LOGITS), ("CrossEntropyLoss", (LOGITS, LOGITS))])
def test_where_there_is_no_distance_to_a_teacher_it_is_refused(spec, outputs):
    with pytest.raises(InputError, match=r"training\.distill: there is no distance to a teacher for") as caught:
        read_loss(spec, "loss").distance(outputs, outputs, 4.0)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "losses",
    [
        {"classes": torch.tensor(2.0), "boxes": torch.tensor([1.0, 5.0])},
        {"loss": torch.tensor(5.0), "logits": LOGITS},
        SimpleNamespace(loss=torch.tensor(5.0)),
        torch.tensor(5.0),
    ],
)
def test_losses_of_a_model_are_added(losses):
    assert 5.0 == total_loss(losses).item()


@pytest.mark.parametrize("losses", [{}, [torch.tensor(5.0)], {"classes": 2.0}])
def test_other_things_that_a_model_returns_are_refused(losses):
    with pytest.raises(ModelError, match="in training the model returns a"):
        total_loss(losses)
