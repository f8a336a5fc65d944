"""From what users have to an exported model, each with at most 15 lines of code; README shows the first and last."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Capture, works
from PIL import Image

import autoprune as ap
from autoprune.study.metric import MetricSpec

LOADER = """
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2


def loader(part):
    flip = [v2.RandomHorizontalFlip()] if part == "train" else []
    steps = [v2.ToImage(), v2.Resize((32, 32)), *flip, v2.ToDtype(torch.float32, scale=True)]
    return DataLoader(ImageFolder(f"photos/{part}", v2.Compose(steps)), batch_size=32, shuffle=part == "train")
"""

CLASSES = """
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2


def photos(part):
    flip = [v2.RandomHorizontalFlip()] if part == "train" else []
    steps = [v2.ToImage(), v2.Resize((32, 32)), *flip, v2.ToDtype(torch.float32, scale=True)]
    return ImageFolder(f"photos/{part}", v2.Compose(steps))
"""

LABELS = """
import torch
from torch.utils.data import TensorDataset
from user_tasks import Net as build, images, several

train = TensorDataset(images(40), several(40))
validation = TensorDataset(images(30, seed=1), several(30))
"""

VALUES = """
import torch
from torch.utils.data import TensorDataset
from user_tasks import Net, images

train = TensorDataset(images(40), torch.arange(40.0)[:, None] % 5)
validation = TensorDataset(images(30, seed=1), torch.arange(30.0)[:, None] % 5)


def build():
    return Net(outputs=1)
"""

OUTPUTS = """
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from user_tasks import TwoHeads as build, classes, images

train = TensorDataset(images(40), classes(40), torch.arange(40.0))
validation = TensorDataset(images(30, seed=1), classes(30), torch.arange(30.0))


def loss(outputs, targets):
    return F.cross_entropy(outputs[0], targets[0]) + F.l1_loss(outputs[1][:, 0], targets[1])


def evaluate(model, loader):
    return sum((model(x)[0].argmax(1) == y).sum().item() for x, y, _ in loader) / len(loader.split)
"""

IMAGES = """
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import TensorDataset

large = torch.from_numpy(load_digits().images).float()[:, None] / 16
small = F.avg_pool2d(large, 2)
train, validation = TensorDataset(small[:700], large[:700]), TensorDataset(small[1700:], large[1700:])


def build(width=13):
    first, last = torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.Conv2d(width, 4, 3, padding=1)
    middle = torch.nn.Conv2d(width, width, 3, padding=1)
    return torch.nn.Sequential(first, torch.nn.ReLU(), middle, torch.nn.ReLU(), last, torch.nn.PixelShuffle(2))
"""

NOTEBOOK = """
import torch
import autoprune as ap
from user_tasks import classes, images


class Small(torch.nn.Sequential):
    def __init__(self):
        first, second = torch.nn.Conv2d(1, 37, 3), torch.nn.Conv2d(37, 41, 3)
        super().__init__(first, torch.nn.ReLU(), second, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(369, 5))


def loss(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs, labels)


data = {"train": list(zip(images(40), classes(40))), "validation": list(zip(images(30, 1), classes(30)))}
metric = {"name": "MulticlassAccuracy", "num_classes": 5}
task = ap.Task(model=Small(), **data, loss=loss, metric=metric)
study = ap.search("mine.yaml", task=task, out="study", trials=2)
print(ap.verify(ap.export("study", "small", task=task)[0].parent, task=task))
"""

SPACE: dict[str, Any] = {
    "space": {
        "method": {"choice": {"l1": {}, "taylor": {"images": 32}}},
        "target": {"flops": {"float": [0.4, 0.8]}},
        "training": {"images": 64, "batch_size": 8, "lr": 0.01},
    },
    "controls": False,
    "budget": {"trials": 2},
    "resources": {"workers": 1, "cpus_per_trial": 1},
}

DATA = {"train": "mine:train", "validation": "mine:validation"}
MODEL = {"factory": "mine:build"}


def lines_of(code: str) -> int:
    """Lines that say something."""
    return sum(bool(line.strip()) for line in code.splitlines())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, without `mine` of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


@pytest.fixture
def journey(here: Path, capsys: Capture) -> Callable[..., str]:
    """search -> report -> export -> verify by the command line; returns what `verify` prints."""

    def travel(code: str, task: dict[str, Any], **searched: Any) -> str:
        assert lines_of(code) <= 15
        (here / "mine.py").write_text(code)
        space = {**SPACE, "space": {**SPACE["space"], **searched}, "task": task}
        (here / "mine.yaml").write_text(yaml.safe_dump(space))
        works(capsys, "search", "mine.yaml", "--out", "study", "--in-process")
        works(capsys, "report", "study")
        works(capsys, "export", "study", "--knee", "--to", "small")
        return works(capsys, "verify", "small")

    return travel


def write_photos(folder: Path) -> None:
    """Three classes of noisy photographs in folders, bright in one colour each."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("val", 5)):
        for colour in range(3):
            place = folder / part / f"class{colour}"
            place.mkdir(parents=True)
            for number in range(count):
                image = torch.randint(0, 100, (40, 36, 3), generator=generator, dtype=torch.uint8)
                image[..., colour] += 100
                Image.fromarray(image.numpy()).save(place / f"{number}.png")


def test_an_existing_loader_with_transforms(journey: Callable[..., str], here: Path, root: Path) -> None:
    assert LOADER.strip() in (root / "README.md").read_text(encoding="utf-8")
    write_photos(here / "photos")
    train, validation = ({"function": "mine:loader", "part": part} for part in ("train", "val"))
    arguments = {"num_classes": 3}
    task = {
        "model": {"name": "digits_net", "arguments": arguments, "train": {"images": 72, "batch_size": 12, "lr": 0.05}},
        "data": {"train": train, "validation": validation},
        "loss": {"name": "CrossEntropyLoss", "label_smoothing": 0.1},
        "metric": {"name": "MulticlassAccuracy", "num_classes": 3},
    }

    assert "MulticlassAccuracy" in journey(LOADER, task)


def test_a_dataset_that_says_its_classes(journey: Callable[..., str], here: Path) -> None:
    write_photos(here / "photos")
    parts = (("train", "train"), ("validation", "val"))
    data = {name: {"function": "mine:photos", "part": part} for name, part in parts}
    model = {"name": "digits_net", "train": {"images": 72, "batch_size": 12, "lr": 0.05}}

    assert "accuracy" in journey(CLASSES, {"kind": "classification", "model": model, "data": data})


def test_several_labels_per_image(journey: Callable[..., str]) -> None:
    metric = {"name": "MultilabelF1Score", "num_labels": 5}

    assert "MultilabelF1Score" in journey(
        LABELS, {"model": MODEL, "data": DATA, "loss": "BCEWithLogitsLoss", "metric": metric}
    )


def test_regression(journey: Callable[..., str]) -> None:
    metric = {"name": "MeanSquaredError", "squared": False, "called": "rmse"}

    assert "rmse" in journey(VALUES, {"model": MODEL, "data": DATA, "loss": "MSELoss", "metric": metric})


def test_two_outputs(journey: Callable[..., str]) -> None:
    assert "evaluate" in journey(
        OUTPUTS, {"model": MODEL, "data": DATA, "loss": "mine:loss", "metric": "mine:evaluate"}
    )


def test_images_of_twice_the_size(journey: Callable[..., str], here: Path) -> None:
    training = {"images": 6000, "batch_size": 16, "lr": 0.01, "optimizer": "adam"}
    metric = {"name": "PeakSignalNoiseRatio", "data_range": [0, 1], "called": "psnr"}
    task = {"model": {**MODEL, "train": training}, "data": DATA, "loss": "MSELoss", "metric": metric}
    distilled = {"training": {**SPACE["space"]["training"], "distill": 0.5}, "target": {"flops": 0.7}}

    verified = journey(IMAGES, task, **distilled)
    study = ap.load_study(here / "study")
    card = (here / "small" / "README.md").read_text(encoding="utf-8")

    assert 3 == verified.count("yes")
    assert study.metric == MetricSpec(name="psnr", worst=0.0, best=None, unit="dB", scale=study.dense_metric)
    assert study.dense_metric > 15  # 13.2 with every pixel repeated
    assert "Validation psnr (dB)" in (here / "study" / "report.html").read_text(encoding="utf-8")
    assert all(form in card for form in ("| artefact |", "| onnx |", "| pt2 |", "float32, (1, 4, 4) per image"))


@pytest.mark.slow
def test_a_model_of_a_notebook_goes_to_workers(here: Path, root: Path) -> None:
    assert lines_of(NOTEBOOK) <= 15
    (here / "notebook.py").write_text(NOTEBOOK)
    (here / "mine.yaml").write_text(yaml.safe_dump(SPACE))
    environment = {"PYTHONPATH": f"{root / 'tests' / 'helpers'}"}
    done = subprocess.run(
        [sys.executable, "notebook.py"], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )

    assert done.returncode == 0, done.stderr
    assert "'onnx'" in done.stdout
    assert "kind: python" in (here / "study" / "study.yaml").read_text()
    assert not [path for path in (here / "study").rglob("*") if path.suffix in {".pkl", ".pt", ".py"}]
