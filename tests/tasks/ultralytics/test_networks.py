"""Networks of Ultralytics: their losses, the branch that stays, checkpoints."""

import copy
import os

import pytest
import torch
from yolo_tasks import needs_ultralytics, write_network, yolo_spec

from autoprune.errors import InputError, ModelError
from autoprune.tasks import load_task
from autoprune.training.loss_mode import asked_for_losses

pytestmark = needs_ultralytics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def task(folder):
    return load_task(yolo_spec(folder))


@pytest.fixture
def batch(task):
    return next(task.validation.batches(torch.arange(3), 3))


def theirs(batch):
    """A batch as their own data sets yield it: boxes as centre, width and height, shares of 64 pixels."""
    images, targets = batch
    boxes = torch.cat([target["boxes"] for target in targets]) / 64
    corners = [boxes[:, [0, 1]], boxes[:, [2, 3]]]
    return {
        "img": images,
        "cls": torch.cat([target["labels"] for target in targets]).float()[:, None],
        "bboxes": torch.cat([(corners[0] + corners[1]) / 2, corners[1] - corners[0]], 1),
        "batch_idx": torch.cat([torch.full((len(t["labels"]),), float(k)) for k, t in enumerate(targets)]),
    }


def test_losses_are_theirs_by_name_means_over_the_images(task, batch):
    model = task.build(3)
    with torch.no_grad(), asked_for_losses(model):
        loss = task.loss(model, batch)
        expected, _ = copy.deepcopy(model.network).loss(theirs(batch))

    assert list(loss.outputs) == ["box_loss", "cls_loss", "dfl_loss"]
    torch.testing.assert_close(torch.stack(list(loss.outputs.values())), expected / 3)
    torch.testing.assert_close(loss.value, expected.sum() / 3)


def test_gains_are_the_users(folder, task, batch):
    heavy = load_task(yolo_spec(folder, hyp={"box": 15.0}))
    once, twice = (one.loss(one.build(3).train(), batch).outputs for one in (task, heavy))

    torch.testing.assert_close(twice["box_loss"], 2 * once["box_loss"])
    torch.testing.assert_close(twice["cls_loss"], once["cls_loss"])


def test_images_without_objects_have_losses(task, batch):
    images, targets = batch
    none = [{name: values[:0] for name, values in target.items()} for target in targets]
    loss = task.loss(task.build().train(), (images, none))
    loss.value.backward()

    assert loss.outputs["box_loss"] == 0
    assert torch.isfinite(loss.value)


def test_a_model_keeps_nothing_of_its_losses(task, batch):
    model = task.build().train()
    task.loss(model, batch)

    assert getattr(model.network, "criterion", None) is None


def test_in_eval_mode_there_is_one_tensor_for_any_number_of_images(task, batch):
    images, _ = batch
    model = task.build()

    assert model(images).shape == (3, 4 + 10, 8 * 8 + 4 * 4)
    torch.testing.assert_close(model(images[:1]), model(images)[:1])


def test_of_a_head_with_two_branches_the_one_before_suppression_stays(folder, batch):
    spec = yolo_spec(folder)
    task = load_task({**spec, "model": {**spec["model"], "name": write_network(folder, "v10Detect")}})
    model = task.build()

    assert not [name for name in model.state_dict() if "one2one" in name]
    assert torch.isfinite(task.loss(model.train(), batch).value)
    assert model.eval()(batch[0]).shape == (3, 14, 80)


def save_checkpoint(task, file, **changes):
    """As their trainer does: the averaged model in half precision."""
    network = copy.deepcopy(task._network())
    torch.save({"model": None, "ema": network.half(), "train_args": {}, "epoch": -1, **changes}, file)
    return network


def test_a_checkpoint_brings_its_architecture_and_weights(folder, task):
    saved = save_checkpoint(task, folder / "best.pt")
    found = load_task({**yolo_spec(folder), "model": {"checkpoint": str(folder / "best.pt")}})
    model, state = found.model(), saved.float().state_dict()

    assert all(torch.equal(tensor, state[name.removeprefix("network.")]) for name, tensor in model.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(found.build(5).parameters(), model.parameters(), strict=True))
    assert all(p.requires_grad for name, p in model.named_parameters() if "dfl" not in name)


def test_a_checkpoint_of_other_classes_is_refused(folder, task):
    names = ", ".join(f"digit {digit}" for digit in range(10))
    (folder / "eleven.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{names}, ten]")
    save_checkpoint(task, folder / "ten.pt")
    spec = {**yolo_spec(folder, yaml=str(folder / "eleven.yaml")), "model": {"checkpoint": str(folder / "ten.pt")}}

    with pytest.raises(ModelError, match=r"ten.pt has other tensors: size mismatch .* allowed: .*classes"):
        load_task(spec).model()


class Evil:
    """Unpickling it would leave a folder behind."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_checkpoint_runs_no_code(folder, tmp_path):
    torch.save({"model": Evil(str(tmp_path / "ran"))}, folder / "evil.pt")

    with pytest.raises(ModelError, match=r"evil.pt: not a readable checkpoint of Ultralytics"):
        load_task({**yolo_spec(folder), "model": {"checkpoint": str(folder / "evil.pt")}})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ({"name": "yolov8n-seg.yaml"}, ModelError, "yolov8n-seg.yaml ends in Segment; allowed: detectors"),
        ({"name": "rtdetr-l.yaml"}, ModelError, "ends in RTDETRDecoder"),
        ({"name": "yolov8n.pt"}, ModelError, "no checkpoint 'yolov8n.pt'"),
        ({"name": "yolov0n.yaml"}, ModelError, "'yolov0n.yaml' cannot be read"),
        ({"name": "https://example.com/a.yaml"}, ModelError, "is no network; allowed: the YAML file"),
        ({"name": "resnet18"}, ModelError, "'resnet18' is no network"),
        ({"factory": "mine:build"}, InputError, "unknown key 'factory'"),
        ({}, InputError, "give `name`"),
    ],
)
def test_what_is_no_detector_of_theirs_is_refused_before_data_are_read(folder, model, kind, message):
    with pytest.raises(kind, match=message) as caught:
        load_task({**yolo_spec(folder), "model": model})
    assert "\n" not in str(caught.value)


def test_a_size_that_the_strides_do_not_divide_is_refused(folder):
    with pytest.raises(ModelError, match="the model cannot run on 3x72x72 images"):
        load_task(yolo_spec(folder, size=72)).model()
