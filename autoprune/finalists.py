"""Finalists: members of a front that were trained again at full length, and what several seeds gave on the test split.

A finalist is an `Outcome` with a `member`, the trial whose recipe it trains. The recipe runs as a whole once more, from
the dense weights on, so its widths are those that the longer recipe chooses: they meet the same target, and may differ
from those of the trial. The dense control is a member like the others, and what they are compared with.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from autoprune.pareto import DENSE
from autoprune.results import Outcome, Study

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What several seeds gave: mean and sample standard deviation; a single one has none."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Measured:
        """At least one value."""
        return cls(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One member with all of its completed finalists, by rising seed.

    Fields:
        member: number of the trial.
        runs: at least one.
    """

    member: int
    runs: tuple[Outcome, ...]

    @property
    def method(self) -> str:
        """Its name."""
        return self.runs[0].recipe.method.name

    @property
    def dense(self) -> bool:
        """Whether it is the control."""
        return self.method == DENSE

    @property
    def images(self) -> int:
        """Training images of each run."""
        return self.runs[0].recipe.training.images

    @property
    def flops_ratio(self) -> float:
        """Mean over the runs; each of them meets the target."""
        return statistics.fmean(run.flops_ratio or 0.0 for run in self.runs)

    @property
    def validation(self) -> Measured:
        """Accuracy on the validation split."""
        return Measured.of([run.accuracy or 0.0 for run in self.runs])

    @property
    def test(self) -> Measured:
        """Accuracy on the test split."""
        return Measured.of([run.test_accuracy or 0.0 for run in self.runs])

    @property
    def best(self) -> Outcome:
        """The run whose model is kept: the best on the validation split, never on the test split."""
        return max(self.runs, key=lambda run: (run.accuracy or 0.0, -run.id))


def finalists(outcomes: Sequence[Outcome]) -> list[Finalist]:
    """The lines of `finalists.jsonl` that completed, by member: by rising FLOPs, so that the control comes last."""
    done = sorted((run for run in outcomes if run.completed and run.member is not None), key=lambda run: run.seed)
    members = dict.fromkeys(run.member for run in done if run.member is not None)
    found = [Finalist(member=member, runs=tuple(run for run in done if run.member == member)) for member in members]
    return sorted(found, key=lambda one: (one.dense, one.flops_ratio, one.member))


def against_dense(found: Sequence[Finalist]) -> dict[int, float | None]:
    """Member -> how far its mean test accuracy lies above that of the dense control; None if there is none."""
    dense = next((one.test.mean for one in found if one.dense), None)
    return {one.member: None if dense is None else one.test.mean - dense for one in found}


def rows(study: Study) -> list[dict[str, Any]]:
    """One row in plain data per member, for tables and JSON; accuracies in [0, 1]."""
    found = finalists(study.finalists)
    above = against_dense(found)
    return [
        {
            "trial": one.member,
            "method": one.method,
            "seeds": len(one.runs),
            "flops_ratio": one.flops_ratio,
            "validation": one.validation.mean,
            "validation_std": one.validation.std,
            "test": one.test.mean,
            "test_std": one.test.std,
            "against_dense": above[one.member],
        }
        for one in found
    ]


def spread(members: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly by their order; both ends are among them if there is room for two."""
    if len(members) <= most:
        return list(members)
    if most == 1:
        return [members[len(members) // 2]]
    return [members[round(i * (len(members) - 1) / (most - 1))] for i in range(most)]
