"""Claims that are read from the runs of `methods_cifar10`: growing against one-shot removal, softer against soft."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from autoprune.analysis.claims.mechanisms_common import Claim, Found, verdicts
from autoprune.analysis.claims.methods_cifar10 import Row, label

#: One-shot removal that is fine-tuned as long as GReg is after its stage.
ONE_SHOT = "l1, 50,000 images"
PAIRS = (
    ("greg1", ONE_SHOT, "GReg-1: growing beats one-shot removal of the same filters, same fine-tuning"),
    ("greg1", "l1", "GReg-1 against one-shot removal of the same filters, same images in all"),
    ("greg2", "l1", "GReg-2 against one-shot removal by magnitude, same images in all"),
    ("srfp", "sfp", "softer beats soft: `srfp` against `sfp`"),
    ("asrfp", "asfp", "softer beats soft: `asrfp` against `asfp`"),
    ("asfp", "sfp", "asymptotic beats constant: `asfp` against `sfp`"),
    ("asrfp", "srfp", "asymptotic beats constant: `asrfp` against `srfp`"),
)


def claims(runs: Sequence[Row]) -> Iterator[Claim]:
    """Every pair, before and after fine-tuning."""
    for one, other, claim in PAIRS:
        for column in ("before", "after"):
            yield f"{claim}, {column} fine-tuning", *compared(runs, one, other, column)


def compared(runs: Sequence[Row], one: str, other: str, column: str) -> tuple[str, str]:
    """Differences in points over the seeds that both have, per target; whether all are clearly above zero."""
    said, found = [], []
    for flops in sorted({row["flops"] for row in runs}, reverse=True):
        ours, theirs = (
            {row["seed"]: 100 * row[column] for row in runs if (label(row), row["flops"]) == (name, flops)}
            for name in (one, other)
        )
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if differences:
            found.append(differences)
            each = ", ".join(f"{difference:+.2f}" for difference in differences)
            said.append(f"{np.mean(differences):+.2f} points at {flops:.0%} ({each})")
    return "; ".join(said), verdicts(found)


def draw_soft(axes: Any, _found: Found, runs: Sequence[Row]) -> None:
    """The family of soft methods, before and after fine-tuning."""
    family = ("sfp", "asfp", "srfp", "asrfp")
    draw_methods(axes[0], runs, family, "before fine-tuning", "before")
    draw_methods(axes[1], runs, family, "after", "after")


def draw_methods(axis: Any, runs: Sequence[Row], names: Sequence[str], title: str, column: str = "after") -> None:
    """Mean accuracy over targets, a line per method."""
    for name in names:
        points = [(row["flops"], 100 * row[column]) for row in runs if label(row) == name and row[column]]
        means = sorted({flops: np.mean([a for f, a in points if f == flops]) for flops, _ in points}.items())
        axis.plot(*zip(*means, strict=True), marker="o", label=name)
    axis.set(xlabel="share of the FLOPs", ylabel="accuracy, %", title=title)
    axis.set_xticks(sorted({row["flops"] for row in runs if label(row) in names}))
    axis.legend()
