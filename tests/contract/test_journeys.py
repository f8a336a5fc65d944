"""The sections of the page on users' own models, data and tasks, each from its blocks to a verified model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import Capture, works
from pages import files_of, lines_of
from PIL import Image
from reports import text_of
from safetensors.torch import save_file
from torchvision.models import mobilenet_v3_small, resnet18

import autoprune as ap
from autoprune.study.metric import MetricSpec

PAGE = Path(__file__).parents[2] / "docs" / "your-task.md"
SECTIONS = files_of(PAGE)
PHOTOS = SECTIONS["Several labels per image"]["mine.py"]

#: What makes a search small.
SMALL = (
    "space.method={choice: {l1: {}, taylor: {images: 32}}}",
    "space.target.flops={float: [0.4, 0.8]}",
    "space.training={images: 64, batch_size: 8, lr: 0.01}",
    "controls=false",
    "budget={trials: 2}",
    "resources.cpus_per_trial=1",
)
TRAINED = ("task.model.train.images=72", "task.model.train.batch_size=12")
SMALLER = (*TRAINED, "task.model.name=digits_net")
ONCE = ("budget={trials: 1}",)
WITHOUT_WORKERS = (*ONCE, "task.data.workers=0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own with `search.yaml`, without modules of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine", "photos"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "search.yaml").write_text(SECTIONS["Your model, data and task"]["search.yaml"])
    return tmp_path


@pytest.fixture
def journey(here: Path, capsys: Capture) -> Callable[..., str]:
    """search -> report -> export -> verify by the commands of the page; returns what `verify` prints."""

    def travel(heading: str, *overrides: str) -> str:
        for name, text in SECTIONS[heading].items():
            assert name.endswith(".yaml") or lines_of(text) <= 15
            (here / name).write_text(text)
        small = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
        works(capsys, "search", "mine.yaml", "--out", "runs/mine", "--in-process", *small)
        works(capsys, "report", "runs/mine")
        works(capsys, "export", "runs/mine", "--knee", "--to", "small")
        return works(capsys, "verify", "small")

    return travel


def write_photos(folder: Path, *, test: bool = False) -> None:
    """Three classes of noisy photographs in folders, bright in one colour each."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("val", 5), *([("test", 3)] if test else ())):
        for colour in range(3):
            place = folder / part / f"class{colour}"
            place.mkdir(parents=True)
            for number in range(count):
                image = torch.randint(0, 100, (40, 36, 3), generator=generator, dtype=torch.uint8)
                image[..., colour] += 100
                Image.fromarray(image.numpy()).save(place / f"{number}.png")


def write_table(here: Path, name: str, columns: dict[str, Callable[[int], float]]) -> None:
    """`NAME_train.csv` and `NAME_val.csv`: the photographs, and columns that follow from their colour."""
    write_photos(here / "photos")
    for part in ("train", "val"):
        files = sorted((here / "photos" / part).rglob("*.png"))
        found = {key: [value(int(file.parent.name[-1])) for file in files] for key, value in columns.items()}
        pd.DataFrame({"file": files, **found}).to_csv(here / f"{name}_{part}.csv", index=False)


@pytest.mark.long
def test_weights_that_a_function_of_ones_own_loads(journey: Callable[..., str], here: Path) -> None:
    write_photos(here / "photos", test=True)
    state = resnet18(num_classes=3).state_dict()
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, here / "last.ckpt")

    assert "accuracy" in journey("Your network", *WITHOUT_WORKERS)


def test_images_in_folders(journey: Callable[..., str], here: Path) -> None:
    write_photos(here / "photos")
    torch.save({"state_dict": resnet18(num_classes=3).state_dict()}, here / "flowers.pt")
    small = "task.data.splits={train: 'train[:-2]', validation: val, test: 'train[-2:]'}"

    assert "accuracy" in journey("Images in folders", *WITHOUT_WORKERS, small)


@pytest.mark.long
def test_images_in_arrays(journey: Callable[..., str], here: Path) -> None:
    generator = np.random.default_rng(0)
    parts = {"train": 27, "test": 5}
    images = {f"{part}_images": generator.integers(0, 255, (n, 32, 32, 3), np.uint8) for part, n in parts.items()}
    np.savez(here / "photos.npz", **images, **{f"{part}_labels": np.arange(n) % 3 for part, n in parts.items()})
    small = "task.data.splits={train: 'train[:-9]', validation: 'train[-9:]', test: test}"
    save_file(mobilenet_v3_small(num_classes=3).state_dict(), here / "my_net.safetensors")

    assert "accuracy" in journey("Images in arrays", *ONCE, small)


@pytest.mark.long
def test_a_loader_with_its_transforms(journey: Callable[..., str], here: Path) -> None:
    write_photos(here / "photos")

    assert "MulticlassAccuracy" in journey("A DataLoader with its transforms", *TRAINED)


def test_a_dataset_that_says_its_classes(journey: Callable[..., str], here: Path) -> None:
    write_photos(here / "photos")

    assert "accuracy" in journey("A Dataset with classes", *SMALLER)


def test_several_labels_per_image(journey: Callable[..., str], here: Path) -> None:
    write_table(here, "labels", {"red": lambda colour: int(colour == 0), "cold": lambda colour: int(colour > 0)})

    assert "MultilabelF1Score" in journey("Several labels per image", *SMALLER)


def test_regression(journey: Callable[..., str], here: Path) -> None:
    (here / "mine.py").write_text(PHOTOS)
    write_table(here, "ages", {"age": lambda colour: 0.5 + colour})

    assert "rmse" in journey("Regression", *SMALLER)
    assert ap.load_study(here / "runs/mine").metric.direction == "minimize"


def test_two_outputs(journey: Callable[..., str], here: Path) -> None:
    (here / "photos.py").write_text(PHOTOS)
    write_table(here, "both", {"kind": lambda colour: colour, "age": lambda colour: 0.5 + colour})

    assert "right" in journey("Two outputs", *TRAINED)


def test_images_of_twice_the_size(journey: Callable[..., str], here: Path) -> None:
    distilled = "space.training={images: 64, batch_size: 8, lr: 0.01, distill: 0.5}"
    verified = journey("Images to images", distilled, "space.target.flops=0.7")
    study = ap.load_study(here / "runs/mine")
    card = (here / "small" / "README.md").read_text(encoding="utf-8")

    assert 3 == verified.count("yes")
    assert study.metric == MetricSpec(name="psnr", worst=0.0, best=None, unit="dB", scale=study.dense_metric)
    assert study.dense_metric > 15  # 13.2 with every pixel repeated
    assert "Validation psnr (dB)" in text_of(here / "runs/mine" / "report.html")
    assert all(form in card for form in ("| artefact |", "| onnx |", "| pt2 |", "float32, (1, 4, 4) per image"))


@pytest.mark.slow
def test_a_model_of_a_notebook_goes_to_workers(here: Path) -> None:
    code = SECTIONS["In a notebook"]["notebook.py"]
    assert lines_of(code) <= 15
    small = code.replace("task=task, out", f"overrides={list(SMALL)!r}, task=task, out", 1)
    (here / "notebook.py").write_text(small)
    done = subprocess.run(
        [sys.executable, "notebook.py"], capture_output=True, text=True, check=False, env=dict(os.environ)
    )

    assert done.returncode == 0, done.stderr
    assert "'onnx'" in done.stdout
    assert "kind: python" in (here / "runs/mine" / "study.yaml").read_text()
    assert not [path for path in (here / "runs/mine").rglob("*") if path.suffix in {".pkl", ".pt", ".py"}]
