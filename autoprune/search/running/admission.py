"""Admission: which trial may start, a new one or a paused one, so that what starts can be brought to its end."""

from __future__ import annotations

from autoprune.search.proposing.proposer import Proposer
from autoprune.search.running.budget_meter import BudgetMeter
from autoprune.search.running.front_plateau import PlateauCheck
from autoprune.search.running.paused_trials import PausedTrials


class Admission:
    """Decides what may start, from what is left of the budget.

    Args:
        proposer: knows how many trials were handed out.
        paused: the trials that may go on.
        budget: knows what is left.
        plateau: ends a search whose front has stopped to grow.

    `now` is always in seconds since the study began.
    """

    def __init__(self, proposer: Proposer, paused: PausedTrials, budget: BudgetMeter, plateau: PlateauCheck) -> None:
        self.proposer, self.paused, self.budget, self.plateau = proposer, paused, budget, plateau

    def is_budget_used_up(self, now: float) -> bool:
        """Whether time, images or GPU time are used up, or the front has stopped to grow."""
        return self.budget.is_used_up(now) or self.plateau.is_reached(self.budget.limits)

    def may_begin(self, now: float) -> bool:
        """Whether a new trial may start: the budget has one, and enough for its whole way."""
        trials, estimates = self.budget.limits.trials, self.budget.estimates
        if trials is not None and self.proposer.handed_out >= trials:
            return False
        return not self.is_budget_used_up(now) and self._leaves_room_for(
            estimates.whole_trial(), estimates.images(), now
        )

    def find_promotable(self, now: float) -> int | None:
        """The paused trial that goes on: by successive halving or, if a new one cannot end, the best that can."""
        halving = self.paused.halving
        number = halving.find_promotable()
        if number is not None and self._can_be_completed(number, now):
            return number
        if not self.budget.limits.consumes or self.may_begin(now):
            return None
        return next((waiting for waiting in halving.rank_waiting() if self._can_be_completed(waiting, now)), None)

    def next_pause(self, share: float, now: float) -> float:
        """Where a trial that goes on from a rung pauses next: nowhere (1) when there is no time for new trials."""
        ending = self.budget.limits.consumes and not self.may_begin(now)
        return 1.0 if ending else self.paused.halving.next_pause(share)

    def _can_be_completed(self, number: int, now: float) -> bool:
        """Whether a paused trial can still be brought to its end."""
        images = self.paused.images_left(number, self.paused.waiting[number].recipe)
        return self._leaves_room_for(self.budget.estimates.training(images), images, now)

    def _leaves_room_for(self, seconds: float, images: int, now: float) -> bool:
        """Whether so much of the budget is left.

        Without early stopping, trials may start until the deadline; the grace period lets them finish.
        """
        return not self.paused.halving.shares or self.budget.affords(seconds, images, now)
