"""When a search ends: the budget as limits, and what of it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from autoprune.study.config import Budget
from autoprune.study.outcome import OBJECTIVES, Outcome
from autoprune.study.pareto import hypervolume_over_time

#: Running trials may overrun the search by this share of its minutes, but at least by these seconds.
GRACE_SHARE, GRACE_SECONDS = 0.1, 30.0

CUT_OFF_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a session ends: whatever comes first. None = no such limit.

    Fields:
        trials: recipes of the whole study.
        deadline: no recipe is handed out for the first time from then on, in seconds since the study began.
        gpu_seconds, images: what all recipes of the study may use together.
        patience: completed recipes without more hypervolume after which the study ends.
        gain: how much more it must be, as a share of what it was.
        grace: seconds after the deadline in which running trials may finish; then they are stopped.
    """

    trials: int | None = None
    deadline: float | None = None
    gpu_seconds: float | None = None
    images: int | None = None
    patience: int | None = None
    gain: float = 0.0
    grace: float = GRACE_SECONDS

    @classmethod
    def of(cls, budget: Budget, *, start: float = 0.0, kept: float | None = None) -> Limits:
        """The budget as limits of a session that begins at `start`; a share of the minutes is kept for its finals."""
        seconds = None if budget.minutes is None else 60 * budget.minutes
        return cls(
            trials=budget.trials,
            deadline=None if seconds is None else start + seconds * (1 - (kept or 0.0)),
            gpu_seconds=None if budget.gpu_hours is None else 3600 * budget.gpu_hours,
            images=budget.images,
            patience=budget.patience if budget.until == "hypervolume" else None,
            gain=budget.gain if budget.until == "hypervolume" else 0.0,
            grace=max(GRACE_SECONDS, GRACE_SHARE * (seconds or 0)),
        )

    @property
    def until(self) -> float | None:
        """When running trials are asked to stop, in seconds since the study began."""
        return None if self.deadline is None else self.deadline + self.grace

    @property
    def at_last(self) -> float | None:
        """When trials that did not listen are cut off."""
        return None if self.until is None else self.until + CUT_OFF_SECONDS

    @property
    def consumes(self) -> bool:
        """Whether something is used up as recipes run, so that what is begun late cannot be brought to its end."""
        return not self.deadline is self.gpu_seconds is self.images is None


@dataclass
class Spent:
    """What the recipes of a study have used so far, and what those that run now will have used when they end.

    Args:
        gpus: of a trial.
    """

    gpus: float
    _ended: dict[int, tuple[int, float]] = field(default_factory=dict)
    _ahead: dict[int, tuple[int, float]] = field(default_factory=dict)

    def begins(self, number: int, images: int, seconds: float) -> None:
        """A leg begins; its recipe needs so many training images and seconds to come to its end."""
        self._ahead[number] = images, seconds

    def ends(self, outcome: Outcome) -> None:
        """A leg has ended: what its recipe has used, earlier legs included."""
        self._ahead.pop(outcome.id, None)
        self._ended[outcome.id] = outcome.rungs[-1].images if outcome.rungs else 0, sum(outcome.seconds.values())

    def images(self, *, ahead: bool = True) -> int:
        """Training images."""
        return sum(images for images, _ in self._all(ahead))

    def gpu_seconds(self, *, ahead: bool = True) -> float:
        """Seconds of one GPU."""
        return self.gpus * sum(seconds for _, seconds in self._all(ahead))

    def _all(self, ahead: bool) -> list[tuple[int, float]]:
        return [*self._ended.values(), *(self._ahead.values() if ahead else ())]


def on_plateau(outcomes: Sequence[Outcome], limits: Limits, objectives: Sequence[str] = OBJECTIVES) -> bool:
    """Whether the last `patience` recipes that were pruned and completed brought hardly more hypervolume."""
    if limits.patience is None:
        return False
    volumes = hypervolume_over_time(outcomes, objectives)[:, 1]
    if len(volumes) <= limits.patience:
        return False
    return bool(volumes[-1] < volumes[-1 - limits.patience] * (1 + limits.gain))
