"""Train the network of a ready space on CIFAR-10, where the space wants weights that nobody brings.

    python -m autoprune.analysis.benchmarks.train_network DATA [--network vgg16] [--epochs 24] [--lr 0.1]
        [--threads 2] [--seed 0]

DATA is a folder with cifar10.npz. The weights go where `cifar10_NETWORK` looks for them in it. Trained with are all
images of the space's split `train`, without the dense model's help.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune import methods
from autoprune.recipe import Training
from autoprune.study.space_file import load_space
from autoprune.tasks import Task, load_task
from autoprune.tasks.weight_files import save_weights
from autoprune.training.evaluate import evaluate
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime, choose_runtime

EPOCHS, LR, BATCH = 24, 0.1, 128
#: Share of the steps in which the learning rate rises, and decay of the average of the weights per step.
WARMUP, AVERAGE = 0.2, 0.99


def untrained(plain: Mapping[str, Any]) -> Task:
    """The task of a space, with its network before any training."""
    return load_task({**plain, "model": {key: value for key, value in plain["model"].items() if key != "checkpoint"}})


def training_for(task: Task, epochs: int, lr: float) -> Training:
    """So many times over the training split."""
    images = epochs * len(task.train)
    return Training(images=images, batch_size=BATCH, lr=lr, warmup=WARMUP, ema=AVERAGE, rungs=(1.0,))


def train(task: Task, training: Training, runtime: Runtime, seed: int) -> nn.Module:
    """The network, trained from weights that the seed decides."""
    torch.manual_seed(seed)
    model = runtime.place(task.build())
    fit(model, task, training, runtime, images=training.images, seed=seed)
    return model


def main() -> None:
    """Train, save, and say how accurate it is."""
    options = _parse_arguments()
    os.environ["AUTOPRUNE_DATA"] = str(options.data)
    torch.set_num_threads(options.threads)
    plain = load_space(f"cifar10_{options.network}", find_method=methods.find).task
    task = untrained(plain)
    runtime = choose_runtime(task.build(), task, BATCH, threads=options.threads)
    model = train(task, training_for(task, options.epochs, options.lr), runtime, options.seed)
    file = options.data / plain["model"]["checkpoint"]
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(model, file)
    accuracy = evaluate(model, task.validation, task, runtime)
    print(f"{file}: {options.epochs} epochs, seed {options.seed}, {accuracy:.2%} on the split validation")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--lr", type=float, default=LR)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
