"""LDRF: readers of a layer are decomposed over their input channels; what is cut away is recovered in the factors.

Channel pruning, the control, recovers it in the readers alone.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import shrink
from autoprune.engine.surgery.prune import prune
from autoprune.engine.surgery.tensors import cut_tensor, kept_entries, named_tensors
from autoprune.errors import InputError
from autoprune.methods.base.layer_pairs import Reader, Site, again, given_to, second_moments, sites
from autoprune.methods.base.method import Context, Method, Scores, Selection
from autoprune.methods.magnitude import Random
from autoprune.recipe import Allocation, Target
from autoprune.schema import choices, within
from autoprune.training.seeds import random_stream

#: The ridge of the least squares, as a share of the mean power of a kept channel.
RIDGE = 1e-4
#: Steps of Adam after which the least squares are solved anew.
REFRESH = 50
#: Images per step of Adam.
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Reconstructing(Method):
    """Base of the two: which channels go, and the walk over the layers; subclasses say what is solved for.

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

    def score(self, context: Context) -> Scores:
        """s_i = ||row i of Q||_2 sqrt(E[y_i^2]), for the groups that have a site (`sites.sites`).

        Raises:
            InputError: no group has one.
        """
        places = sites(context.model, context.graph, _batch(context, self.images))
        if not places:
            why = "no prunable channels are made by one layer and read behind channel-wise operations only"
            raise InputError(why, where="method.name", allowed="a method for coupled channels, such as l1")
        if self.selector == "random":
            drawn = Random().score(context)
            return {site.group.id: drawn[site.group.id] for site in places}
        moments = second_moments(context.model, places, _inputs(context, self.images))
        found = (_Decomposition.of(context.model, *pair, self.fit) for pair in zip(places, moments, strict=True))
        return {site.group.id: one.scores() for site, one in zip(places, found, strict=True)}

    def rebuild(self, context: Context, keep: Keep) -> nn.Module:
        """Cut, then recover layer by layer, in the order of the forward pass; every layer that `keep` names.

        Constants that pruned channels emit are not folded: the reconstruction takes their place.
        """
        pruned = prune(context.model, context.graph, keep, fold=False)
        wanted = {group for group, _ in keep.kept}
        inputs = _batch(context, self.images)
        before = [site for site in sites(context.model, context.graph, inputs) if site.group.id in wanted]
        after = again(before, pruned, shrink(context.graph, keep), inputs)
        moments = second_moments(context.model, before, _inputs(context, self.images))
        walk = _Walk(self, context, keep, pruned)
        for one, other, moment in zip(before, after, moments, strict=True):
            walk.visit(one, other, moment)
        return pruned


@dataclass(frozen=True)
class Fit:
    """What is left out of the readers (`eps`) in which basis, and how many steps of Adam follow at which rate."""

    eps: float
    basis: str
    steps: int
    lr: float


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
        return Fit(self.eps, self.basis, self.steps, self.lr)

    def select(self, context: Context, scores: Scores, target: Target, how: Allocation) -> Selection:
        """By the allocation, or by one multiple of every layer's rank."""
        if self.budget == "allocation":
            return super().select(context, scores, target, how)
        spectra, eps = self._spectra(context), self.eps
        how = replace(how, name="global", normalise="none")
        while True:
            ranks = {name: capacity(values, eps) for name, values in spectra.items()}
            multiples = {name: by_multiple(scores[name], rank) for name, rank in ranks.items()}
            keep = allocate(context.graph, multiples, target, how)
            if all(len(kept) >= ranks[name] for name, kept in keep.kept) or max(ranks.values()) == 1:
                return Selection(keep)
            eps = max(2 * eps, 1e-6)

    def _spectra(self, context: Context) -> dict[str, Tensor]:
        """Per group, the singular values of what its readers make of it."""
        places = sites(context.model, context.graph, _batch(context, self.images))
        moments = second_moments(context.model, places, _inputs(context, self.images))
        return {
            site.group.id: torch.linalg.svdvals(_weighed(_matrix(context.model, site), moment, self.basis))
            for site, moment in zip(places, moments, strict=True)
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
        return Fit(eps=0.0, basis="weights", steps=0, lr=1.0)


def by_multiple(scores: np.ndarray, rank: int) -> np.ndarray:
    """rank / j for the j-th highest score: a common threshold 1 / g on these leaves g * rank units of each group."""
    place = np.empty(len(scores))
    place[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return rank / place


def _inputs(context: Context, images: int) -> Iterator[Tensor]:
    for inputs, _ in context.batches(images):
        yield inputs


def _batch(context: Context, images: int) -> Tensor:
    """The first `BATCH` of the images, or as many as there are."""
    return torch.cat(list(_inputs(context, min(images, BATCH))))[:BATCH]


# ---- decomposition ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Decomposition:
    """Q and R of all readers of a site side by side: readers' weights as rows per unit are about Q @ R; float64, CPU.

    Fields: `mix` Q (units, d); `loadings` R (d, columns); `power` E[y_i^2] (units,).
    """

    mix: Tensor
    loadings: Tensor
    power: Tensor

    @classmethod
    def of(cls, model: nn.Module, site: Site, moment: Tensor, fit: Fit) -> _Decomposition:
        """Q = M X and R = X^T, with X the leading right singular vectors of M or of E[y y^T]^(1/2) M."""
        matrix = _matrix(model, site)
        _, values, right = torch.linalg.svd(_weighed(matrix, moment, fit.basis), full_matrices=False)
        loadings = right[: capacity(values, fit.eps)]
        return cls(matrix @ loadings.T, loadings, moment.diagonal())

    @property
    def rank(self) -> int:
        """d."""
        return self.mix.shape[1]

    def scores(self) -> np.ndarray:
        """||row i of Q||_2 sqrt(E[y_i^2])."""
        return (self.mix.norm(dim=1) * self.power.clamp_min(0).sqrt()).numpy()


def _matrix(model: nn.Module, site: Site) -> Tensor:
    """M: the readers' weights side by side, (units, columns), float64, on the CPU."""
    return torch.cat([r.rows(model.get_parameter(r.weight).detach()).double().cpu() for r in site.readers], 1)


def _weighed(matrix: Tensor, moment: Tensor, basis: str) -> Tensor:
    """What has the singular values that count: E[y y^T]^(1/2) M or M."""
    return root(lifted(moment)) @ matrix if basis == "responses" else matrix


def lifted(moment: Tensor) -> Tensor:
    """E[y y^T] plus a ridge: what the images do not show counts for little, not for nothing."""
    ridge = RIDGE * moment.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return moment + ridge * torch.eye(len(moment), dtype=moment.dtype)


def root(moment: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(moment)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def capacity(values: Tensor, eps: float) -> int:
    """The smallest rank, at least 1, that leaves out no more than `eps` of the energy; singular values descend."""
    energy = values.square()
    left_out = energy.flip(0).cumsum(0).flip(0)  # by ranks 0, 1, ...
    return max(1, int((left_out > eps * energy.sum()).sum()))


# ---- reconstruction --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Factored:
    """A weight of the pruned model in the decomposed form: `mix` Q' (units, d) and the loadings in a weight's shape."""

    reader: Reader
    mix: Tensor
    loadings: Tensor

    def weight(self, loadings: Tensor) -> Tensor:
        """The weight with these loadings; differentiable in them."""
        rows = self.mix @ self.reader.of_units(self.mix.shape[1]).rows(loadings)
        return self.reader.from_rows(rows, loadings.shape)


class _Walk:
    """The pruned model while its layers are recovered one after the other."""

    def __init__(self, method: Reconstructing, context: Context, keep: Keep, pruned: nn.Module) -> None:
        self.method, self.context, self.pruned = method, context, pruned
        self.kept, self.stays = dict(keep.kept), keep.units(context.graph)
        self.factored: dict[str, _Factored] = {}

    def visit(self, before: Site, after: Site, moment: Tensor) -> None:
        """Recover what the readers of one site need; `before` is the site in the dense model."""
        method, model = self.method, self.context.model
        parts = _Decomposition.of(model, before, moment, method.fit)
        problem = self._problem(before, after, parts)
        tensors, mix = problem.solved(method.fit, random_stream(self.context.seed, _number(before), 1))
        live = dict(named_tensors(self.pruned))
        for name, tensor in tensors.items():
            live[name].data.copy_(tensor)
        for reader, loadings in zip(after.readers, self._loadings(before, parts), strict=True):
            weight = live[reader.weight]
            self.factored[reader.weight] = _Factored(reader, mix.to(weight), loadings.to(weight))
            weight.data.copy_(self.factored[reader.weight].weight(loadings.to(weight)))

    def _problem(self, before: Site, after: Site, parts: _Decomposition) -> Problem:
        inputs = torch.cat(list(given_to(self.pruned, after.maker, self._inputs())))
        reader = before.readers[0]
        module, values = self.context.model.get_submodule(reader.path), list[Tensor]()
        generator = random_stream(self.context.seed, _number(before), 0)
        mix, drawn = parts.mix.to(inputs), list[Tensor]()
        for given in given_to(self.context.model, reader.path, self._inputs()):
            y = reader.values(given, module)
            drawn.append(_draw(y, self.method.locations, generator))
            values.append(torch.einsum("nul,ud->ndl", _at(y, drawn[-1]), mix))
        start = parts.mix[list(self.kept[before.group.id])]
        return Problem(self.pruned, after, inputs, torch.cat(values), torch.cat(drawn), start, self.factored)

    def _inputs(self) -> Iterator[Tensor]:
        return _inputs(self.context, self.method.images)

    def _loadings(self, before: Site, parts: _Decomposition) -> Iterator[Tensor]:
        """R of each reader in the shape of its weight, without the filters that are gone."""
        column = 0
        for reader in before.readers:
            shape = self.context.model.get_parameter(reader.weight).shape
            count = shape.numel() // len(reader.entries)
            part = parts.loadings[:, column : column + count]
            column += count
            slots = [s for s in self.context.graph.slots_by_tensor[reader.weight] if s.dim != reader.dim]
            cuts = [(slot.dim, kept_entries(slot.units, self.stays)) for slot in slots]
            yield cut_tensor(reader.of_units(parts.rank).from_rows(part, shape), cuts)


def _number(site: Site) -> int:
    return zlib.crc32(site.group.id.encode())


def _draw(values: Tensor, locations: int, generator: torch.Generator) -> Tensor:
    """Places to look at, (images, places)."""
    images, _, places = values.shape
    if places <= locations:
        return torch.arange(places, device=values.device).expand(images, -1)
    return torch.randint(places, (images, locations), generator=generator).to(values.device)


def _at(values: Tensor, drawn: Tensor) -> Tensor:
    return values.gather(2, drawn[:, None].expand(-1, values.shape[1], -1))


@dataclass(frozen=True, eq=False)
class Problem:
    """min over R', Q' of E || z - Q'^T y' ||^2 for one site of the pruned model.

    Fields:
        inputs: what the site's maker gets, (images, ...).
        targets: z, (images, d, places).
        drawn: the places, (images, places).
        start: the kept rows of Q, (kept units, d), float64, on the CPU.
        factored: weights that are in the decomposed form; the maker's may be.
    """

    pruned: nn.Module
    site: Site
    inputs: Tensor
    targets: Tensor
    drawn: Tensor
    start: Tensor
    factored: Mapping[str, _Factored]

    def solved(self, fit: Fit, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """The weights of the maker and of normalisations by name, and Q' (kept units, d), with the smallest error."""
        leaves = self._leaves()
        optimizer = torch.optim.Adam(leaves.values(), lr=fit.lr)
        best, mix, tensors = float("inf"), self.start, dict[str, Tensor]()
        for step in range(fit.steps + 1):
            if step % REFRESH == 0 or step == fit.steps:
                now, error = self.least_squares(leaves)
                current = now.to(self.targets)
                if error < best:
                    best, mix = error, now
                    tensors = {name: tensor.detach().clone() for name, tensor in self._tensors(leaves).items()}
            if step < fit.steps:
                self._step(optimizer, leaves, current, generator)
        return {name: tensors[name] for name in leaves}, mix

    def least_squares(self, leaves: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        """Q' for these weights, (kept units, d), and its error E || z - Q'^T y' ||^2."""
        moment, cross, error = self._moments(leaves)
        change = torch.linalg.solve(lifted(moment), cross)
        explained = 2 * (change * cross).sum() - (change * (moment @ change)).sum()
        return self.start + change, error - float(explained)

    def _leaves(self) -> dict[str, Tensor]:
        """What Adam changes, by the name of the parameter it stands for; decomposed weights by their loadings."""
        live = dict(named_tensors(self.pruned))
        held = {name: live[name] for name in (self.site.weight, *self.site.trained)}
        if self.site.weight in self.factored:
            held[self.site.weight] = self.factored[self.site.weight].loadings
        return {name: tensor.detach().clone().requires_grad_() for name, tensor in held.items()}

    def _tensors(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors of the pruned model, with the leaves in their places."""
        tensors = {**dict(named_tensors(self.pruned)), **leaves}
        if self.site.weight in self.factored:
            tensors[self.site.weight] = self.factored[self.site.weight].weight(leaves[self.site.weight])
        return tensors

    def _values(self, images: Tensor, leaves: Mapping[str, Tensor]) -> Tensor:
        """y' at the places drawn, (images, kept units, places)."""
        values = self.site.values(self.pruned, self.inputs[images], self._tensors(leaves))
        return _at(values, self.drawn[images])

    def _step(
        self, optimizer: torch.optim.Optimizer, leaves: Mapping[str, Tensor], mix: Tensor, generator: torch.Generator
    ) -> None:
        images = torch.randint(len(self.inputs), (self._batch,), generator=generator).to(self.inputs.device)
        with torch.enable_grad():
            error = self.targets[images] - torch.einsum("nul,ud->ndl", self._values(images, leaves), mix)
            loss = error.square().sum() / self.targets[images].square().sum().clamp_min(1e-30)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()

    @torch.no_grad()
    def _moments(self, leaves: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, float]:
        """E[y' y'^T], E[y' e^T] and E || e ||^2 of the error e that `start` makes; over all images, float64, CPU.

        Taken of e and not of z, because float32 leaves nothing of a small error that is the difference of two moments.
        """
        kept, count = len(self.start), self.drawn.numel()
        moment, cross, energy = self.start.new_zeros(kept, kept), torch.zeros_like(self.start), 0.0
        start = self.start.to(self.targets)
        for begin in range(0, len(self.inputs), self._batch):
            images = torch.arange(begin, begin + self._batch, device=self.inputs.device)
            real = images < len(self.inputs)  # the last batch is filled up: what lies between has its size recorded
            y = self._values(images % len(self.inputs), leaves)[real].movedim(1, 0).flatten(1)
            e = self.targets[images[real]].movedim(1, 0).flatten(1) - start.T @ y
            moment += (y @ y.T).double().cpu() / count
            cross += (y @ e.T).double().cpu() / count
            energy += float(e.square().sum()) / count
        return moment, cross, energy

    @property
    def _batch(self) -> int:
        return min(BATCH, len(self.inputs))
