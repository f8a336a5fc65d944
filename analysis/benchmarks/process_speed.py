"""How fast several processes train one network together, beside one process with as many threads, in turns.

    python -m autoprune.analysis.benchmarks.process_speed [--processes 2] [--images 2560] [--rounds 3] [--out PAGE.md]

Random images of CIFAR-10's shape, batch 128. Every side trains in processes of its own, once to warm up and once on the
clock; a step of several processes ends when the slowest has the sum of all gradients.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.analysis.benchmarks.train_speed import BATCH, networks, open_task
from autoprune.recipe import Training
from autoprune.training.fit import fit
from autoprune.training.processes import Processes
from autoprune.training.runtime import Runtime

PAGE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Side:
    """So many processes, each with so many threads."""

    processes: int
    threads: int

    def __str__(self) -> str:
        words = [(self.processes, "process", "processes"), (self.threads, "thread", "threads")]
        return " of ".join(f"{count} {one if count == 1 else several}" for count, one, several in words)


def sides_of(processes: int) -> tuple[Side, ...]:
    """One process with a thread, one with as many threads as there are processes, and these processes."""
    return Side(1, 1), Side(1, processes), Side(processes, 1)


def images_per_second(side: Side, network: str, images: int) -> float:
    """What a side trains, all its processes together."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_train, (side, network, images, folder), nprocs=side.processes)
        return images / float((Path(folder) / "seconds").read_text())


def _train(rank: int, side: Side, network: str, images: int, folder: str) -> None:
    torch.set_num_threads(side.threads)
    if side.processes > 1:
        meeting = f"file://{folder}/meeting"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=side.processes)
    processes, task = Processes.current(), open_task(None)
    runtime = Runtime(precision="bf16", channels_last=True, threads=side.threads)
    model, training = networks(task)[network], Training(batch_size=BATCH)
    for count in (5 * BATCH, images):
        log = fit(model, task, training, runtime, images=count, seed=0, processes=processes)
    if processes.leads:
        (Path(folder) / "seconds").write_text(str(log.seconds))
    if side.processes > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def table(speeds: dict[str, dict[Side, list[float]]], processes: int) -> list[str]:
    """Rows in Markdown: medians, and the ratio of the last two sides in the median of the rounds."""
    sides = sides_of(processes)
    lines = table_head(["network", *(f"{side}, images/s" for side in sides), "processes / threads"])
    for network, found in speeds.items():
        medians = [f"{statistics.median(found[side]):,.0f}" for side in sides]
        ratio = statistics.median(a / b for a, b in zip(found[sides[2]], found[sides[1]], strict=True))
        lines.append(table_row([network, *medians, f"{ratio:.2f}"]))
    return lines


def main() -> None:
    """Measure all sides in turns and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    sides = sides_of(options.processes)
    speeds: dict[str, dict[Side, list[float]]] = {}
    for network in networks(open_task(None)):
        speeds[network] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side in sides:
                speeds[network][side].append(images_per_second(side, network, options.images))
    lines = [
        "# Several processes that train together",
        "",
        f"`python -m autoprune.analysis.benchmarks.process_speed`; {describe_machine()}; torch {torch.__version__}.",
        f"Random images, batch {BATCH}, bf16, channels-last; medians of {options.rounds} rounds of {options.images}.",
        "",
        *table(speeds, options.processes),
    ]
    print("\n".join(lines))
    write_measured(options.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
