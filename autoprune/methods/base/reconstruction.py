"""What a cut takes from the readers of a layer pair is recovered: in the readers' weights, and in the layer's own."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.tensors import cut_tensor, kept_entries, named_tensors
from autoprune.methods.base.decomposition import Decomposition, lifted
from autoprune.methods.base.layer_pairs import LayerPair, Reader, record_inputs
from autoprune.methods.base.method import Context, ForwardPass
from autoprune.training.seeds import random_stream

#: Steps of Adam after which the least squares are solved anew.
REFRESH = 50
#: Images per step of Adam.
BATCH = 32


@dataclass(frozen=True)
class Fit:
    """How the decomposition and the reconstruction go.

    Fields:
        images: training images, without their labels.
        locations: places per image and layer that are compared.
        eps, basis: what is left out of the readers, see `Decomposition.of`.
        steps, lr: of Adam.
    """

    images: int
    locations: int
    eps: float
    basis: str
    steps: int
    lr: float


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


class Recovery:
    """The pruned model while its layers are recovered one after the other.

    Args:
        context: with the model before the cut.
        keep: the cut.
        pruned: the model after the cut; its weights are changed.
        fit: how layers are recovered.
        at_once: images of the pass that the pairs were recorded in; what lies between takes as many at a time.
    """

    def __init__(self, context: Context, keep: Keep, pruned: nn.Module, fit: Fit, at_once: int) -> None:
        self.context, self.pruned, self.fit, self.at_once = context, pruned, fit, at_once
        self.kept, self.stays = dict(keep.kept), keep.units(context.graph)
        self.factored: dict[str, _Factored] = {}

    def recover(self, before: LayerPair, after: LayerPair, moment: Tensor) -> None:
        """Recover what the readers of one pair need.

        Args:
            before: the pair in the dense model.
            after: the same pair in the pruned one.
            moment: E[y y^T] of what the readers read in the dense model.
        """
        parts = Decomposition.of(self.context.model, before, moment, self.fit.eps, self.fit.basis)
        problem = self._pose_problem(before, after, parts)
        tensors, mix = problem.solve(self.fit, random_stream(self.context.seed, _pair_number(before), 1))
        live = dict(named_tensors(self.pruned))
        for name, tensor in tensors.items():
            live[name].data.copy_(tensor)
        for reader, loadings in zip(after.readers, self._loadings_by_reader(before, parts), strict=True):
            weight = live[reader.weight]
            self.factored[reader.weight] = _Factored(reader, mix.to(weight), loadings.to(weight))
            weight.data.copy_(self.factored[reader.weight].weight(loadings.to(weight)))

    def _pose_problem(self, before: LayerPair, after: LayerPair, parts: Decomposition) -> Problem:
        inputs = torch.cat(list(record_inputs(self.pruned, after.maker, self._training_passes())))
        reader = before.readers[0]
        module, targets = self.context.model.get_submodule(reader.path), list[Tensor]()
        generator = random_stream(self.context.seed, _pair_number(before), 0)
        mix, drawn = parts.mix.to(inputs), list[Tensor]()
        for given in record_inputs(self.context.model, reader.path, self._training_passes()):
            y = reader.values(given, module)
            drawn.append(_draw_places(y, self.fit.locations, generator))
            targets.append(torch.einsum("nul,ud->ndl", _take_places(y, drawn[-1]), mix))
        start = parts.mix[list(self.kept[before.group.id])]
        at_once = min(self.at_once, len(inputs))
        return Problem(self.pruned, after, inputs, torch.cat(targets), torch.cat(drawn), start, self.factored, at_once)

    def _training_passes(self) -> Iterator[ForwardPass]:
        return self.context.passes(self.fit.images)

    def _loadings_by_reader(self, before: LayerPair, parts: Decomposition) -> Iterator[Tensor]:
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


def _pair_number(pair: LayerPair) -> int:
    return zlib.crc32(pair.group.id.encode())


def _draw_places(values: Tensor, locations: int, generator: torch.Generator) -> Tensor:
    """Places to look at, (images, places)."""
    images, _, places = values.shape
    if places <= locations:
        return torch.arange(places, device=values.device).expand(images, -1)
    return torch.randint(places, (images, locations), generator=generator).to(values.device)


def _take_places(values: Tensor, drawn: Tensor) -> Tensor:
    return values.gather(2, drawn[:, None].expand(-1, values.shape[1], -1))


@dataclass(frozen=True, eq=False)
class Problem:
    """min over R', Q' of E || z - Q'^T y' ||^2 for one layer pair of the pruned model.

    Fields:
        inputs: what the pair's maker gets, (images, ...).
        targets: z, (images, d, places).
        drawn: the places, (images, places).
        start: the kept rows of Q, (kept units, d), float64, on the CPU.
        factored: weights that are in the decomposed form; the maker's may be.
        at_once: images at a time.
    """

    pruned: nn.Module
    pair: LayerPair
    inputs: Tensor
    targets: Tensor
    drawn: Tensor
    start: Tensor
    factored: Mapping[str, _Factored]
    at_once: int

    def solve(self, fit: Fit, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """The weights of the maker and of normalisations by name, and Q' (kept units, d), with the smallest error."""
        leaves = self._trainable_leaves()
        optimizer = torch.optim.Adam(leaves.values(), lr=fit.lr)
        best, mix, tensors = float("inf"), self.start, dict[str, Tensor]()
        for step in range(fit.steps + 1):
            if step % REFRESH == 0 or step == fit.steps:
                now, error = self.least_squares(leaves)
                current = now.to(self.targets)
                if error < best:
                    best, mix = error, now
                    tensors = {name: tensor.detach().clone() for name, tensor in self._tensors_with(leaves).items()}
            if step < fit.steps:
                self._take_step(optimizer, leaves, current, generator)
        return {name: tensors[name] for name in leaves}, mix

    def least_squares(self, leaves: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        """Q' for these weights, (kept units, d), and its error E || z - Q'^T y' ||^2."""
        moment, cross, error = self._moments_of_error(leaves)
        change = torch.linalg.solve(lifted(moment), cross)
        explained = 2 * (change * cross).sum() - (change * (moment @ change)).sum()
        return self.start + change, error - float(explained)

    def _trainable_leaves(self) -> dict[str, Tensor]:
        """What Adam changes, by the name of the parameter it stands for; decomposed weights by their loadings."""
        live = dict(named_tensors(self.pruned))
        held = {name: live[name] for name in (self.pair.weight, *self.pair.trained)}
        if self.pair.weight in self.factored:
            held[self.pair.weight] = self.factored[self.pair.weight].loadings
        return {name: tensor.detach().clone().requires_grad_() for name, tensor in held.items()}

    def _tensors_with(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors of the pruned model, with the leaves in their places."""
        tensors = {**dict(named_tensors(self.pruned)), **leaves}
        if self.pair.weight in self.factored:
            tensors[self.pair.weight] = self.factored[self.pair.weight].weight(leaves[self.pair.weight])
        return tensors

    def _values_at_places(self, images: Tensor, leaves: Mapping[str, Tensor]) -> Tensor:
        """y' at the places drawn, (images, kept units, places)."""
        values = self.pair.values(self.pruned, self.inputs[images], self._tensors_with(leaves))
        return _take_places(values, self.drawn[images])

    def _take_step(
        self, optimizer: torch.optim.Optimizer, leaves: Mapping[str, Tensor], mix: Tensor, generator: torch.Generator
    ) -> None:
        images = torch.randint(len(self.inputs), (self.at_once,), generator=generator).to(self.inputs.device)
        with torch.enable_grad():
            error = self.targets[images] - torch.einsum("nul,ud->ndl", self._values_at_places(images, leaves), mix)
            loss = error.square().sum() / self.targets[images].square().sum().clamp_min(1e-30)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()

    @torch.no_grad()
    def _moments_of_error(self, leaves: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, float]:
        """E[y' y'^T], E[y' e^T] and E || e ||^2 of the error e that `start` makes; over all images, float64, CPU.

        Taken of e and not of z, because float32 leaves nothing of a small error that is the difference of two moments.
        """
        kept, count = len(self.start), self.drawn.numel()
        moment, cross, energy = self.start.new_zeros(kept, kept), torch.zeros_like(self.start), 0.0
        start = self.start.to(self.targets)
        for begin in range(0, len(self.inputs), self.at_once):
            images = torch.arange(begin, begin + self.at_once, device=self.inputs.device)
            real = images < len(self.inputs)  # the last batch is filled up: what lies between has its size recorded
            y = self._values_at_places(images % len(self.inputs), leaves)[real].movedim(1, 0).flatten(1)
            e = self.targets[images[real]].movedim(1, 0).flatten(1) - start.T @ y
            moment += (y @ y.T).double().cpu() / count
            cross += (y @ e.T).double().cpu() / count
            energy += float(e.square().sum()) / count
        return moment, cross, energy
