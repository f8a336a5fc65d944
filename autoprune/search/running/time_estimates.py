"""Time estimates: how long trials take, from those seen so far; they decide what still fits into a budget."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence

from autoprune.study.outcome import Outcome

#: Numbers that are looked back at: conditions change, and cheap recipes come late.
MEMORY = 64


class RecentNumbers:
    """The last numbers of one kind; those of controls only until there are others."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=MEMORY)
        self._of_controls = True

    def add(self, values: Sequence[float], *, control: bool) -> None:
        """Take in numbers of one trial."""
        if not values or (control and not self._of_controls):
            return
        if self._of_controls and not control:
            self.values.clear()
            self._of_controls = False
        self.values.extend(values)

    def median(self) -> float:
        """Zero if there are none."""
        return statistics.median(self.values) if self.values else 0.0


class TimeEstimates:
    """Medians over the last trials; infinite haste, that is zero seconds, until something was seen.

    Controls, of which the dense one is the slowest trial of all, count until another trial has come as far.
    """

    def __init__(self) -> None:
        self._seconds_per_image, self._seconds_to_start = RecentNumbers(), RecentNumbers()
        self._images = RecentNumbers()
        self._unmeasured: dict[int, float | None] = {}  # trial -> seconds if it came to no rung at all

    def learn(self, outcome: Outcome) -> None:
        """Learn from the rungs of a trial so far."""
        self._images.add([outcome.recipe.training.images], control=outcome.control)
        self._seconds_per_image.add(list(_seconds_per_image(outcome)), control=outcome.control)
        if outcome.rungs and outcome.rungs[0].images == 0:
            self._seconds_to_start.add([outcome.rungs[0].seconds], control=outcome.control)
        if not outcome.control:
            self._unmeasured[outcome.id] = None if outcome.rungs else outcome.finished - outcome.started

    def images(self) -> int:
        """Training images of a trial."""
        return math.ceil(self._images.median())

    def until_training(self) -> float:
        """Seconds from the start of a trial to its fine-tuning."""
        return self._seconds_to_start.median()

    def training(self, images: int) -> float:
        """Seconds for so many training images, evaluations on the way included."""
        return images * self._seconds_per_image.median()

    def whole_trial(self) -> float:
        """Seconds of a new trial from its start to its end."""
        return self.until_training() + self.training(self.images())

    def average_trial(self, shares: Sequence[float], keep: float) -> float | None:
        """Seconds of a new trial on average, if the share `keep` goes on at each of these rungs; None = not known yet.

        Trials that break a constraint, or fail, before they were measured once are expected to be as many and as short
        as so far.
        """
        if not self._seconds_per_image.values:
            return None
        recent = list(self._unmeasured.values())[-MEMORY:] or [None]
        short = [seconds for seconds in recent if seconds is not None]
        measured = len(recent) - len(short)
        return (sum(short) + measured * self._average_measured_trial(shares, keep)) / len(recent)

    def _average_measured_trial(self, shares: Sequence[float], keep: float) -> float:
        """Seconds on average of a trial that comes to its first rung."""
        ends = [share for share in shares if share > 0] + [1.0]
        first = keep if 0.0 in shares else 1.0
        lengths = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
        share_trained = sum(first * keep**n * part for n, part in enumerate(lengths))
        return self.until_training() + self.training(self.images()) * share_trained


def _seconds_per_image(outcome: Outcome) -> Iterator[float]:
    """Seconds an image between neighbouring rungs."""
    before_seconds, before_images = 0.0, 0
    for rung in outcome.rungs:
        if rung.images > before_images:
            yield (rung.seconds - before_seconds) / (rung.images - before_images)
        before_seconds, before_images = rung.seconds, rung.images
