"""Trial records: what a search has handed out and what came of it, answered as fast late in a search as early.

A search of 10,000 trials asks after each of them what the front is and which models are needed. Looking through all
trials each time took 30 ms of the driver at 600 trials, and grew with their square.
"""

from __future__ import annotations

from collections.abc import Iterable

from autoprune.recipe import Recipe
from autoprune.study.lineages import lineage
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.pareto import front
from autoprune.study.tradeoff import Tradeoff


class TrialRecords:
    """Proposals and outcomes of a search.

    Args:
        proposals, outcomes: of an earlier run.
        tradeoff: of the study.
    """

    def __init__(self, proposals: Iterable[Proposal], outcomes: Iterable[Outcome], tradeoff: Tradeoff) -> None:
        self.outcomes = list(outcomes)
        self._tradeoff = tradeoff
        self._undominated: list[Outcome] = []
        self._look(self.outcomes)
        self._proposals = {proposal.id: proposal for proposal in proposals}
        self._recipes = {number: proposal.recipe for number, proposal in self._proposals.items()}
        self._images = {outcome.id: outcome.own_images for outcome in self.outcomes}
        self._open = self._proposals.keys() - self._images.keys()
        self._controls = {outcome.id for outcome in self.outcomes if outcome.control and outcome.completed}

    def __contains__(self, number: int) -> bool:
        """Whether this trial was handed out."""
        return number in self._proposals

    def proposal(self, number: int) -> Proposal:
        """What was handed out under this number."""
        return self._proposals[number]

    def begin(self, proposal: Proposal) -> None:
        """Note that a trial is handed out, for the first time or again."""
        self._proposals[proposal.id], self._recipes[proposal.id] = proposal, proposal.recipe
        self._open.add(proposal.id)

    def end(self, outcome: Outcome) -> None:
        """Note that a trial has ended."""
        self.outcomes.append(outcome)
        self._open.discard(outcome.id)
        self._images[outcome.id] = outcome.own_images
        if outcome.completed:
            self._look([*self._undominated, outcome])  # who was dominated once stays so
        if outcome.completed and outcome.control:
            self._controls.add(outcome.id)

    def _look(self, outcomes: list[Outcome]) -> None:
        """Find the front, and beside it who was put off it only as latencies beside other trials are not sure."""
        self._undominated = front(outcomes, self._tradeoff, unsure=True)
        self.front = front(self._undominated, self._tradeoff)

    def images_of_ancestors(self, recipe: Recipe) -> int:
        """Training images of all trials that a recipe goes on from."""
        return sum(self._images.get(number, 0) for number, _ in lineage(recipe, self._recipes))

    def has_ended(self, number: int) -> bool:
        """Whether this trial has an outcome."""
        return number in self._images

    def needed_models(self) -> set[int]:
        """Trials whose models are of the front or of a control, or are gone on from by a trial that has not ended.

        Those too that may be of the front: its models are timed once more when nothing runs beside them.
        """
        parents = {self._recipes[number].parent for number in self._open}
        return {one.id for one in self._undominated} | self._controls | {one for one in parents if one is not None}
