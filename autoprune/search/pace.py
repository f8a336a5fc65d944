"""Pace: how long recipes take, from those seen so far. Decides what still fits into a budget, and how long it takes."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence

from autoprune.results import Outcome

#: Recipes that are looked back at: conditions change, and cheap recipes come late.
MEMORY = 64


class Pace:
    """Medians over the last recipes; infinite haste, that is zero seconds, until something was seen.

    Controls, of which the dense one is the slowest recipe of all, count until another recipe was seen.
    """

    def __init__(self) -> None:
        self._forget()
        self._controls = True

    def _forget(self) -> None:
        self._image: deque[float] = deque(maxlen=MEMORY)
        self._begin: deque[float] = deque(maxlen=MEMORY)
        self._images: deque[int] = deque(maxlen=MEMORY)

    def note(self, outcome: Outcome) -> None:
        """Learn from the rungs of a leg, or of a whole recipe."""
        if outcome.control and not self._controls:
            return
        if self._controls and not outcome.control and outcome.rungs:
            self._controls = False
            self._forget()
        self._images.append(outcome.recipe.training.images)
        self._image.extend(_per_image(outcome))
        if outcome.rungs and outcome.rungs[0].images == 0:
            self._begin.append(outcome.rungs[0].seconds)

    def images(self) -> int:
        """Training images of a recipe."""
        return math.ceil(statistics.median(self._images)) if self._images else 0

    def begin(self) -> float:
        """Seconds from the start of a recipe to its fine-tuning."""
        return statistics.median(self._begin) if self._begin else 0.0

    def rest(self, images: int) -> float:
        """Seconds for so many training images, evaluations on the way included."""
        return images * statistics.median(self._image) if self._image else 0.0

    def whole(self) -> float:
        """Seconds of a new recipe from its start to its end."""
        return self.begin() + self.rest(self.images())

    def expected(self, shares: Sequence[float], keep: float) -> float | None:
        """Seconds of a new recipe on average, if a share goes on at each of these rungs; None = not known yet."""
        if not self._image:
            return None
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
