"""Budget meter: what trials have used of their limits, what still fits into these, and how long the rest takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autoprune.search.proposing.lineage_planner import Room
from autoprune.search.running.limits import Limits
from autoprune.search.running.time_estimates import TimeEstimates
from autoprune.study.outcome import Outcome


@dataclass
class Spending:
    """What the trials of a study have used so far, and what running trials will have used when they end.

    Args:
        gpus: of a trial.
    """

    gpus: float
    _ended: dict[int, tuple[int, float]] = field(default_factory=dict)
    _ahead: dict[int, tuple[int, float]] = field(default_factory=dict)

    def begin(self, number: int, images: int, seconds: float) -> None:
        """Note that a segment begins; its trial needs so many training images and seconds to come to its end."""
        self._ahead[number] = images, seconds

    def end(self, outcome: Outcome) -> None:
        """Note that a segment has ended; its outcome says what the whole trial has used so far."""
        self._ahead.pop(outcome.id, None)
        self._ended[outcome.id] = outcome.rungs[-1].images if outcome.rungs else 0, sum(outcome.seconds.values())

    def images(self, *, ahead: bool = True) -> int:
        """Training images; with `ahead`, what running trials still need included."""
        return sum(images for images, _ in self._of_trials(ahead))

    def gpu_seconds(self, *, ahead: bool = True) -> float:
        """Seconds of one GPU; with `ahead`, what running trials still need included."""
        return self.gpus * sum(seconds for _, seconds in self._of_trials(ahead))

    def _of_trials(self, ahead: bool) -> list[tuple[int, float]]:
        return [*self._ended.values(), *(self._ahead.values() if ahead else ())]


class BudgetMeter:
    """Compares what trials have used, and what they are expected to use, with the limits of a session.

    Args:
        limits: when the session ends.
        gpus: of a trial.

    `now` is always in seconds since the study began.
    """

    def __init__(self, limits: Limits, *, gpus: float) -> None:
        self.limits = limits
        self.estimates = TimeEstimates()
        self.spent = Spending(gpus)

    def begin(self, number: int, images: int) -> None:
        """Note that a segment begins; its trial needs so many training images to come to its end."""
        self.spent.begin(number, images, self.estimates.training(images))

    def end(self, outcome: Outcome) -> None:
        """Learn from the outcome of a segment."""
        self.estimates.learn(outcome)
        self.spent.end(outcome)

    def is_used_up(self, now: float) -> bool:
        """Whether the time, the images or the GPU time is used up; trials are not counted here."""
        limits, spent = self.limits, self.spent
        return (
            (limits.deadline is not None and now >= limits.deadline)
            or (limits.images is not None and spent.images(ahead=False) >= limits.images)
            or (limits.gpu_seconds is not None and spent.gpu_seconds(ahead=False) >= limits.gpu_seconds)
        )

    def affords(self, seconds: float, images: int, now: float) -> bool:
        """Whether a trial that needs so much can come to its end, as all running trials do."""
        limits, spent = self.limits, self.spent
        return (
            (limits.deadline is None or now + seconds <= limits.deadline)
            and (limits.images is None or spent.images() + images <= limits.images)
            and (limits.gpu_seconds is None or spent.gpu_seconds() + spent.gpus * seconds <= limits.gpu_seconds)
        )

    def room(self, now: float) -> Room:
        """What is left for a trial that begins now, once all running trials have come to their end."""
        limits, spent = self.limits, self.spent
        seconds = [] if limits.deadline is None else [limits.deadline - now]
        if limits.gpu_seconds is not None and spent.gpus:
            seconds.append((limits.gpu_seconds - spent.gpu_seconds()) / spent.gpus)
        images = math.inf if limits.images is None else limits.images - spent.images()
        return Room(seconds=min(seconds, default=math.inf), images=images)

    def used_share(self, trials: int, now: float) -> float | None:
        """The share of the budget that is used: the largest if there are several limits, None if there is none."""
        limits, spent = self.limits, self.spent
        counted = (
            (trials, limits.trials),
            (now, limits.deadline),
            (spent.images(ahead=False), limits.images),
            (spent.gpu_seconds(ahead=False), limits.gpu_seconds),
        )
        shares = [amount / limit for amount, limit in counted if limit]
        return min(1.0, max(shares)) if shares else None

    def seconds_left(self, seconds_of_trials: float | None, now: float) -> float | None:
        """Seconds until the first limit is reached; None = unknown yet.

        Args:
            seconds_of_trials: until as many trials have ended as the limits allow, None = unknown or no such limit.
        """
        limits, spent = self.limits, self.spent
        times = [] if limits.deadline is None else [limits.deadline - now]
        times += [] if seconds_of_trials is None else [seconds_of_trials]
        used = ((limits.images, spent.images(ahead=False)), (limits.gpu_seconds, spent.gpu_seconds(ahead=False)))
        times += [now * (limit / amount - 1) for limit, amount in used if limit is not None and amount]
        return max(0.0, min(times)) if times else None
