"""The task of Ultralytics' detectors: the contract of tasks, and from a folder to a file that was verified."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from commands import Capture, works
from pages import files_of
from yolo_tasks import needs_ultralytics, yolo_spec

import autoprune as ap
from autoprune.errors import InputError
from autoprune.tasks import Task, load_task
from autoprune.testing import TaskContract
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime

pytestmark = needs_ultralytics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


class TestYolo(TaskContract):
    """With mosaics, which hold several images."""

    @pytest.fixture(autouse=True)
    def _with_folder(self, folder):
        type(self).folder = folder

    def make_task(self) -> Task:
        return load_task(yolo_spec(self.folder, hyp={"mosaic": 0.5}))


def test_found_boxes_are_counted_as_those_of_other_detectors(folder):
    """A model that gives what is to be found, a box and a place each, is perfect; shifted by 6 pixels it is not."""
    task = load_task(yolo_spec(folder, metric="map_50"))

    def answering(shift):
        def model(images):
            targets = next(target for batch, target in known if torch.equal(batch, images))
            found = torch.zeros(len(images), 14, 9)
            for number, target in enumerate(targets):
                boxes = target["boxes"] + shift
                for place, (box, label) in enumerate(zip(boxes, target["labels"], strict=True)):
                    found[number, :4, place] = torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
                    found[number, 4 + label, place] = 0.9
            return found

        return model

    known = list(task.validation.batches(torch.arange(6), 3))
    values = []
    for shift in (0, 6):
        metric = task.metric()
        for batch in known:
            metric.update(task.predict(answering(shift), batch), batch)
        values.append(metric.value())

    assert values[0] == pytest.approx(1)
    assert values[1] < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hyp": {"mosaik": 1}}, "task.hyp: unknown hyper-parameter 'mosaik'.*'mosaic'"),
        ({"hyp": {"mosaic": 1.5}}, "task.hyp: .*mosaic=1.5"),
        ({"hyp": {"fliplr": "often"}}, "task.hyp: .*fliplr=often"),
        ({"hyp": {"epochs": 3}}, "unknown hyper-parameter 'epochs'"),
        ({"metric": "accuracy"}, "unknown metric 'accuracy'"),
        ({"loss": "MSELoss"}, "unknown key 'loss'"),
        ({"size": 31}, "task.data.size"),
    ],
)
def test_wrong_mappings_say_where(folder, change, message):
    with pytest.raises(InputError, match=message):
        load_task(yolo_spec(folder, **change))


SEARCH = {
    "space": {
        "method": {"choice": {"l1": {}, "taylor": {"images": 8}, "group_fisher": {"images": 8}}},
        "target": {"flops": {"float": [0.4, 0.8]}},
        "training": {"images": 16, "batch_size": 8, "lr": 0.02, "ema": 0.5},
    },
    "objectives": ["metric", "flops"],
    "budget": {"trials": 4},
    "resources": {"workers": 1, "cpus_per_trial": 1},
}


@pytest.mark.slow
def test_from_a_yaml_file_to_a_verified_file(folder, tmp_path, capsys: Capture):
    still = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0.0)
    page = files_of(Path(__file__).parents[3] / "docs" / "your-task.md")["An Ultralytics detector"]["mine.yaml"]
    small, shown = yolo_spec(folder), yaml.safe_load(page)["task"]
    training = {**shown["model"]["train"], "images": 480, "batch_size": 8, "lr": 0.03}
    task = {**shown, "data": small["data"], "model": {**small["model"], "train": training}, "hyp": still}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"task": task, **SEARCH}))

    study = ap.search(tmp_path / "space.yaml", out=tmp_path / "study", in_process=True)
    works(capsys, "report", str(tmp_path / "study"))
    works(capsys, "export", str(tmp_path / "study"), "--knee", "--to", str(tmp_path / "out"))
    verified = json.loads(works(capsys, "verify", str(tmp_path / "out"), "--json"))

    assert ["completed"] * 4 == [outcome.status for outcome in study.outcomes]
    assert study.dense_metric > 0.05
    assert set(verified["found"]) == {"artefact", "onnx", "pt2"}
    assert all(value == pytest.approx(verified["reported"], abs=1e-3) for value in verified["found"].values())


def test_the_metric_is_the_same_however_many_images_a_pass_has(folder):
    task = load_task(yolo_spec(folder))
    model = task.build(1)
    values = {evaluate(model, task.validation, task, Runtime())}
    object.__setattr__(task, "images_per_pass", 2)

    assert values == {evaluate(model, task.validation, task, Runtime())}
