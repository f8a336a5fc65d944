"""Which labels live and die together, and which must stay."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import FIXED


@dataclass
class Ties:
    """What rules say of labels that meet.

    Fields:
        pairs: arrays of shape (2, n): labels that live and die together, FIXED not among them.
        freezes: labels that must stay, FIXED not among them, and why.
    """

    pairs: list[Ints] = field(default_factory=list)
    freezes: list[tuple[Ints, str]] = field(default_factory=list)

    def tie(self, a: Ints, b: Ints) -> Ints | None:
        """Tie the entries of two arrays that broadcast; returns those that meet a FIXED entry, None if none can."""
        if a is b:
            return None
        a, b = (a, b) if a.shape == b.shape else np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        if np.count_nonzero(a) == np.count_nonzero(b) == a.size:  # nothing is FIXED; `all` takes three times as long
            self.pairs.append(np.concatenate([a, b]).reshape(2, -1))
            return None
        both = (a != FIXED) & (b != FIXED)
        if both.any():
            self.pairs.append(np.stack([a[both], b[both]]))
        return np.concatenate([a[~both], b[~both]])

    def freeze(self, labels: Ints, reason: str) -> None:
        """These entries must stay; FIXED ones do anyway."""
        real = labels[labels != FIXED]
        if real.size:
            self.freezes.append((real.ravel(), reason))

    def joined(self, other: Ties) -> Ties:
        """These ties and those of another."""
        return Ties([*self.pairs, *other.pairs], [*self.freezes, *other.freezes])
