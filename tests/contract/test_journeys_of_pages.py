"""What the front page and the pages that go on from it show, run as it stands: its model, its space, its Python."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import Capture, works
from pages import ROOT, code_in, files_of
from safetensors.torch import save_file
from torchvision.models import resnet18

import autoprune as ap

FILES = files_of(ROOT / "README.md")["Your model and your data"]

#: What makes a search small; the rest is as the page has it.
SMALL = {
    "space": {"training": {"images": 64, "batch_size": 8, "lr": 0.01}, "method": {"choice": {"taylor": {"images": 8}}}},
    "budget": {"trials": 1},
    "controls": False,
    "resources": {"workers": 1},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's files, weights and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(FILES["mine.py"])
    (tmp_path / "whole.yaml").write_text(FILES["mine.yaml"])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "whole.yaml", **SMALL}))
    save_file(resnet18(num_classes=10).state_dict(), tmp_path / "my_net.safetensors")
    generator = np.random.default_rng(0)
    parts = {"train": 1070, "test": 20}
    images = {f"{part}_images": generator.integers(0, 255, (n, 9, 9, 3), np.uint8) for part, n in parts.items()}
    labels = {f"{part}_labels": np.arange(n) % 10 for part, n in parts.items()}
    np.savez(tmp_path / "my_data.npz", **images, **labels)
    yield tmp_path
    sys.modules.pop("mine", None)


def parameters(model: torch.nn.Module) -> int:
    """How many numbers a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def run(code: str, name: str) -> dict[str, Any]:
    """The names that a block leaves."""
    names: dict[str, Any] = {}
    exec(compile(code, name, "exec"), names)
    return names


def test_the_model_and_the_space_of_the_front_page(here: Path, capsys: Capture) -> None:
    works(capsys, "search", "mine.yaml", "--out", "runs/mine", "--in-process")
    works(capsys, "export", "runs/mine", "--knee", "--to", "small")

    assert [outcome.status for outcome in ap.load_study("runs/mine").outcomes] == ["completed"]
    assert "yes" in works(capsys, "verify", "small")


def small_net() -> torch.nn.Module:
    """Channels that `round_to: 8` leaves few widths, as networks of a first try often have."""
    layers = [torch.nn.Conv2d(3, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.ReLU(), torch.nn.Conv2d(12, 20, 3)]
    layers += [torch.nn.BatchNorm2d(20), torch.nn.ReLU(), torch.nn.Conv2d(20, 28, 3), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(28, 10))


@pytest.mark.parametrize("page", ["README.md", "docs/search-spaces.md"])
def test_no_trial_of_a_page_s_space_fails_by_its_target(page: str, here: Path, capsys: Capture) -> None:
    """The space as the page has it, its trainings and its budget apart; and when the search goes on."""
    blocks = (yaml.safe_load(block) for block in code_in(ROOT / page, "yaml"))
    space = next(block["space"] for block in blocks if "target" in block.get("space", {}))
    space["training"] |= {"images": 8, "batch_size": 8}
    task = {"data": yaml.safe_load(FILES["mine.yaml"])["task"]["data"], "model": {"factory": "mine:build"}}
    (here / "mine.py").write_text(f"{FILES['mine.py']}\n\nfrom test_net import small_net as build\n")
    (here / "test_net.py").write_text(f"import torch\n\n\n{inspect.getsource(small_net)}")
    plain = {"task": task, "space": space, "budget": {"trials": 30}, "resources": {"workers": 1}}
    (here / "mine.yaml").write_text(yaml.safe_dump(plain))

    works(capsys, "search", "mine.yaml", "--out", "runs/mine", "--in-process")
    works(capsys, "resume", "runs/mine", "--trials", "40", "--in-process")

    outcomes = ap.load_study("runs/mine").outcomes
    assert [outcome.id for outcome in outcomes] == list(range(40))
    assert [outcome.error for outcome in outcomes if outcome.error] == []


@pytest.mark.slow
def test_the_python_of_the_front_page_and_what_is_handed_over(here: Path, capsys: Capture) -> None:
    front = run(next(block for block in code_in(ROOT / "README.md", "python") if "ap.search" in block), "README.md")
    works(capsys, "prune", "mine:build", "--method", "l1", "--flops", "0.5", "--to", "once")
    once, handed, cut = (run(block, "handing-over.md") for block in code_in(ROOT / "docs/handing-over.md", "python"))

    assert len(front["study"].outcomes) == 1
    assert parameters(front["small"]) < parameters(front["model"])
    assert parameters(once["once"]) < parameters(front["model"])
    assert parameters(handed["model"]) < parameters(front["model"])
    assert parameters(cut["again"]) < parameters(cut["model"])


def test_the_parts_of_the_engine_by_hand(capsys: Capture) -> None:
    (block,) = code_in(ROOT / "docs/engine.md", "python")
    names = run(block, "engine.md")

    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(0.5, abs=0.01)
    assert parameters(names["small"]) < parameters(names["model"])
