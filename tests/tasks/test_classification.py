"""load_task, models of the user's own, checkpoints, and training the dense model when there is none."""

import sys
import types
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from autoprune.errors import InputError, ModelError
from autoprune.recipe import Training
from autoprune.study.metric import ACCURACY
from autoprune.tasks import load_task
from autoprune.tasks.checks import check_task


class Tiny(nn.Module):
    """A factory's model for digits."""

    def __init__(self, width=7, classes=10):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x):
        return self.linear(self.norm(self.conv(x)).mean((2, 3)))


class AsDict(Tiny):
    def forward(self, x):
        return {"logits": super().forward(x)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    module = types.ModuleType("user_model")
    module.build, module.as_dict, module.text, module.five = Tiny, AsDict, lambda: "text", lambda: Tiny(5).conv
    monkeypatch.setitem(sys.modules, "user_model", module)
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path))
    return tmp_path


def task_with(**model):
    return load_task({"kind": "classification", "data": {"name": "digits"}, "model": model})


def state(width=7):
    return {name: tensor.clone() for name, tensor in Tiny(width).state_dict().items()}


def test_build_gives_the_same_dense_model_every_time_and_spares_the_random_state():
    task = task_with(factory="user_model:build", arguments={"width": 11})
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    first, second = task.build(), task.build()

    assert torch.equal(expected, torch.rand(1))
    assert torch.equal(first.conv.weight, second.conv.weight)
    assert first.conv.weight.data_ptr() != second.conv.weight.data_ptr()
    assert not first.training


def test_example_is_the_first_training_image():
    task = task_with(name="digits_net")

    image = task.train.images[:1].float().permute(0, 3, 1, 2) / 255
    expected = (image - task.train.pixels.mean[0]) / task.train.pixels.std[0]

    torch.testing.assert_close(task.example(), (expected,), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_torch_checkpoints(folder, wrap):
    tensors = state()
    torch.save(wrap({f"module.{name}": tensor for name, tensor in tensors.items()}), folder / "tiny.pt")

    model = task_with(factory="user_model:build", checkpoint="tiny.pt").model()

    assert torch.equal(tensors["conv.weight"], model.conv.weight)
    assert not model.training


def test_safetensors_without_batch_counters(folder):
    tensors = state()
    del tensors["norm.num_batches_tracked"]
    save_file(tensors, folder / "tiny.safetensors")

    model = task_with(factory="user_model:build", checkpoint=str(folder / "tiny.safetensors")).model()

    assert torch.equal(tensors["norm.weight"], model.norm.weight)


def damaged(change):
    tensors = state()
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update({"conv.weight": torch.zeros(5, 1, 3, 3)}),
            r"'conv.weight' is \(5, 1, 3, 3\).*\(7, 1, 3, 3\)",
        ),
        (lambda t: t.pop("linear.bias"), "no tensor 'linear.bias'"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "'extra' is not in the model"),
        (lambda t: t["norm.weight"].fill_(float("nan")), "'norm.weight' holds NaN"),
        (lambda t: t["norm.running_var"].fill_(float("inf")), "'norm.running_var' holds NaN or infinity"),
    ],
)
def test_checkpoints_that_do_not_fit_name_file_and_tensor(folder, change, message):
    save_file(damaged(change), folder / "bad.safetensors")

    with pytest.raises(ModelError, match=message) as caught:
        task_with(factory="user_model:build", checkpoint="bad.safetensors").model()

    assert "bad.safetensors" in str(caught.value)


def test_checkpoints_that_cannot_be_read(folder):
    (folder / "noise.safetensors").write_bytes(b"noise" * 9)
    (folder / "noise.pt").write_bytes(b"noise" * 9)
    torch.save(Tiny(), folder / "pickle.pt")
    torch.save([torch.zeros(3)], folder / "list.pt")

    for name, message in [
        ("noise.safetensors", "not readable as safetensors"),
        ("noise.pt", "no file of torch"),
        ("list.pt", "holds a list and no tensors by name"),
        ("pickle.pt", r"a pickled \S*test_classification\.Tiny, which would run code; allowed: .*a state dict"),
    ]:
        with pytest.raises(ModelError, match=message):
            task_with(factory="user_model:build", checkpoint=name).model()
    with pytest.raises(ModelError, match=r"no checkpoint 'absent\.pt'"):
        task_with(factory="user_model:build", checkpoint="absent.pt").model()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"factory": "user_model:as_dict"}, "returns a dict"),
        ({"factory": "user_model:text"}, "returns a str"),
        ({"factory": "user_model:five"}, r"returns \(2, 5, 6, 6\)"),
        (
            {"factory": "user_model:build", "arguments": {"depth": 3}},
            "cannot be called with depth: .*for Tiny",
        ),
        ({"name": "resnet20"}, "no trained weights"),
        ({"name": "vgg16_bn", "train": {"images": 0}}, "cannot run on 1x8x8 images"),
    ],
)
def test_models_the_task_cannot_use(model, message):
    task = task_with(**model)

    with pytest.raises(ModelError, match=message):
        task.model()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "clasification"}, "did you mean 'classification'"),
        ({"modle": {}}, "did you mean 'model'"),
        ({"model": {"name": "resnet21"}}, "unknown model"),
        ({"model": {"nam": "resnet20"}}, "task.model"),
        ({"model": {}}, "`name` or `factory`"),
        ({"model": {"name": "digits_net", "checkpoint": "a", "train": {}}}, "not both"),
        ({"model": {"name": "digits_net", "train": {"lr": -1}}}, "task.model.train.lr"),
        ({"model": {"name": "digits_net", "train": {"seed": "x"}}}, "task.model.train.seed"),
        ({"model": {"name": "digits_net", "train": {"distill": 0.5}}}, "no teacher"),
        ({"model": None}, "task.model"),
        ({"data": {"name": "digits", "splits": {"train": "train[5"}}}, "task.data.splits.train"),
    ],
)
def test_wrong_task_mappings_say_where(spec, message):
    with pytest.raises(InputError, match=message):
        load_task({"data": {"name": "digits"}, "model": {"name": "digits_net"}, **spec})


def test_loss_is_smoothed_cross_entropy():
    task = task_with(name="digits_net")
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    loss, outputs = task.loss(lambda inputs: inputs, (logits, torch.tensor([0])), Training(label_smoothing=0.1))

    # -(0.9 ln 0.5 + 0.1 / 3 (ln 0.5 + 2 ln 0.25))
    assert pytest.approx(0.9 * 0.693147 + 0.1 / 3 * 5 * 0.693147, abs=1e-5) == loss.item()
    assert outputs is logits


def test_accuracy_is_the_share_of_images_whose_largest_logit_is_the_labels():
    metric = task_with(name="digits_net").metric()
    metric.update(torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]]), (None, torch.tensor([1, 2])))
    metric.update(torch.tensor([[0.0, 0.0, 9.0]]), (None, torch.tensor([2])))

    assert 2 / 3 == metric.value()


def test_dense_model_is_trained_once_and_found_again(folder):
    model = {"factory": "user_model:build", "train": {"images": 2560, "lr": 0.1, "seed": 7}}

    trained = task_with(**model).model()
    (file,) = (folder / "trained").iterdir()
    written = file.stat().st_mtime_ns
    again = task_with(**model).model()
    task_with(**{**model, "train": {**model["train"], "seed": 8}}).model()

    assert not torch.equal(task_with(**model).build().conv.weight, trained.conv.weight)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert written == file.stat().st_mtime_ns
    assert 2 == len(list((folder / "trained").iterdir()))


def test_training_of_the_dense_model_is_deterministic(folder, monkeypatch):
    model = {"factory": "user_model:build", "train": {"images": 1280, "lr": 0.1}}

    first = task_with(**model).model()
    monkeypatch.setenv("AUTOPRUNE_DATA", str(folder / "other"))
    second = task_with(**model).model()

    assert torch.equal(first.conv.weight, second.conv.weight)


def test_a_cache_that_cannot_be_written_is_one_line(folder, monkeypatch):
    (folder / "file").write_text("no folder")
    monkeypatch.setenv("AUTOPRUNE_DATA", str(folder / "file"))

    with pytest.raises(InputError, match=r"cannot write to .*trained") as caught:
        task_with(factory="user_model:build", train={"images": 128}).model()

    assert "\n" not in str(caught.value)
    assert ["file"] == [path.name for path in folder.iterdir()]


def test_untrained_network_on_request():
    task = task_with(name="digits_net", train={"images": 0})

    assert torch.equal(task.build().classifier.weight, task.model().classifier.weight)


def test_the_metric_counts_the_images_whose_largest_output_is_the_label():
    task = task_with(factory="user_model:build")
    outputs = torch.eye(10)[[3, 5, 7, 0, 1, 2, 9]]
    metric = task.metric()
    metric.update(outputs, (None, torch.tensor([3, 5, 7, 0, 1, 9, 2])))

    assert task.metric_spec == ACCURACY
    assert metric.value() == 5 / 7


class Auxiliary(Tiny):
    """Returns auxiliary logits in training mode, as GoogLeNet and Inception do."""

    def forward(self, x):
        logits = super().forward(x)
        return Outputs(logits, 3 * logits, None) if self.training else logits


class Outputs(NamedTuple):
    """As of torchvision's Inception."""

    logits: torch.Tensor
    aux: torch.Tensor
    off: None


class AuxiliaryByName(Auxiliary):
    """The same in a mapping, beside features."""

    def forward(self, x):
        outputs = super().forward(x)
        return {"features": x, "logits": outputs[0], "aux": outputs[1]} if self.training else outputs


class FeaturesAlone(Tiny):
    def forward(self, x):
        return (x, x) if self.training else super().forward(x)


class TwoInputs(Tiny):
    def forward(self, x, mask):
        return super().forward(x) * mask


def several_labels(largest=1):
    """Three images a part; the first label is in all of them, the second in the first alone, the third in none."""
    labels = np.array([[1, largest, 0], [1, 0, 0], [1, 0, 0]])
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    return {
        f"{part}_{name}": array
        for part in ("train", "validation", "test")
        for name, array in (("images", images), ("labels", labels))
    }


@pytest.fixture
def labels_task(monkeypatch):
    sys.modules["user_model"].labels, sys.modules["user_model"].wrong = several_labels, lambda: several_labels(7)

    def load(**changes):
        f1 = {"name": "MultilabelF1Score", "average": "micro"}
        model = {"factory": "user_model:build", "arguments": {"classes": 3}}
        return load_task({"data": {"function": "user_model:labels"}, "model": model, "metric": f1, **changes})

    return load


def test_auxiliary_logits_count_three_tenths_in_training():
    sys.modules["user_model"].auxiliary = Auxiliary
    task = task_with(factory="user_model:auxiliary")
    model, batch = task.model(), next(task.train.batches(torch.arange(16), 16))
    plain = task.loss(model, batch)
    trained = task.loss(model.train(), batch)
    logits, labels = trained.outputs, batch[1]
    expected = F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(3 * logits, labels)

    assert torch.equal(F.cross_entropy(plain.outputs, labels), plain.value)
    torch.testing.assert_close(trained.value, expected)
    assert (16, 10) == tuple(task.predict(model, batch).shape)


def test_auxiliary_logits_may_have_names_and_features_beside_them():
    sys.modules["user_model"].named, sys.modules["user_model"].auxiliary = AuxiliaryByName, Auxiliary
    tasks = [task_with(factory=f"user_model:{name}") for name in ("named", "auxiliary")]
    batch = next(tasks[0].train.batches(torch.arange(16), 16))
    losses = [task.loss(task.model().train(), batch) for task in tasks]

    torch.testing.assert_close(losses[0].value, losses[1].value)
    assert (16, 10) == tuple(losses[0].outputs.shape)


def test_a_network_that_returns_no_classes_in_training_mode_is_refused():
    sys.modules["user_model"].alone = FeaturesAlone
    task = task_with(factory="user_model:alone")

    with pytest.raises(ModelError, match=r"in training mode the model returns .*; allowed: \(N, 10\), or several"):
        check_task(task, task.model())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"factory": "user_model:colour"},
            "images of 3 channels, the data have 1x8x8 images .*; allowed: images",
        ),
        ({"factory": "user_model:two"}, r"missing 1 required positional argument: 'mask'; allowed: .* wrap it"),
        ({"factory": "user_model:as_dict"}, "returns a dict with logits; allowed: one tensor .*: wrap it"),
        (
            {"factory": "user_model:build", "arguments": {"classes": 7}},
            r"returns \(2, 7\) for 2 images; allowed: \(2, 10\), as the data have 10 classes \(labels go from 0 to 9\)",
        ),
    ],
)
def test_networks_for_other_data_say_what_these_are(model, message):
    module = sys.modules["user_model"]
    module.two, module.colour = TwoInputs, lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())

    with pytest.raises(ModelError, match=message):
        task_with(**model).model()


def test_images_with_several_labels(labels_task):
    task = labels_task()
    model, batch = task.model(), next(task.train.batches(torch.arange(3), 3))
    logits = torch.tensor([[2.0, 2.0, -1.0], [2.0, 2.0, -1.0], [-1.0, -1.0, -1.0]])
    metric = task.metric()
    metric.update(logits, batch)

    assert (torch.float32, (3, 3)) == (batch[1].dtype, tuple(batch[1].shape))
    torch.testing.assert_close(
        task.loss(model, batch).value, F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])
    )
    assert pytest.approx(2 * 3 / (2 * 3 + 1 + 1)) == metric.value()
    assert "MultilabelF1Score" == task.metric_spec.name
    assert abs(task.distillation(logits, logits, 3.0).item()) < 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": None}, r"task\.metric: images with several labels have no accuracy"),
        ({"data": {"function": "user_model:wrong"}}, "a label is 7; allowed: 0 and 1"),
    ],
)
def test_several_labels_that_do_not_fit(labels_task, changes, message):
    with pytest.raises(InputError, match=message):
        labels_task(**changes)


def test_class_weights_and_other_metrics_know_the_classes():
    weight = [1.0] * 9 + [7.0]
    spec = {"data": {"name": "digits"}, "model": {"factory": "user_model:build"}}
    loss, metric = {"name": "CrossEntropyLoss", "weight": weight}, {"name": "MulticlassAccuracy", "top_k": 5}
    task = load_task({**spec, "loss": loss, "metric": metric})
    model, (inputs, labels) = task.model(), next(task.train.batches(torch.arange(16), 16))
    counted = task.metric()
    counted.update(torch.eye(10)[labels[:3]], (None, labels[:3]))

    expected = F.cross_entropy(model(inputs), labels, torch.tensor(weight))
    torch.testing.assert_close(task.loss(model, (inputs, labels)).value, expected)
    assert "MulticlassAccuracy" == task.metric_spec.name
    assert 0 < counted.value() <= 1


def test_another_loss_trains_another_dense_model(folder):
    spec = {"data": {"name": "digits"}, "model": {"factory": "user_model:build", "train": {"images": 128}}}
    load_task(spec).model()
    load_task({**spec, "loss": {"name": "CrossEntropyLoss", "weight": [1.0] * 9 + [7.0]}}).model()

    assert 2 == len(list((folder / "trained").iterdir()))


def test_what_is_taken_for_the_normalisation_of_a_checkpoint_is_said():
    model = {"factory": "user_model:build", "checkpoint": "tiny.pt"}
    (remark,) = load_task({"data": {"name": "digits"}, "model": model}).remarks
    said = load_task({"data": {"name": "digits", "mean": [0.3], "std": [0.4]}, "model": model})

    assert remark.startswith("Images are normalised with mean 0.3056 and std 0.376")
    assert "computed from the training images: tiny.pt was trained so, or data.mean and data.std have to say" in remark
    assert () == said.remarks == task_with(name="digits_net").remarks


@pytest.mark.parametrize(("mean", "std"), [([127.5], [0.3]), ([0.3], [77.0])])
def test_statistics_of_stored_pixels_are_refused(mean, std):
    with pytest.raises(InputError, match=r"task\.data: .* is on the scale of stored pixels, 0 to 255"):
        load_task({"data": {"name": "digits", "mean": mean, "std": std}, "model": {"name": "digits_net"}})


def test_data_are_only_read_for_a_training(folder, monkeypatch):
    save_file(state(), folder / "tiny.safetensors")
    task = task_with(factory="user_model:build", checkpoint="tiny.safetensors")
    monkeypatch.setattr(type(task.train), "fingerprint", lambda split: pytest.fail("the whole data set was read"))

    task.model()
