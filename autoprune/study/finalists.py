"""Finalists: members of a front that were trained again at full length, and what several seeds gave on the test split.

A finalist is an `Outcome` with a `member`, the trial whose recipe it trains. The recipe runs as a whole once more, from
the dense weights on, so the longer recipe chooses its own widths: they meet the same target, and may differ from those
of the trial. A recipe that went on from others runs after these, with all their cuts and trainings in order, and they
share the images. The dense control is a member like the others, which are compared with it.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.config import Finalists
from autoprune.study.folder import Study
from autoprune.study.lineages import lineage, recipes_by_number
from autoprune.study.metric import MetricSpec
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
        metric: of the study.
    """

    member: int
    metric: MetricSpec
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
        """Training images of each run, those of its ancestors included."""
        return _planned_images([*self.runs[0].ancestors, self.runs[0].recipe])

    @property
    def flops_ratio(self) -> float:
        """Mean over the runs; each of them meets the target."""
        return statistics.fmean(run.flops_ratio or 0.0 for run in self.runs)

    @property
    def validation(self) -> MeanOverSeeds:
        """The metric on the validation split."""
        return MeanOverSeeds.of([run.metric for run in self.runs if run.metric is not None])

    @property
    def test(self) -> MeanOverSeeds:
        """The metric on the test split."""
        return MeanOverSeeds.of([run.test_metric for run in self.runs if run.test_metric is not None])

    @property
    def best(self) -> Outcome:
        """The run whose model is kept: the best on the validation split, never on the test split."""
        return max(self.runs, key=lambda run: (self._height(run), -run.id))

    def _height(self, run: Outcome) -> float:
        assert run.metric is not None, "it has completed"
        return self.metric.height(run.metric)


def by_member(outcomes: Sequence[Outcome], metric: MetricSpec) -> list[Finalist]:
    """The lines of `finalists.jsonl` that completed, by member: by rising FLOPs, so that the control comes last."""
    done = [run for run in outcomes if run.completed and run.member is not None]
    done.sort(key=lambda run: run.recipe.seed)
    members = dict.fromkeys(run.member for run in done if run.member is not None)
    found = [
        Finalist(member=member, metric=metric, runs=tuple(run for run in done if run.member == member))
        for member in members
    ]
    return sorted(found, key=lambda one: (one.dense, one.flops_ratio, one.member))


def count_lost(outcomes: Sequence[Outcome]) -> int:
    """How many trainings have not completed, at the first attempt or a later one."""
    done = {(run.member, run.recipe.seed) for run in outcomes if run.completed}
    return len({(run.member, run.recipe.seed) for run in outcomes} - done)


def against_dense(found: Sequence[Finalist]) -> dict[int, float | None]:
    """Member -> how far its mean metric on the test split lies above the dense control's; None if there is none."""
    dense = next((one.test.mean for one in found if one.dense), None)
    return {one.member: None if dense is None else one.test.mean - dense for one in found}


def rows(study: Study) -> list[dict[str, Any]]:
    """One row in plain data per member, for tables and JSON; metrics in their own unit.

    `searched` is what the search had found on the validation split, and `reproduced` how far the mean of the runs lies
    above that.
    """
    found = by_member(study.finalists, study.metric)
    searched = {outcome.id: outcome.metric for outcome in study.outcomes}
    above = against_dense(found)
    return [
        {
            "trial": one.member,
            "method": one.method,
            "seeds": len(one.runs),
            "flops_ratio": one.flops_ratio,
            "searched": searched.get(one.member),
            "reproduced": _difference(one.validation.mean, searched.get(one.member)),
            "validation": one.validation.mean,
            "validation_std": one.validation.std,
            "test": one.test.mean,
            "test_std": one.test.std,
            "against_dense": above[one.member],
        }
        for one in found
    ]


def _difference(value: float, other: float | None) -> float | None:
    return None if other is None else value - other


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

    @property
    def images(self) -> int:
        """Training images of the recipe and of those that it goes on from."""
        return _planned_images([*self.proposal.ancestors, self.proposal.recipe])


@dataclass(frozen=True)
class Member:
    """A trial that is trained again: its recipe, and those that it goes on from, from the dense model on."""

    number: int
    recipe: Recipe
    ancestors: tuple[Recipe, ...] = ()

    @property
    def images(self) -> int:
        """Training images of all of them."""
        return _planned_images([*self.ancestors, self.recipe])

    def at_full_length(self, images: int, turn: int, number: int) -> Proposal:
        """Its training number `turn`, in which all recipes together have so many images, each its share."""
        seen = [images * recipe.training.images // max(self.images, 1) for recipe in self.ancestors]
        ancestors = [_with_images(recipe, own, turn) for recipe, own in zip(self.ancestors, seen, strict=True)]
        return Proposal(
            id=number,
            recipe=_with_images(self.recipe, images - sum(seen), turn),
            control=self.recipe.method.name == DENSE,
            ancestors=tuple(ancestors),
        )


def to_train(study: Study, wanted: Finalists, trials: Collection[int] = ()) -> list[MissingTraining]:
    """The missing trainings: every seed of the dense control and of the chosen members, seed after seed.

    Trainings that completed earlier are not repeated; those that failed or were cut short are. The first seed is the
    recipe's own, the others follow it.

    Args:
        trials: numbers of the members; none = as many of the front as are wanted, evenly spread.

    Raises:
        InputError: the front is empty, a trial has not completed, or there are finalists of another length.
    """
    chosen = _chosen_members(study, wanted.most, trials)
    members = [_dense_control(study), *chosen]
    images = _training_images(study, wanted.images, members)
    done = {(run.member, run.recipe.seed) for run in study.finalists if run.completed}
    first = max((run.id for run in study.finalists), default=-1) + 1
    jobs = [(member, turn) for turn in range(wanted.seeds) for member in members]
    missing = [(member, turn) for member, turn in jobs if (member.number, _seed(member.recipe, turn)) not in done]
    return [
        MissingTraining(member.number, member.at_full_length(images, turn, number))
        for number, (member, turn) in enumerate(missing, first)
    ]


def shorter_than_searched(study: Study, entries: Collection[MissingTraining]) -> str:
    """A warning where a member is to have fewer images than its recipes had in the search; empty if none is."""
    searched = {member.number: member.images for member in _as_members(study, study.outcomes)}
    short = [entry for entry in entries if entry.images < searched.get(entry.member, 0)]
    if not short:
        return ""
    worst = max(short, key=lambda entry: searched[entry.member])
    had, count = searched[worst.member], len({entry.member for entry in short})
    what = f"trial {worst.member}, with all that it goes on from, had {had:,} images in the search"
    others = f" and {count - 1} others" if count > 1 else ""
    return f"{what} and gets {worst.images:,}: what was found may not be reached by it{others}"


def _chosen_members(study: Study, most: int, trials: Collection[int]) -> list[Member]:
    if not study.front:
        allowed = "a study in which something that was pruned has completed"
        raise InputError("the front is empty: nothing to train again", where=str(study.folder.path), allowed=allowed)
    chosen = [_completed(study, trial) for trial in dict.fromkeys(trials)] or evenly_spread(study.front, most)
    return _as_members(study, chosen)


def _as_members(study: Study, outcomes: Sequence[Outcome]) -> list[Member]:
    recipes = recipes_by_number(study.proposals)
    return [Member(one.id, one.recipe, tuple(r for _, r in lineage(one.recipe, recipes))) for one in outcomes]


def _completed(study: Study, trial: int) -> Outcome:
    """The outcome of a trial that pruned something and completed; raises `InputError` if there is none."""
    pruned = {one.id: one for one in study.outcomes if one.completed and one.recipe.method.name != DENSE}
    if trial not in pruned:
        allowed = f"pruned trials that completed; on the front: {', '.join(str(one.id) for one in study.front[:20])}"
        raise InputError(f"trial {trial} cannot be trained again", where=str(study.folder.path), allowed=allowed)
    return pruned[trial]


def _dense_control(study: Study) -> Member:
    """The number and recipe of the dense control.

    It is the search's own control, trained with the middle of every range. A search without controls
    (`controls: false`) lends the training of its first recipe, which with warm starts is the middle of every range too.
    """
    for proposal in study.proposals:
        if proposal.control and proposal.recipe.method.name == DENSE:
            return Member(proposal.id, proposal.recipe)
    if not study.proposals:
        what = "there is no recipe whose training a dense control could have"
        raise InputError(what, where=str(study.folder.proposals))
    first = min(study.proposals, key=lambda proposal: proposal.id).recipe
    return Member(CONTROL, replace(first, method=MethodChoice(name=DENSE), target=Target()))


def _training_images(study: Study, wanted: int | None, members: Sequence[Member]) -> int:
    """Training images of a finalist: as many as wanted, else as the finalists so far had, else the default.

    A member that has had more images than the default along its lineage gets them here too, and so do all others.
    """
    known = next((_planned_images([*run.ancestors, run.recipe]) for run in study.finalists if run.completed), None)
    if wanted is not None and known not in (None, wanted):
        raise InputError(
            f"{wanted} training images: the finalists of this study have {known}, and the test split is read once",
            where=str(study.folder.finalists),
            allowed=f"{known}, or another folder",
        )
    longest = max(member.recipe.training.images for member in members)
    return wanted or known or max(TIMES_LONGER * longest, *(member.images for member in members))


def _planned_images(recipes: Sequence[Recipe]) -> int:
    return sum(recipe.training.images for recipe in recipes)


def _with_images(recipe: Recipe, images: int, turn: int) -> Recipe:
    training = replace(recipe.training, images=images, rungs=(1.0,))
    return replace(recipe, training=training, seed=_seed(recipe, turn))


def _seed(recipe: Recipe, turn: int) -> int:
    return (recipe.seed + turn) % 2**32
