"""The lineages of a study's front: which trials its members go on from, and what each training gained."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.study.folder import Study
from autoprune.study.lineages import lineage, recipes_by_number
from autoprune.study.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Descendant:
    """A front member or an ancestor of one.

    Fields:
        outcome: of its trial.
        depth: trials that it goes on from.
        on_front: whether it is a member itself.
        gained: its metric above its parent's, or above the dense model's; below it, where smaller is better.
        cut: whether it is smaller than what it goes on from.
    """

    outcome: Outcome
    depth: int
    on_front: bool
    gained: float
    cut: bool


def descent_of_front(study: Study) -> list[Descendant]:
    """Front members and their ancestors as a tree: a trial, then all that goes on from it; empty without parents."""
    outcomes, members = {outcome.id: outcome for outcome in study.outcomes}, {member.id for member in study.front}
    lines = [[*_ancestors(study, member), member.id] for member in study.front]
    if all(len(line) == 1 for line in lines):
        return []
    found: dict[tuple[int, ...], Descendant] = {}
    for line in sorted(lines):
        for depth, number in enumerate(line):
            before = outcomes.get(line[depth - 1]) if depth else None
            if number in outcomes:
                found[tuple(line[: depth + 1])] = _descendant(study, outcomes[number], before, depth, members)
    return list(found.values())


def descent_lines(study: Study) -> list[tuple[Outcome, Outcome]]:
    """Parent and child for every step of the lineages of the front."""
    outcomes = {outcome.id: outcome for outcome in study.outcomes}
    steps = [(one.outcome.recipe.parent, one.outcome) for one in descent_of_front(study)]
    return [(outcomes[parent], child) for parent, child in steps if parent is not None and parent in outcomes]


def _ancestors(study: Study, member: Outcome) -> list[int]:
    return [number for number, _ in lineage(member.recipe, recipes_by_number(study.proposals))]


def _descendant(study: Study, outcome: Outcome, before: Outcome | None, depth: int, members: set[int]) -> Descendant:
    start = (study.dense_metric if before is None else before.metric) or 0.0
    return Descendant(
        outcome=outcome,
        depth=depth,
        on_front=outcome.id in members,
        gained=(outcome.metric or 0.0) - start,
        cut=before is None or dict(before.widths) != dict(outcome.widths),
    )
