"""How fast the training loop is beside plain PyTorch defaults, both measured in turns in one run.

    python analysis/benchmarks/train_speed.py [--data DIR] [--rounds N] [--json OUT]

Three sides, same network, batch size, images and threads:

* defaults: what PyTorch's tutorials write, `DataLoader` over images with torchvision's transforms, fp32, NCHW, SGD;
* bare: the same network and optimizer with nothing in the way, one random crop and flip for a whole batch at a time;
* ours: `fit` with the runtime that `choose_runtime` picks; crops and flips are drawn per image.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row
from autoprune.recipe import Training
from autoprune.tasks import Task, load_task
from autoprune.tasks.zoo import BasicBlock
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime, choose_runtime

BATCH = 128


def random_images() -> dict[str, Any]:
    """CIFAR-10's shapes without its pixels; speed does not depend on them."""
    random = np.random.default_rng(0)
    return {
        f"{part}_{kind}": random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        if kind == "images"
        else np.arange(count) % 10
        for part, count in (("train", 10_000), ("test", 1_000))
        for kind in ("images", "labels")
    }


def open_task(data: str | None) -> Task:
    """ResNet-20 on CIFAR-10 from the folder `data`, or on random images."""
    if data is not None:
        os.environ["AUTOPRUNE_DATA"] = data
    source = {"name": "cifar10"} if data else {"function": f"{__name__}:random_images"}
    return load_task(
        {"data": {**source, "augment": ["flip", "crop"]}, "model": {"name": "resnet20", "train": {"images": 0}}}
    )


def narrow(model: nn.Module, widths: tuple[int, ...]) -> nn.Module:
    """The ResNet with these widths inside its blocks, in turn: the result of pruning inner channels."""
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    for i, block in enumerate(blocks):
        inner, first, second = widths[i % len(widths)], block.conv1, block.conv2
        block.conv1 = nn.Conv2d(first.in_channels, inner, 3, first.stride, 1, bias=False)
        block.bn1 = nn.BatchNorm2d(inner)
        block.conv2 = nn.Conv2d(inner, second.out_channels, 3, 1, 1, bias=False)
    return model


def networks(task: Task) -> dict[str, nn.Module]:
    """The networks to train: dense, pruned inside the blocks, pruned everywhere."""
    torch.manual_seed(0)
    thin = {"name": "resnet20", "arguments": {"widths": [7, 13, 29]}, "train": {"images": 0}}
    everywhere = load_task({**task.spec, "model": thin}).build()
    return {
        "ResNet-20": task.build(),
        "inner widths 7, 11, 13, 29 in turn": narrow(task.build(), (7, 11, 13, 29)),
        "widths 7, 13, 29; inner 5, 7, 11, 13 in turn": narrow(everywhere, (5, 7, 11, 13)),
    }


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """The training split as torchvision's data sets hand it out: PIL images through transforms."""

    def __init__(self, task: Task) -> None:
        pixels = task.train.pixels
        self.images, self.labels = task.train.images.numpy(), task.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(pixels.mean, pixels.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def defaults(model: nn.Module, task: Task, images: int, seed: int) -> float:
    """Images per second of the loop that PyTorch's tutorials write."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    torch.manual_seed(seed)
    loader = DataLoader(Subset(Pictures(task), range(images)), batch_size=BATCH, shuffle=True)
    model.train()
    began = time.perf_counter()
    for batch, labels in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(batch), labels).backward()
        optimizer.step()
    return images / (time.perf_counter() - began)


def bare(model: nn.Module, task: Task, images: int, seed: int) -> float:
    """Images per second of a loop without DataLoader and transforms."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    pixels = task.train.images.permute(0, 3, 1, 2).contiguous()
    labels, norm = task.train.labels, task.train.pixels
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (norm.mean, norm.std))
    torch.manual_seed(seed)
    order = torch.randperm(len(labels))[:images]
    model.train()
    began = time.perf_counter()
    for chosen in order.split(BATCH):
        batch = F.pad(pixels[chosen], (4, 4, 4, 4))
        down, right = torch.randint(0, 9, (2,)).tolist()
        batch = batch[:, :, down : down + 32, right : right + 32]
        batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
        optimizer.zero_grad()
        F.cross_entropy(model((batch / 255 - mean) / std), labels[chosen]).backward()
        optimizer.step()
    return len(order) / (time.perf_counter() - began)


def ours(model: nn.Module, task: Task, runtime: Runtime, images: int, seed: int) -> float:
    """Images per second of `fit`, with all its work."""
    log = fit(model, task, Training(batch_size=BATCH), runtime, images=images, seed=seed)
    return log.images / log.seconds


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network: images per second of the three sides per round, and how ours ran."""

    network: str
    runtime: Runtime
    defaults: list[float]
    bare: list[float]
    ours: list[float]

    def ratio(self, side: str) -> float:
        """Median over the rounds of ours / side within a round."""
        return statistics.median(a / b for a, b in zip(self.ours, getattr(self, side), strict=True))


def measure(name: str, model: nn.Module, task: Task, rounds: int, images: int) -> Row:
    """Measure the sides in turns, after one round that is not counted."""
    runtime = choose_runtime(model, task, BATCH, "cpu")
    speeds: dict[str, list[float]] = {"defaults": [], "bare": [], "ours": []}
    for turn in range(rounds + 1):
        model.to(memory_format=torch.contiguous_format)
        speeds["defaults"].append(defaults(model, task, images, turn))
        speeds["bare"].append(bare(model, task, images, turn))
        speeds["ours"].append(ours(model, task, runtime, images, turn))
    return Row(network=name, runtime=runtime, **{side: found[1:] for side, found in speeds.items()})


def table(rows: list[Row], pixels: str, rounds: int, images: int) -> str:
    """The result as Markdown."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    how = f"batch {BATCH}; medians of {rounds} rounds of {images} images, the sides in turns."
    columns = ("network", "defaults, images/s", "bare", "ours", "ours / defaults", "ours / bare", "ours ran as")
    lines = [
        f"{describe_machine()}; {versions}; {pixels}; {how}",
        "",
        *table_head(columns, text=(0, len(columns) - 1)),
    ]
    for row in rows:
        layout = "channels-last" if row.runtime.channels_last else "NCHW"
        speeds = (f"{statistics.median(side):,.0f}" for side in (row.defaults, row.bare, row.ours))
        ratios = (f"{row.ratio(side):.2f}" for side in ("defaults", "bare"))
        lines.append(table_row([row.network, *speeds, *ratios, f"{row.runtime.precision}, {layout}"]))
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with cifar10.npz; without it, random images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1280, help="per side and round")
    parser.add_argument("--json", type=Path, help="write every round's numbers here")
    options = parser.parse_args()
    task = open_task(options.data)
    rows = [measure(name, model, task, options.rounds, options.images) for name, model in networks(task).items()]
    print(table(rows, "CIFAR-10" if options.data else "random images", options.rounds, options.images))
    if options.json is not None:
        options.json.write_text(json.dumps([{**vars(row), "runtime": vars(row.runtime)} for row in rows], indent=1))


if __name__ == "__main__":
    main()
