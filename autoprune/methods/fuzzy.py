"""Fuzzy pruning: units are important and unimportant to a degree; alpha-cuts of the two fuzzy sets say which go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.graph import Floats
from autoprune.engine.keep import Keep
from autoprune.methods.base.bisection import BisectedCut, Bisection, ranks_of_group
from autoprune.methods.base.method import Context, Method, Scores, Selection
from autoprune.methods.bn_scale import BNScale
from autoprune.methods.magnitude import L1, L2
from autoprune.methods.taylor import Taylor
from autoprune.recipe import Allocation, Target
from autoprune.schema import choices, within

#: Criteria by the name of the method that scores by them.
BASES: dict[str, type[Method]] = {method.name: method for method in (L1, L2, BNScale, Taylor)}
Masks = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Fuzzy(Method):
    """Per group, x = score / mean score; two memberships of x decide which units are pruned.

    Importance rises from 0 at x = a to 1 at x = b, unimportance falls from 1 to 0 between the same corners; the sets
    are I = {importance >= alpha_I} and U = {unimportance >= alpha_U}. As the corners are fixed, a group in which scores
    are spread wide loses more than one in which all are alike.

    `strict` prunes the units in U and not in I; alpha_U is bisected in (0, 1] to the target. `assisted` prunes the
    share p of every group that scores lowest, of candidates only: units that are in U or not in I; p is bisected. If
    the loosest cut leaves the model too large, the rest of a group is scored against its own mean and cut again,
    without training in between: an extra round. When that takes no more units either, or where single units are worth
    more than the tolerance, units come or go by ascending x, all groups together; then units of I may go, and notes say
    how many.

    The paper's full text was not within reach: from its abstract come the two memberships, the alpha-cuts, and that
    they assist a base criterion; `strict` reads "assist" as deciding, `assisted` is how Yun et al. (Findings of EMNLP
    2023) read it. Shape and corners of the memberships, the base criterion and the rounds are a reconstruction. Instead
    of a floor of a tenth of each group, the allocation's limits hold.

    Fields:
        base: which method's scores are used, at its defaults.
        corner: a, in multiples of the group's mean score.
        width: b - a, likewise.
        alpha_important: alpha_I.
        alpha_unimportant: alpha_U, `assisted` only.
        mode: `strict` or `assisted`.
        rounds: R, the number of cuts; each leaves the same share of the cost that is left before it.
        share: share of the training images spent in fine-tuning between cuts, equal parts; of no account with one
            round. The paper's reconstruction has 5 epochs after each cut but the last, and 40 after that.
    """

    name: ClassVar[str] = "fuzzy"
    source: ClassVar[str] = "Zhao, Li and Shang, Fuzzy Pruning for Compression of CNNs, FUZZ-IEEE 2019; reconstruction"
    summary: ClassVar[str] = "alpha-cuts of the fuzzy sets of important and of unimportant units"

    base: str = field(default="l1", metadata=choices(*BASES))
    corner: float = field(default=0.4, metadata=within(0, 1, search=(0.1, 0.8)))
    width: float = field(default=0.8, metadata=within(0.05, 3, search=(0.2, 1.2)))
    alpha_important: float = field(default=0.5, metadata=within(0, 1, open_low=True, search=(0.05, 0.95)))
    alpha_unimportant: float = field(default=0.9, metadata=within(0, 1, open_low=True, search=(0.05, 1)))
    mode: str = field(default="strict", metadata=choices("strict", "assisted"))
    rounds: int = field(default=3, metadata=within(1, 20, search=(1, 10)))
    share: float = field(default=0.2, metadata=within(0, 0.9, search=(0.05, 0.6)))

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """The first cut at once; before every other its part of `share`, plain training."""
        return (0.0, *[self.share / (self.rounds - 1)] * (self.rounds - 1)) if self.rounds > 1 else (0.0,)

    def left_after(self, ratio: float, cut: int) -> float:
        """Geometric: ratio^(cut / R)."""
        return ratio ** (cut / self.rounds)

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those of the base."""
        return BASES[self.base]().groups(context)

    def score(self, context: Context) -> Scores:
        """s(u) = x, the base score as a multiple of its group's mean; 1 where all base scores are 0."""
        return {group: normalised(values) for group, values in context.scores_by(BASES[self.base]()).items()}

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """What the alpha-cuts that meet the target leave.

        `alpha_unimportant` or `p`: where the bisection ended. `adjusted_units`: units that were decided by their score
        instead. `extra_rounds`: how often the rest was scored anew. `important_pruned`: units of I that had to go.
        Without a target there are no notes.
        """
        if not target.ratios():
            return Selection(Keep.all())
        rounds = _Rounds(self, Bisection(context.graph, target, allocation), scores)
        cut = rounds.find_cut()
        found = "alpha_unimportant" if self.mode == "strict" else "p"
        notes = {
            found: 1 - cut.value if self.mode == "strict" else cut.value,
            "adjusted_units": cut.adjusted,
            "extra_rounds": rounds.extra,
            "important_pruned": rounds.important_pruned(cut.keep),
        }
        return Selection(cut.keep, notes)

    def units_cut(self, x: Floats, looseness: float) -> np.ndarray:
        """Which units of a group the cut takes, bool (units,), at alpha_U = 1 - looseness or p = looseness."""
        important = self.importance(x) >= self.alpha_important
        if self.mode == "strict":
            return within_cut(self.unimportance(x), 1 - looseness) & ~important
        candidates = int(((self.unimportance(x) >= self.alpha_unimportant) | ~important).sum())
        taken = np.zeros(len(x), dtype=bool)
        # candidates have the lowest scores: importance rises with x, unimportance falls
        taken[np.argsort(x, kind="stable")[: min(candidates, int(looseness * len(x)))]] = True
        return taken

    def importance(self, x: Floats) -> Floats:
        """clip((x - a) / (b - a), 0, 1)."""
        return np.clip((x - self.corner) / self.width, 0, 1)

    def unimportance(self, x: Floats) -> Floats:
        """clip((b - x) / (b - a), 0, 1)."""
        return np.clip((self.corner + self.width - x) / self.width, 0, 1)


def normalised(values: Floats) -> Floats:
    """As multiples of their mean; ones if that is 0."""
    mean = values.mean()
    return values / mean if mean > 0 else np.ones_like(values)


def within_cut(membership: Floats, alpha: float) -> np.ndarray:
    """The alpha-cut of a fuzzy set; for alpha = 0 all units of membership above 0, as every unit has at least 0."""
    return membership >= alpha if alpha > 0 else membership > 0


class _Rounds:
    """The cut of one `select`: the loosest ones until the target is in reach, then the bisected one.

    Args:
        method: with its memberships.
        bisection: to the target.
        scores: x per group.
    """

    def __init__(self, method: Fuzzy, bisection: Bisection, scores: Scores) -> None:
        self.method, self.bisection = method, bisection
        self.x, self.extra = dict(scores), 0
        self.there: Masks = {group: np.ones(len(x), dtype=bool) for group, x in scores.items()}

    def find_cut(self) -> BisectedCut:
        """What is kept, after as many extra rounds as it takes."""
        while True:
            loosest, over = self.bisection.cut_at(1.0, self.ranks(1.0))
            if over <= 0:
                return self.bisection.find(self.ranks, 0.0, 1.0)
            if over <= TOLERANCE:
                return loosest
            if not self._begin_another(loosest.keep):
                return self.bisection.fill(1.0, self.ranks(1.0))
            self.extra += 1

    def ranks(self, looseness: float) -> Scores:
        """Ranks as in `bisection`, by x; what is gone since an earlier round ranks below all others."""
        found = {}
        for group, x in self.x.items():
            there = self.there[group]
            stays = there.copy()
            stays[there] = ~self.method.units_cut(x[there], looseness)
            found[group] = ranks_of_group(stays, x) - ~there
        return found

    def important_pruned(self, keep: Keep) -> int:
        """How many units go that were important when they were last looked at."""
        total = 0
        for group, kept in keep.kept:
            gone = self.there[group].copy()
            gone[list(kept)] = False
            total += int((self.method.importance(self.x[group][gone]) >= self.method.alpha_important).sum())
        return total

    def _begin_another(self, keep: Keep) -> bool:
        """Score what is left anew; False if nothing has gone since this was last done."""
        before = {group: there.sum() for group, there in self.there.items()}
        for group, kept in keep.kept:
            there = np.zeros_like(self.there[group])
            there[list(kept)] = True
            self.there[group], self.x[group] = there, self.x[group].copy()
            self.x[group][there] = normalised(self.x[group][there])
        return any(there.sum() < before[group] for group, there in self.there.items())
