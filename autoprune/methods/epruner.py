"""EPruner: filters elect exemplars among themselves by affinity propagation; exemplars stay, the others go."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import nn

from autoprune.engine.graph import ChannelGraph, Floats, Group, Ints, with_fixed
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.surgery.tensors import named_tensors
from autoprune.methods.base.bisection import Bisection, ranks_of_group
from autoprune.methods.base.method import Context, Method, Scores, Selection, rows
from autoprune.methods.base.units import SCOPES, in_scope
from autoprune.recipe import Allocation, Target
from autoprune.schema import choices, within

#: b that the authors' code takes by default: `score` ranks by it.
BETA = 0.75
#: The range in which `select` looks for b; the authors' lie between 0.6 and 0.92.
BETAS = (0.05, 4.0)
#: Dampings that are tried in turn when messages do not settle, as far as they are more than `damping`.
DAMPINGS = (0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class EPruner(Method):
    """Affinity propagation over the filters of each group: its exemplars are kept as they are, untrained.

    x_i is a unit's filters without biases, not normalised; s(i, j) = -||x_i - x_j||^2; the preference of j, s(j, j), is
    b * median over i of s(i, j), its own zero included. As s <= 0, a larger b leaves fewer exemplars. The other members
    of a cluster are dropped, not merged into their exemplar. No data is used.

    Where we deviate: the paper gives b and takes the number of filters that comes out; here the target is given and b
    is bisected to it. The number jumps (of 64 random filters 26 are exemplars at b = 0.7 and 5 at 0.8): where no b
    comes near enough, units are added or taken away in the order of the b up to which each would be worth its
    preference (`worth`). The paper prunes what one layer alone makes, scope `faithful`; a unit of a residual stream has
    the filters of all layers that make it, one after the other. The paper draws the batch norms of pruned layers anew,
    so that before fine-tuning the model guesses; we keep those of the exemplars, unless told otherwise, because then
    the accuracy after the cut means something and short fine-tuning has less to learn. Of VGG the paper's code also
    draws biases and classifier anew; we never do. Messages that do not settle in as many iterations as 200 are at a
    damping of 0.5 are sent again with more damping; if that does not help, all units count as exemplars.

    Fields:
        late_beta: factor of b in the last stage (the groups of the lowest resolution); in the authors' code for
            ImageNet it is some 1.0 to 1.3, for CIFAR's ResNets 1.
        damping: of the messages.
        inherit_bn: whether the batch norms of pruned groups are kept (`yes`) or start anew (`no`, the paper).
        scope: which groups are pruned: `faithful` = channels that one layer alone makes, `coupled` = all.
    """

    name: ClassVar[str] = "epruner"
    source: ClassVar[str] = (
        "Lin et al., Network Pruning using Adaptive Exemplar Filters, IEEE TNNLS 2021, arXiv 2101.07985"
    )
    summary: ClassVar[str] = "the exemplars that affinity propagation finds among filters"

    late_beta: float = field(default=1.0, metadata=within(0.25, 4, log=True, search=(0.7, 1.5)))
    damping: float = field(default=0.5, metadata=within(0.5, 0.95, search=(0.5, 0.9)))
    inherit_bn: str = field(default="yes", metadata=choices("yes", "no"))
    scope: str = field(default="coupled", metadata=SCOPES)

    @property
    def judged_at_cut(self) -> bool:
        """Not with batch norms that start anew."""
        return self.inherit_bn == "yes"

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those in scope."""
        return tuple(group.id for group in in_scope(context.model, context.graph, self.scope))

    def score(self, context: Context) -> Scores:
        """s(u) = w / (1 + w), w = `worth` at the authors' b, and 1 more for exemplars."""
        return self._exemplar_search(context).ranks(BETA)

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """The exemplars for the b that meets the target.

        `beta`: b. `adjusted_units`: units that were decided by worth instead. `unsettled_groups`: groups of which all
        units counted as exemplars, because messages did not settle. Without a target there are no notes.
        """
        if not target.ratios():
            return Selection(Keep.all())
        search = self._exemplar_search(context)
        cut = Bisection(context.graph, target, allocation).find(search.ranks, *BETAS)
        unsettled = sum(not found.settled for found in search.exemplars_at(cut.value).values())
        return Selection(cut.keep, {"beta": cut.value, "adjusted_units": cut.adjusted, "unsettled_groups": unsettled})

    def rebuild(self, context: Context, keep: Keep) -> nn.Module:
        """Exemplars bit by bit; with `inherit_bn` = `no`, batch norms of narrower groups as they are initialised."""
        if self.inherit_bn == "yes":
            return super().rebuild(context, keep)
        # constants of the old batch norms would mean nothing to the new ones: nothing is folded
        pruned = prune(context.model, context.graph, keep, fold=False)
        for path in _narrower_batch_norms(context.model, context.graph, keep):
            pruned.get_submodule(path).reset_parameters()  # type: ignore[operator] # a batch norm has it
        return pruned

    def _exemplar_search(self, context: Context) -> ExemplarSearch:
        groups = in_scope(context.model, context.graph, self.scope)
        last = max(group.stage for group in groups)
        factors = {group.id: self.late_beta if group.stage == last else 1.0 for group in groups}
        return ExemplarSearch(similarities(context.model, context.graph, groups), factors, self.damping, context.seed)


# ---- similarities between filters ------------------------------------------------------------------------------------


def similarities(model: nn.Module, graph: ChannelGraph, groups: Iterable[Group]) -> dict[str, Floats]:
    """Minus the squared distances between the units of every group, shape (units, units), zeros on the diagonal."""
    tensors, filters = dict(named_tensors(model)), [slot for slot in graph.slots if slot.role == "out"]
    found = {}
    for group in groups:
        place = graph.per_unit(-1, [(group.units, np.arange(group.size))])
        total = np.zeros((group.size, group.size))
        for slot in filters:
            owners = place[slot.units]
            if (owners >= 0).any():
                entries = np.argsort(owners, kind="stable")[(owners < 0).sum() :]  # those of a unit side by side
                weights = rows(tensors[slot.tensor], slot).cpu().numpy().astype(np.float64)
                total += _pairwise_similarity(weights[entries].reshape(group.size, -1))
        found[group.id] = total
    return found


def _pairwise_similarity(x: Floats) -> Floats:
    squares = (x * x).sum(1)
    minus: Floats = np.minimum(2 * (x @ x.T) - squares - squares[:, None], 0)
    np.fill_diagonal(minus, 0)
    return minus


def preferences(similarity: Floats) -> Floats:
    """Median of every column, the zero of the diagonal included, shape (units,): b times it is the preference."""
    median: Floats = np.median(similarity, axis=0)
    return median


# ---- exemplars -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Exemplars:
    """Which units of a group are exemplars, bool (units,), and whether messages settled: if not, all are."""

    chosen: np.ndarray
    settled: bool


class ExemplarSearch:
    """Exemplars of all groups as a function of b; what has been found is kept.

    Args:
        similarity: group id -> similarities.
        factors: group id -> what b is multiplied by there.
        damping: of the messages.
        seed: of the tiny noise that tells equals apart.
    """

    def __init__(self, similarity: dict[str, Floats], factors: dict[str, float], damping: float, seed: int) -> None:
        self.similarity, self.damping, self.seed = similarity, damping, seed
        self.preferences = {group: factors[group] * preferences(values) for group, values in similarity.items()}
        self._found: dict[float, dict[str, Exemplars]] = {}

    def exemplars_at(self, beta: float) -> dict[str, Exemplars]:
        """Group id -> its exemplars for this b."""
        if beta not in self._found:
            self._found[beta] = {
                group: find_exemplars(values, beta * self.preferences[group], self.damping, self.seed)
                for group, values in self.similarity.items()
            }
        return self._found[beta]

    def ranks(self, beta: float) -> Scores:
        """Ranks as in `bisection`, by worth."""
        found = self.exemplars_at(beta)
        return {
            group: ranks_of_group(found[group].chosen, worth(values, self.preferences[group], found[group].chosen))
            for group, values in self.similarity.items()
        }


def find_exemplars(similarity: Floats, preference: Floats, damping: float, seed: int) -> Exemplars:
    """Affinity propagation (Frey and Dueck, Science 2007), as the authors of EPruner run it: scikit-learn's."""
    from sklearn.cluster import AffinityPropagation  # half a second that other methods need not wait

    for strength in (damping, *(more for more in DAMPINGS if more > damping)):
        most = round(100 / (1 - strength))  # 200 at 0.5; the more damping, the slower
        model = AffinityPropagation(
            affinity="precomputed", preference=preference, damping=strength, max_iter=most, random_state=seed
        )
        with warnings.catch_warnings():
            # that it did not converge is looked at below; that all filters are alike is no fault
            warnings.simplefilter("ignore")
            model.fit(similarity)
        centres: Ints = model.cluster_centers_indices_
        if model.n_iter_ < most and len(centres) > 0:
            return Exemplars(np.isin(np.arange(len(similarity)), centres), settled=True)
    return Exemplars(np.ones(len(similarity), dtype=bool), settled=False)


def worth(similarity: Floats, preference: Floats, chosen: np.ndarray) -> Floats:
    """The b up to which each unit pays as an exemplar when the other exemplars stay as they are, shape (units,).

    As an exemplar, k costs the clustering b * preference(k) and gains the sum over units i, k among them, of how much
    more similar i is to k than to the best other exemplar. Scikit-learn does not give the messages r(k, k) + a(k, k),
    which estimate the difference of the two; this is what they estimate, computed from the exemplars found.

    Args:
        similarity: (units, units), zeros on the diagonal.
        preference: (units,), of b = 1, at most 0.
        chosen: bool (units,), the exemplars.
    """
    others, everyone = np.flatnonzero(chosen), np.arange(len(similarity))
    served = similarity[:, others]
    best = served.argmax(1)
    first = served[everyone, best]
    served[everyone, best] = -np.inf
    without = np.where(others[best][:, None] == everyone, served.max(1)[:, None], first[:, None])
    gain = np.maximum(similarity - without, 0).sum(0)
    return np.divide(gain, -preference, out=np.where(gain > 0, np.inf, 0.0), where=preference < 0)


def _narrower_batch_norms(model: nn.Module, graph: ChannelGraph, keep: Keep) -> list[str]:
    """The batch norms in which a narrower group has channels."""
    narrower = with_fixed(~keep.units(graph), fixed=False)
    paths = {
        slot.layer for slot in graph.slots if slot.role in ("scale", "shift", "stat") and narrower[slot.units].any()
    }
    return sorted(path for path in paths if isinstance(model.get_submodule(path), nn.modules.batchnorm._BatchNorm))
