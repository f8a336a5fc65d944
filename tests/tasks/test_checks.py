"""A task that cannot work is refused before a search begins, in one line."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from user_tasks import Net, OwnLosses, TwoHeads, classes, evaluate, images, loss, several

import autoprune as ap
from autoprune.errors import DataError, InputError, ModelError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.tasks.checks import check_drawn_anew, check_task

GOOD = {
    "model": Net,
    "train": TensorDataset(images(), classes()),
    "validation": TensorDataset(images(20), classes(20)),
    "loss": loss,
    "metric": evaluate,
}


def checked(training=None, **changes):
    task = ap.Task(**{**GOOD, **changes})
    check_task(task, task.model(), training)


def test_a_good_task_is_left_as_it_was():
    task = ap.Task(**GOOD)
    model, state = task.model(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_task(task, model, Training(distill=0.0))

    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training


def uncertain(outputs, targets):
    return loss(outputs, targets) * float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": lambda outputs, targets: outputs}, r"the loss is a tensor \(8, 5\); allowed: a scalar"),
        ({"loss": {"name": "CrossEntropyLoss", "reduction": "none"}}, r"the loss is a tensor \(8,\)"),
        ({"loss": lambda outputs, targets: 7.0}, "the loss is a float"),
        ({"loss": uncertain}, "the loss of the dense model is nan"),
        ({"loss": lambda outputs, targets: outputs.argmax().float()}, "the loss has no gradient"),
        (
            {"loss": lambda outputs, targets: torch.ones((), requires_grad=True)},
            "does not depend on the model's weights",
        ),
        ({"loss": lambda outputs, targets: 1 / 0}, "the loss fails: ZeroDivisionError"),
        ({"model": lambda: Net(3)}, "the loss fails: IndexError: Target 3 is out of bounds"),
        ({"loss": "MSELoss"}, "the loss fails: UserWarning: Using a target size"),
        ({"model": lambda: nn.Linear(3, 5)}, "the loss fails: RuntimeError: .*shapes cannot be"),
        ({"metric": {"name": "MultilabelF1Score", "num_labels": 5}}, "metric: MultilabelF1Score cannot use"),
        ({"model": TwoHeads}, "the loss fails: TypeError"),
    ],
)
def test_wrong_tasks_are_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        checked(**changes)

    assert "\n" not in str(caught.value)


def test_a_validation_set_of_another_structure_is_refused():
    with pytest.raises(InputError, match=r"a batch of validation is .*float32 2-d.*; allowed: .*int64 1-d"):
        checked(validation=TensorDataset(images(20), several(20)), metric={"name": "MeanSquaredError"})


def test_what_a_recipe_asks_of_the_loss_is_known_before_training():
    with pytest.raises(InputError, match=r"training\.distill: there is no distance"):
        checked(Training(distill=0.5))
    with pytest.raises(InputError, match=r"training\.label_smoothing"):
        checked(Training(label_smoothing=0.1))
    with pytest.raises(InputError, match=r"training\.label_smoothing: a model that computes its losses itself"):
        checked(Training(label_smoothing=0.1), model=OwnLosses, loss="model")
    checked(Training(distill=0.5, label_smoothing=0.1), loss="CrossEntropyLoss")


class Raw(Net):
    """Holds a weight that no layer draws."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(5))

    def forward(self, x):
        return super().forward(x) * self.scale


def test_from_scratch_weights_are_drawn_anew_or_it_is_refused():
    for model in (Net, Net(), Raw):
        task = ap.Task(**{**GOOD, "model": model})
        check_drawn_anew(task, task.model())
    task = ap.Task(**{**GOOD, "model": Raw()})
    with pytest.raises(ModelError, match="weights: scratch: 'scale' keeps its trained values from scratch"):
        check_drawn_anew(task, task.model())


def test_items_that_raise_are_named():
    with pytest.raises(DataError, match="item 3 of the validation data: IndexError"):
        checked(validation=Torn())


class Torn:
    """A data set that says it has more items than it has."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return [(image, 1) for image in images(3)][index]


def test_built_in_tasks_pass():
    task = load_task({"data": {"name": "digits"}, "model": {"name": "digits_net", "train": {"images": 0}}})
    check_task(task, task.model(), Training(distill=0.5, label_smoothing=0.1))
