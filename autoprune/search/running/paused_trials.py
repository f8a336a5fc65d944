"""Paused trials: their outcomes so far, and asynchronous successive halving, which says which of them goes on."""

from __future__ import annotations

from autoprune.recipe import Recipe
from autoprune.search.running.early_stopping import SuccessiveHalving
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import Tradeoff


class PausedTrials:
    """Trials that wait at a rung, and trials that went on from one and have not ended.

    Args:
        halving: says which waiting trial goes on.
        tradeoff: of the study.
    """

    def __init__(self, halving: SuccessiveHalving, tradeoff: Tradeoff) -> None:
        self.halving = halving
        self.waiting: dict[int, Outcome] = {}  # as they were at their last rung
        self._tradeoff = tradeoff
        self._at_last_pause: dict[int, Outcome] = {}  # of waiting trials, and of those that went on and run

    def at_last_pause(self, number: int) -> Outcome | None:
        """The outcome of a trial when it paused last; None if it never did, or has ended."""
        return self._at_last_pause.get(number)

    def images_left(self, number: int, recipe: Recipe) -> int:
        """Training images that a trial needs to its end."""
        outcome = self._at_last_pause.get(number)
        return recipe.training.images - (outcome.rungs[-1].images if outcome else 0)

    def record(self, outcome: Outcome) -> None:
        """Compare a trial with others at the rungs that it has passed."""
        costs = [outcome.costs[name] for name in self._tradeoff.costs]
        if outcome.control or None in costs:
            return
        for rung in outcome.rungs:
            if rung.share in self.halving.shares and rung.comparable:
                height = self._tradeoff.metric.height(rung.metric)
                self.halving.record(outcome.id, rung.share, (*costs, -height))  # type: ignore[arg-type]
        if outcome.completed:
            self.halving.record_completion(outcome.id)

    def pause(self, outcome: Outcome) -> None:
        """Let a trial wait at its last rung."""
        self.record(outcome)
        self.waiting[outcome.id] = self._at_last_pause[outcome.id] = outcome
        self.halving.pause(outcome.id, outcome.rungs[-1].share)

    def resume(self, number: int) -> Outcome:
        """Let a waiting trial go on; its outcome so far."""
        self.halving.resume(number)
        return self.waiting.pop(number)

    def forget(self, number: int) -> None:
        """Forget a trial that has ended."""
        self._at_last_pause.pop(number, None)
