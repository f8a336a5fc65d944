"""Finalists: members of a front that were trained again at full length, and what several seeds gave on the test split.

A finalist is an `Outcome` with a `member`, the trial whose recipe it trains. The recipe runs as a whole once more, from
the dense weights on, so the longer recipe chooses its own widths: they meet the same target, and may differ from those
of the trial. The dense control is a member like the others, which are compared with it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.config import Finalists
from autoprune.study.folder import Study
from autoprune.study.outcome import DENSE, Outcome, Proposal

T = TypeVar("T")

#: The number of the dense control where the search had none.
CONTROL = -1

#: A finalist has so many times the images of the longest recipe among the members, unless the study says otherwise.
TIMES_LONGER = 5


@dataclass(frozen=True, kw_only=True)
class MeanOverSeeds:
    """What several seeds gave: mean and sample standard deviation; a single one has none."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanOverSeeds:
        """At least one value."""
        return cls(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One member with all of its completed finalists, by rising seed.

    Fields:
        member: number of the trial; `CONTROL` = the dense control of a search that had none.
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
    def validation(self) -> MeanOverSeeds:
        """Accuracy on the validation split."""
        return MeanOverSeeds.of([run.accuracy or 0.0 for run in self.runs])

    @property
    def test(self) -> MeanOverSeeds:
        """Accuracy on the test split."""
        return MeanOverSeeds.of([run.test_accuracy or 0.0 for run in self.runs])

    @property
    def best(self) -> Outcome:
        """The run whose model is kept: the best on the validation split, never on the test split."""
        return max(self.runs, key=lambda run: (run.accuracy or 0.0, -run.id))


def by_member(outcomes: Sequence[Outcome]) -> list[Finalist]:
    """The lines of `finalists.jsonl` that completed, by member: by rising FLOPs, so that the control comes last."""
    done = [run for run in outcomes if run.completed and run.member is not None]
    done.sort(key=lambda run: run.recipe.seed)
    members = dict.fromkeys(run.member for run in done if run.member is not None)
    found = [Finalist(member=member, runs=tuple(run for run in done if run.member == member)) for member in members]
    return sorted(found, key=lambda one: (one.dense, one.flops_ratio, one.member))


def count_lost(outcomes: Sequence[Outcome]) -> int:
    """How many trainings have not completed, at the first attempt or a later one."""
    done = {(run.member, run.recipe.seed) for run in outcomes if run.completed}
    return len({(run.member, run.recipe.seed) for run in outcomes} - done)


def against_dense(found: Sequence[Finalist]) -> dict[int, float | None]:
    """Member -> how far its mean test accuracy lies above that of the dense control; None if there is none."""
    dense = next((one.test.mean for one in found if one.dense), None)
    return {one.member: None if dense is None else one.test.mean - dense for one in found}


def rows(study: Study) -> list[dict[str, Any]]:
    """One row in plain data per member, for tables and JSON; accuracies in [0, 1]."""
    found = by_member(study.finalists)
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


def evenly_spread(members: Sequence[T], most: int) -> list[T]:
    """At most `most` of the members, evenly spaced in their order; with room for two, both ends are among them."""
    if len(members) <= most:
        return list(members)
    if most == 1:
        return [members[len(members) // 2]]
    return [members[round(i * (len(members) - 1) / (most - 1))] for i in range(most)]


@dataclass(frozen=True)
class MissingTraining:
    """One training that is still to be done: a member's recipe at full length with one of the seeds."""

    member: int
    proposal: Proposal


def to_train(study: Study, wanted: Finalists) -> list[MissingTraining]:
    """The missing trainings: every seed of the dense control and of the chosen members, seed after seed.

    Trainings that completed earlier are not repeated; those that failed or were cut short are. The first seed is the
    recipe's own, the others follow it.

    Raises:
        InputError: the front is empty, or there are finalists of another length.
    """
    chosen = _chosen_members(study, wanted.most)
    members = [_dense_control(study), *chosen]
    images = _training_images(study, wanted.images, [recipe for _, recipe in members])
    done = {(run.member, run.recipe.seed) for run in study.finalists if run.completed}
    first = max((run.id for run in study.finalists), default=-1) + 1
    turns = range(wanted.seeds)
    jobs = [(member, _at_full_length(recipe, images, turn)) for turn in turns for member, recipe in members]
    missing = [(member, recipe) for member, recipe in jobs if (member, recipe.seed) not in done]
    return [
        MissingTraining(member, Proposal(id=number, recipe=recipe, control=recipe.method.name == DENSE))
        for number, (member, recipe) in enumerate(missing, first)
    ]


def _chosen_members(study: Study, most: int) -> list[tuple[int, Recipe]]:
    if not study.front:
        allowed = "a study in which something that was pruned has completed"
        raise InputError("the front is empty: nothing to train again", where=str(study.folder.path), allowed=allowed)
    return [(member.id, member.recipe) for member in evenly_spread(study.front, most)]


def _dense_control(study: Study) -> tuple[int, Recipe]:
    """The number and recipe of the dense control.

    It is the search's own control, trained with the middle of every range. A search without controls
    (`controls: false`) lends the training of its first recipe, which with warm starts is the middle of every range too.
    """
    for proposal in study.proposals:
        if proposal.control and proposal.recipe.method.name == DENSE:
            return proposal.id, proposal.recipe
    if not study.proposals:
        what = "there is no recipe whose training a dense control could have"
        raise InputError(what, where=str(study.folder.proposals))
    first = min(study.proposals, key=lambda proposal: proposal.id).recipe
    return CONTROL, replace(first, method=MethodChoice(name=DENSE), target=Target())


def _training_images(study: Study, wanted: int | None, recipes: Sequence[Recipe]) -> int:
    """Training images of a finalist: as many as wanted, else as the finalists so far had, else the default."""
    known = next((run.recipe.training.images for run in study.finalists if run.completed), None)
    if wanted is not None and known not in (None, wanted):
        raise InputError(
            f"{wanted} training images: the finalists of this study have {known}, and the test split is read once",
            where=str(study.folder.finalists),
            allowed=f"{known}, or another folder",
        )
    return wanted or known or TIMES_LONGER * max(recipe.training.images for recipe in recipes)


def _at_full_length(recipe: Recipe, images: int, turn: int) -> Recipe:
    training = replace(recipe.training, images=images, rungs=(1.0,))
    return replace(recipe, training=training, seed=(recipe.seed + turn) % 2**32)
