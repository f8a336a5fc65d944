"""Limits: a budget as the moments and amounts at which a session ends."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.study.config import Budget, Goal

#: Running trials may overrun the search by this share of its minutes, but at least by these seconds.
GRACE_SHARE, GRACE_SECONDS = 0.1, 30.0

#: Trials that are asked to stop and do not are cut off after these seconds.
CUT_OFF_SECONDS = 10.0

#: A study folder that cannot be written, and a Ray without room for what workers send, are tried again so often, and
#: for so long; then the search ends.
RETRY_SECONDS, PATIENCE_SECONDS = 1.0, 1800.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a session ends: whatever comes first. None = no such limit.

    Fields:
        trials: of the whole study.
        deadline: no trial begins from then on, in seconds since the study began.
        gpu_seconds, images: what all trials of the study may use together.
        patience: completed trials without more hypervolume, or a lower cost, after which the study ends.
        gain: how much more or lower it must be, as a share of what it was.
        goal: the model whose cost is meant; None = the hypervolume is.
        grace: seconds after the deadline in which running trials may finish; then they are stopped.
    """

    trials: int | None = None
    deadline: float | None = None
    gpu_seconds: float | None = None
    images: int | None = None
    patience: int | None = None
    gain: float = 0.0
    goal: Goal | None = None
    grace: float = GRACE_SECONDS

    @classmethod
    def of(cls, budget: Budget, *, start: float = 0.0, kept: float | None = None) -> Limits:
        """The budget as limits of a session.

        Args:
            budget: what the session may use.
            start: when the session's minutes begin, in seconds since the study began.
            kept: share of the minutes that is kept for the final retraining.
        """
        seconds = None if budget.minutes is None else 60 * budget.minutes
        return cls(
            trials=budget.trials,
            deadline=None if seconds is None else start + seconds * (1 - (kept or 0.0)),
            gpu_seconds=None if budget.gpu_hours is None else 3600 * budget.gpu_hours,
            images=budget.images,
            patience=None if budget.until is None else budget.patience,
            gain=0.0 if budget.until is None else budget.gain,
            goal=budget.goal,
            grace=max(GRACE_SECONDS, GRACE_SHARE * (seconds or 0)),
        )

    @property
    def stop_at(self) -> float | None:
        """When running trials are asked to stop at their next rung, in seconds since the study began."""
        return None if self.deadline is None else self.deadline + self.grace

    @property
    def cut_off_at(self) -> float | None:
        """When trials that were asked to stop and did not are cut off."""
        return None if self.stop_at is None else self.stop_at + CUT_OFF_SECONDS

    @property
    def consumes(self) -> bool:
        """Whether something is used up as trials run, so that what is begun late cannot be brought to its end."""
        return not self.deadline is self.gpu_seconds is self.images is None
