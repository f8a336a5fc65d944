"""Pace: how long recipes take, from those seen so far. Decides what still fits before a deadline."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator

from autoprune.results import Outcome

#: Recipes that are looked back at: conditions change, and cheap recipes come late.
MEMORY = 64


class Pace:
    """Medians over the last recipes; infinite haste, that is zero seconds, until something was seen."""

    def __init__(self) -> None:
        self._image: deque[float] = deque(maxlen=MEMORY)
        self._begin: deque[float] = deque(maxlen=MEMORY)
        self._images: deque[int] = deque(maxlen=MEMORY)

    def note(self, outcome: Outcome) -> None:
        """Learn from the rungs of a leg, or of a whole recipe."""
        self._images.append(outcome.recipe.training.images)
        self._image.extend(_per_image(outcome))
        if outcome.rungs and outcome.rungs[0].images == 0:
            self._begin.append(outcome.rungs[0].seconds)

    def rest(self, images: int) -> float:
        """Seconds for so many training images, evaluations on the way included."""
        return images * statistics.median(self._image) if self._image else 0.0

    def whole(self) -> float:
        """Seconds of a new recipe from its start to its end."""
        begin = statistics.median(self._begin) if self._begin else 0.0
        return begin + self.rest(math.ceil(statistics.median(self._images))) if self._images else 0.0


def _per_image(outcome: Outcome) -> Iterator[float]:
    """Seconds an image between neighbouring rungs."""
    before_seconds, before_images = 0.0, 0
    for rung in outcome.rungs:
        if rung.images > before_images:
            yield (rung.seconds - before_seconds) / (rung.images - before_images)
        before_seconds, before_images = rung.seconds, rung.images
