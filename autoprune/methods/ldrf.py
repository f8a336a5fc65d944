"""LDRF: readers of a layer are decomposed over their input channels; what is cut away is recovered in the factors.

Channel pruning, the control, recovers it in the readers alone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate_by
from autoprune.engine.allocation.strategies import Global, limits_of
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import shrink
from autoprune.engine.surgery.prune import prune
from autoprune.errors import InputError
from autoprune.methods.base.decomposition import Decomposition, capacity, spectrum
from autoprune.methods.base.layer_pairs import LayerPair, find_pairs, same_pairs, second_moments
from autoprune.methods.base.method import Context, ForwardPass, Method, Scores, Selection
from autoprune.methods.base.reconstruction import BATCH, Fit, Recovery
from autoprune.methods.magnitude import Random
from autoprune.recipe import Allocation, Target
from autoprune.schema import choices, within
from autoprune.training.batch_structure import images_in


@dataclass(frozen=True, kw_only=True)
class Reconstructing(Method):
    """Base of LDRF and channel pruning: which channels go, and the walk over the layers; subclasses say what is fitted.

    Fields:
        images: training images, without their labels; the inputs that the layer at hand gets for all of them are held
            in memory at once.
        locations: places per image and layer at which what readers need is compared, drawn with replacement; layers
            with no more than that use all.
        selector: `topk` keeps what scores highest, `random` is the control.
    """

    reconstructs: ClassVar[bool] = True

    images: int = field(default=1024, metadata=within(1, 10**7, log=True, search=(256, 4096)))
    locations: int = field(default=20, metadata=within(1, 10**6, log=True, search=(10, 100)))
    selector: str = field(default="topk", metadata=choices("topk", "random"))

    @property
    @abstractmethod
    def fit(self) -> Fit:
        """How the decomposition and the reconstruction go."""

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those that have a layer pair; see `score`."""
        return tuple(pair.group.id for pair in self._find_pairs(context))

    def _find_pairs(self, context: Context) -> tuple[LayerPair, ...]:
        pairs = find_pairs(context.model, context.graph, _first_pass(context, self.images)[0])
        if not pairs:
            why = "no prunable channels are made by one layer and read behind channel-wise operations only"
            raise InputError(why, where="method.name", allowed="a method for coupled channels, such as l1")
        return pairs

    def score(self, context: Context) -> Scores:
        """s_i = ||row i of Q||_2 sqrt(E[y_i^2]), for the groups that have a layer pair (`layer_pairs.find_pairs`).

        Raises:
            InputError: no group has one.
        """
        pairs = self._find_pairs(context)
        if self.selector == "random":
            drawn = Random().score(context)
            return {pair.group.id: drawn[pair.group.id] for pair in pairs}
        fit, moments = self.fit, second_moments(context.model, pairs, context.passes(self.images))
        return {
            pair.group.id: Decomposition.of(context.model, pair, moment, fit.eps, fit.basis).scores()
            for pair, moment in zip(pairs, moments, strict=True)
        }

    def rebuild(self, context: Context, keep: Keep) -> nn.Module:
        """Cut, then recover layer by layer, in the order of the forward pass; every layer that `keep` names.

        Constants that pruned channels emit are not folded: the reconstruction takes their place.
        """
        pruned = prune(context.model, context.graph, keep, fold=False)
        wanted = {group for group, _ in keep.kept}
        run, at_once = _first_pass(context, self.images)
        before = [pair for pair in find_pairs(context.model, context.graph, run) if pair.group.id in wanted]
        after = same_pairs(before, pruned, shrink(context.graph, keep), run)
        moments = second_moments(context.model, before, context.passes(self.images))
        recovery = Recovery(context, keep, pruned, self.fit, at_once)
        for dense_pair, pruned_pair, moment in zip(before, after, moments, strict=True):
            recovery.recover(dense_pair, pruned_pair, moment)
        return pruned


@dataclass(frozen=True, kw_only=True)
class LDRF(Reconstructing):
    """Layer decomposition and recomposition: a reader W is W(o, i) = sum over a of R(o, a) Q(i, a), with few a.

    y are the channels of a layer as its readers get them, behind normalisation, activation and pooling. Nothing
    nonlinear lies between Q and R, so Q^T y, the embedding, is all that readers need of them. What is cut, layer by
    layer in the order of the forward pass, is recovered by

        min over R', Q' of E || Q^T y - Q'^T y' ||^2,   y' = the kept channels, behind the pruned layers before them,

    where R' are the weights of the layer that makes y', in the decomposed form if it is itself a reader that was
    decomposed, its bias, and scale and shift of normalisations. Then readers are W' = R Q'^T again: same depth, smaller
    layers. Targets come from the model before the cut; statistics of normalisations stay.

    The full text was not within reach; losses, ranks and solvers are our reconstruction from the abstract and figures:
    R has orthonormal rows, so that an error of the embedding is an error of the readers' outputs. Q' is the least
    squares solution with a ridge that pulls towards the kept rows of Q (towards 0 would change a layer that loses
    nothing), without intercept, so that zero padding stays exact. R' follows by Adam with Q' solved anew every 50
    steps; of these solutions the one with the smallest error on the images stays, so it is never worse than Q' alone.
    Several readers of one layer share Q. Channels that several layers make, or that grouped convolutions make or read,
    are not pruned.

    Fields:
        eps: share of the energy of a reader that its decomposition leaves out.
        basis: energy of `responses` to the images, or of `weights` as they are.
        steps: of Adam, per layer.
        lr: of Adam.
        budget: `allocation` = the recipe's. `relu` = in place of its strategy, within its limits, a layer keeps
            g times the rank of its embedding, one g for all. A ReLU passes on d dimensions with 2 d channels and not
            with fewer than d: if g would fall below 1, eps is doubled; above 2 it goes only to meet the target.
    """

    name: ClassVar[str] = "ldrf"
    source: ClassVar[str] = (
        "Chen et al., A Layer Decomposition-Recomposition Framework for Neuron Pruning, AAAI 2019; our reconstruction"
    )
    summary: ClassVar[str] = "readers decomposed by SVD; both factors around a cut layer are fitted to the dense model"

    eps: float = field(default=1e-3, metadata=within(0, 0.5, log=True, search=(1e-4, 5e-2)))
    basis: str = field(default="responses", metadata=choices("responses", "weights"))
    steps: int = field(default=500, metadata=within(0, 10**6, log=True, search=(200, 3000)))
    lr: float = field(default=1e-3, metadata=within(0, 1, open_low=True, log=True, search=(1e-4, 1e-2)))
    budget: str = field(default="allocation", metadata=choices("allocation", "relu"))

    @property
    def fit(self) -> Fit:
        """As the fields say."""
        return Fit(self.images, self.locations, self.eps, self.basis, self.steps, self.lr)

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """By the allocation, or by one multiple of every layer's rank."""
        if self.budget == "allocation":
            return super().select(context, scores, target, allocation)
        spectra, eps = self._spectra_by_group(context), self.eps
        limits = limits_of(allocation)
        while True:
            ranks = {name: capacity(values, eps) for name, values in spectra.items()}
            multiples = {name: by_multiple(scores[name], rank) for name, rank in ranks.items()}
            keep = allocate_by(context.graph, multiples, target, Global(normalise="none"), limits)
            if all(len(kept) >= ranks[name] for name, kept in keep.kept) or max(ranks.values()) == 1:
                return Selection(keep)
            eps = max(2 * eps, 1e-6)

    def _spectra_by_group(self, context: Context) -> dict[str, Tensor]:
        """Per group, the singular values of what its readers make of it."""
        pairs = find_pairs(context.model, context.graph, _first_pass(context, self.images)[0])
        moments = second_moments(context.model, pairs, context.passes(self.images))
        return {
            pair.group.id: spectrum(context.model, pair, moment, self.basis)
            for pair, moment in zip(pairs, moments, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class ChannelPruning(Reconstructing):
    """The older way, as a control for LDRF: same channels, but only the readers are fitted, by least squares.

    min over Q' of E || M^T y - Q'^T y' ||^2 with M all weights of the readers, undecomposed. Unlike in the paper the
    channels are chosen by score and not by LASSO, and the weights of a reader's kernel move together: for 1x1 kernels
    this is the paper's equation, for larger ones it has fewer unknowns.
    """

    name: ClassVar[str] = "channel_pruning"
    source: ClassVar[str] = (
        "He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, eq. 1 for given channels"
    )
    summary: ClassVar[str] = "readers of a cut layer are fitted to the dense model by least squares"

    @property
    def fit(self) -> Fit:
        """Nothing is left out of the readers, and there are no steps."""
        return Fit(self.images, self.locations, eps=0.0, basis="weights", steps=0, lr=1.0)


def by_multiple(scores: np.ndarray, rank: int) -> np.ndarray:
    """rank / j for the j-th highest score: a common threshold 1 / g on these leaves g * rank units of each group."""
    place = np.empty(len(scores))
    place[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return rank / place


def _first_pass(context: Context, images: int) -> tuple[ForwardPass, int]:
    """Runs a model on the first batch of at most `BATCH` images; and how many they are."""
    batch = next(context.batches(min(images, BATCH)))
    return lambda model: context.predict(model, batch), images_in(batch)
