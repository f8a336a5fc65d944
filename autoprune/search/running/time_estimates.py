"""Pace: how long recipes take, from those seen so far. Decides what still fits into a budget, and how long it takes."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence

from autoprune.study.outcome import Outcome

#: Recipes that are looked back at: conditions change, and cheap recipes come late.
MEMORY = 64


class _Seen:
    """The last numbers of one kind."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=MEMORY)
        self._of_controls = True

    def note(self, values: Sequence[float], *, control: bool) -> None:
        """Those of a control are kept only until there are others."""
        if not values or (control and not self._of_controls):
            return
        if self._of_controls and not control:
            self.values.clear()
            self._of_controls = False
        self.values.extend(values)

    def median(self) -> float:
        """Zero if there are none."""
        return statistics.median(self.values) if self.values else 0.0


class Pace:
    """Medians over the last recipes; infinite haste, that is zero seconds, until something was seen.

    Controls, of which the dense one is the slowest recipe of all, count until another recipe has come as far.
    """

    def __init__(self) -> None:
        self._image, self._begin, self._images = _Seen(), _Seen(), _Seen()
        self._short: dict[int, float | None] = {}  # recipe -> seconds if it came to no rung at all

    def note(self, outcome: Outcome) -> None:
        """Learn from the rungs of a leg, or of a whole recipe."""
        self._images.note([outcome.recipe.training.images], control=outcome.control)
        self._image.note(list(_per_image(outcome)), control=outcome.control)
        if outcome.rungs and outcome.rungs[0].images == 0:
            self._begin.note([outcome.rungs[0].seconds], control=outcome.control)
        if not outcome.control:
            self._short[outcome.id] = None if outcome.rungs else outcome.finished - outcome.started

    def images(self) -> int:
        """Training images of a recipe."""
        return math.ceil(self._images.median())

    def begin(self) -> float:
        """Seconds from the start of a recipe to its fine-tuning."""
        return self._begin.median()

    def rest(self, images: int) -> float:
        """Seconds for so many training images, evaluations on the way included."""
        return images * self._image.median()

    def whole(self) -> float:
        """Seconds of a new recipe from its start to its end."""
        return self.begin() + self.rest(self.images())

    def expected(self, shares: Sequence[float], keep: float) -> float | None:
        """Seconds of a new recipe on average, if a share goes on at each of these rungs; None = not known yet.

        Those that break a constraint, or fail, before they were measured once are as many and as short as so far.
        """
        if not self._image.values:
            return None
        recent = list(self._short.values())[-MEMORY:] or [None]
        short = [seconds for seconds in recent if seconds is not None]
        return (sum(short) + (len(recent) - len(short)) * self._measured(shares, keep)) / len(recent)

    def _measured(self, shares: Sequence[float], keep: float) -> float:
        """Seconds on average of a recipe that comes to its first rung."""
        ends = [share for share in shares if share > 0] + [1.0]
        first = keep if 0.0 in shares else 1.0
        lengths = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
        return self.begin() + self.rest(self.images()) * sum(first * keep**n * part for n, part in enumerate(lengths))


def _per_image(outcome: Outcome) -> Iterator[float]:
    """Seconds an image between neighbouring rungs."""
    before_seconds, before_images = 0.0, 0
    for rung in outcome.rungs:
        if rung.images > before_images:
            yield (rung.seconds - before_seconds) / (rung.images - before_images)
        before_seconds, before_images = rung.seconds, rung.images
