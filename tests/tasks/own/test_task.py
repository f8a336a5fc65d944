"""Tasks made of users' loaders, loss and metric, from a mapping and from objects."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from user_tasks import SPEC, Net, OwnLosses, TwoHeads, classes, evaluate, images, loss, train_loader, val_loader

import autoprune as ap
from autoprune.errors import DataError, InputError
from autoprune.tasks import Task, load_task
from autoprune.training.evaluate import evaluate as measure
from autoprune.training.runtime import Runtime

#: What a study says of the objects.
GIVEN = {
    "kind": "python",
    "model": {"name": "Net"},
    "data": {"name": "TensorDataset"},
    "loss": "loss",
    "metric": "evaluate",
}


def objects(**changes):
    given = {"model": Net, "train": train_loader(), "validation": val_loader(), "loss": loss, "metric": evaluate}
    return ap.Task(**{**given, **changes})


def first_batch(task):
    return next(task.train.batches(torch.arange(8), 8))


def test_a_mapping_with_loss_and_metric_is_a_task_of_the_users_own():
    task = load_task(SPEC)

    assert (40, 30, 20) == (len(task.train), len(task.validation), len(task.test))
    assert SPEC == task.spec
    assert 16 == task.images_per_pass
    assert "evaluate" == task.metric_spec.name
    assert (1, 1, 7, 7) == tuple(task.example()[0].shape)
    assert {} == task.input_facts()


def test_objects_give_the_same_numbers_as_references():
    named, given = load_task(SPEC), objects()
    model = named.model()

    assert torch.equal(named.loss(model, first_batch(named)).value, given.loss(model, first_batch(given)).value)
    assert measure(model, named.validation, named, Runtime()) == measure(model, given.validation, given, Runtime())
    assert isinstance(given, Task)
    assert GIVEN == given.spec
    assert given.test is None


def test_networks_of_our_own_by_name():
    model = {"name": "digits_net", "arguments": {"num_classes": 7}, "train": {"images": 0}}
    task = load_task({**SPEC, "model": model})

    assert (1, 7) == tuple(task.model()(*task.example()).shape)
    with pytest.raises(InputError, match="how many outputs has digits_net"):
        load_task({**SPEC, "model": {**model, "arguments": {}}}).model()


def test_a_network_is_trained_once_and_found_again(data_folder):
    model = {"factory": "user_tasks:build", "train": {"images": 800, "batch_size": 8, "lr": 0.05}}
    task = load_task({**SPEC, "model": model})

    trained, again = task.model(), load_task({**SPEC, "model": model}).model()

    assert measure(trained, task.validation, task, Runtime()) > 0.8
    assert torch.equal(trained.conv1.weight, again.conv1.weight)


def test_mappings_as_batches_and_several_inputs():
    items = [{"image": x, "label": y} for x, y in zip(images(), classes(), strict=True)]
    task = objects(train=items, validation=items, inputs="image")
    pair = TensorDataset(images(), images(), classes())
    two = objects(
        model=Sum,
        train=[((x, y), label) for x, y, label in pair],
        validation=[((x, y), label) for x, y, label in pair],
    )

    assert torch.isfinite(task.loss(task.model(), first_batch(task)).value)
    assert 2 == len(two.example())
    assert torch.isfinite(two.loss(two.model(), first_batch(two)).value)


class Sum(Net):
    """Takes two images."""

    def forward(self, x, y):
        return super().forward(x + y)


def test_two_outputs_reach_the_users_loss_and_metric():
    def both(outputs, targets):
        scores, values = outputs
        return nn.functional.cross_entropy(scores, targets) + values.square().mean()

    task = objects(model=TwoHeads, loss=both)
    outputs = task.predict(task.model(), first_batch(task))

    assert [(8, 5), (8, 1)] == [tuple(output.shape) for output in outputs]
    assert both(outputs, first_batch(task)[1]).item() == pytest.approx(
        task.loss(task.model(), first_batch(task)).value.item()
    )


def test_a_model_that_returns_its_losses():
    task = objects(model=OwnLosses, loss="model")
    model, batch = task.model().train(), first_batch(task)
    expected = sum(model(*batch).values())

    assert task.loss_while_training
    assert expected.item() == pytest.approx(task.loss(model, batch).value.item())
    assert (8, 5) == tuple(task.predict(model.eval(), batch).shape)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": {"train": "user_tasks:train_loader"}}, InputError, "task.data: missing key 'validation'"),
        ({"data": {**SPEC["data"], "tset": "a:b"}}, InputError, "did you mean 'test'"),
        (
            {"data": {**SPEC["data"], "train": "user_tasks:nothing"}},
            InputError,
            "task.data.train: .*cannot be imported",
        ),
        ({"data": {**SPEC["data"], "train": 7}}, InputError, "task.data.train: 7 names no data"),
        (
            {"data": {**SPEC["data"], "train": {"function": "user_tasks:train_loader", "coutn": 3}}},
            DataError,
            "user_tasks:train_loader cannot be called with coutn",
        ),
        ({"los": "MSELoss"}, InputError, "did you mean 'loss'"),
        ({"loss": "CrossEntropyLos"}, InputError, "task.loss: unknown loss"),
        ({"metric": "Accuracyy"}, InputError, "task.metric: unknown metric"),
        ({"kind": "loaders", "model": {"name": "resnet21"}}, InputError, "task.model.name: unknown model"),
    ],
)
def test_wrong_mappings_say_where(change, error, message):
    with pytest.raises(error, match=message):
        load_task({**SPEC, **change})


def test_arguments_reach_the_users_function():
    data = {**SPEC["data"], "train": {"function": "user_tasks:train_loader", "count": 35}}

    assert 35 == len(load_task({**SPEC, "data": data}).train)


def test_arguments_reach_the_users_class_and_are_refused_where_there_is_nothing_to_call():
    drawn, made = ({"function": f"user_tasks:{name}", "count": 35} for name in ("Drawn", "test_data"))

    assert 35 == len(load_task({**SPEC, "data": {**SPEC["data"], "train": drawn}}).train)
    with pytest.raises(
        InputError, match=r"task\.data\.test: user_tasks:test_data is data already, and takes no 'count'"
    ):
        load_task({**SPEC, "data": {**SPEC["data"], "test": made}})
