"""How many image files one core decodes, crops and scales for a training, beside torchvision's usual transforms.

    python -m autoprune.analysis.benchmarks.image_folder_speed [--files 64] [--rounds 5] [--out PAGE.md]

Files are JPEGs of ImageNet's usual size and of a camera's, drawn here: smooth colours and noise. *Ours* is what the
`image_folder` source does with a file; *usual* opens it by `ImageFolder`'s loader and applies RandomResizedCrop,
RandomHorizontalFlip and ToTensor. The sides take turns on one core; the best of all rounds counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.tasks.image_folder import ImageFiles, read_image
from autoprune.training.seeds import random_stream

PAGE = Path(__file__).with_suffix(".md")
SIDE = 224
#: Height and width of the files, and how many of those that are asked for: large ones take long.
SIZES = {(375, 500): 1.0, (1500, 2000): 0.125}
Read = Callable[[int], object]


def draw_files(folder: Path, count: int, height: int, width: int) -> list[str]:
    """JPEGs of photographs' size that take as long to decode."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        colours = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
        smooth = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC), np.float64)
        noisy = smooth + random.normal(size=smooth.shape, scale=8.0)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    return [str(folder / f"{number}.jpg") for number in range(count)]


def sides_of(files: list[str]) -> dict[str, Read]:
    """What each side does with a file."""
    from torchvision import transforms
    from torchvision.datasets.folder import default_loader

    ours = ImageFiles(tuple(files), torch.zeros(len(files), dtype=torch.long), ("crop", "flip"), SIDE)
    random = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    usual = transforms.Compose(random)
    return {
        "ours": lambda number: ours.decode(number, random_stream(0, number)),
        "usual": lambda number: usual(default_loader(files[number])),
        "decoding alone": lambda number: read_image(files[number]),
    }


def measure(files: list[str], rounds: int) -> dict[str, float]:
    """Images a second of every side."""
    sides = sides_of(files)
    seconds = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, read in sides.items():
            began = time.perf_counter()
            for number in range(len(files)):
                read(number)
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return {name: len(files) / elapsed for name, elapsed in seconds.items()}


def page(found: dict[str, dict[str, float]]) -> str:
    """The measured part of the page: images a second of every side, by kind of file."""
    kinds = list(found)
    lines = [
        "# Image files a second",
        "",
        f"`python -m autoprune.analysis.benchmarks.image_folder_speed`; {describe_machine()}.",
        f"A random part of each JPEG is scaled to {SIDE} x {SIDE}; images a second of one core.",
        "",
        *table_head(["side", *kinds]),
        *(table_row([side, *(f"{found[kind][side]:.0f}" for kind in kinds)]) for side in found[kinds[0]]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw the files, measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for (height, width), share in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            files = draw_files(Path(folder), max(1, int(share * options.files)), height, width)
            kilobytes = sum(Path(file).stat().st_size for file in files) / len(files) / 1000
            found[f"{width} x {height}, {kilobytes:.0f} kB"] = measure(files, options.rounds)
    write_measured(options.out, page(found))


if __name__ == "__main__":
    main()
