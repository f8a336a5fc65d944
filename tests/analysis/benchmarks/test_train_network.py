"""Training the network of a ready space: how long, that it learns, and where its weights go."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.analysis.benchmarks import train_network
from autoprune.analysis.benchmarks.train_network import train, training_for, untrained
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.tasks.weight_files import load_weights
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime
from tests.helpers.commands import DIGITS_DATA

DIGITS = {"data": DIGITS_DATA, "model": {"name": "digits_net", "checkpoint": "weights/that_are_not_there.safetensors"}}


def test_a_network_learns_and_the_seed_decides_its_weights() -> None:
    task = untrained(DIGITS)
    training = training_for(task, 3, 0.1)
    assert training.images == 3 * len(task.train)
    brief = replace(training, images=640)
    models = [train(task, brief, Runtime(), seed) for seed in (3, 3, 4)]

    first, again, other = (next(model.parameters()) for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    model = train(task, replace(training, ema=0.5), Runtime(), 3)  # some 60 steps are too few for the long average
    assert evaluate(model, task.validation, task, Runtime()) > 0.5  # of ten classes


def test_weights_go_where_the_space_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = load_task({"data": DIGITS_DATA, "model": {"name": "digits_net"}}).build()
    asked: list[Training] = []

    def trained(_task: object, training: Training, *_: object) -> nn.Module:
        asked.append(training)
        return made

    class Space:
        task = DIGITS

    monkeypatch.setenv("AUTOPRUNE_DATA", "the one of before, which the command sets")
    monkeypatch.setattr(train_network, "load_space", lambda name, **_: {"cifar10_vgg16": Space}[name])
    monkeypatch.setattr(train_network, "train", trained)
    words = ["--epochs", "2", "--lr", "0.07", "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", ["train_network", str(tmp_path), *words])
    train_network.main()
    read = load_task({"data": DIGITS_DATA, "model": {"name": "digits_net"}}).build()
    load_weights(read, tmp_path / "weights/that_are_not_there.safetensors")

    assert torch.equal(next(read.parameters()), next(made.parameters()))
    assert [training.lr for training in asked] == [0.07]
    assert "2 epochs, seed 0" in capsys.readouterr().out
