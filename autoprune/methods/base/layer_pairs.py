"""Layer pairs: a layer, the layers that read its channels, and all that happens between them, which can be run again.

What lies between (normalisation, activation, pooling, depthwise convolutions) is recorded as it runs, operation by
operation, so that it does not matter whether a model spells it as modules or as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from autoprune.engine.allocation.widths import channels_per_unit
from autoprune.engine.graph import ChannelGraph, Group, Ints, Slot
from autoprune.engine.surgery.tensors import named_tensors
from autoprune.methods.base.method import ForwardPass
from autoprune.methods.base.recording import Between, Recorder, TensorsByName
from autoprune.methods.base.units import is_depthwise


@dataclass(frozen=True, eq=False)
class Reader:
    """A convolution or linear layer that reads all channels of one group and nothing else.

    Fields:
        path: of the module; its weight is `path.weight`.
        dim: of the weight along which its inputs lie.
        entries: shape (units, positions): where each unit's inputs lie along `dim`. Positions are more than one behind
            a flatten, where a linear layer is a convolution whose kernel covers the whole map.
    """

    path: str
    dim: int
    entries: Ints

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return f"{self.path}.weight"

    def values(self, inputs: Tensor, module: nn.Module) -> Tensor:
        """What the module is given, as (images, units, places); a place is a pixel, a token, a part of a kernel."""
        channels = inputs if isinstance(module, nn.Linear) else inputs.movedim(1, -1)
        entries = torch.from_numpy(self.entries).to(inputs.device)
        return channels[..., entries].movedim(-2, 1).flatten(2)

    def rows(self, weight: Tensor) -> Tensor:
        """The weight as a matrix (units, everything that is done with a unit)."""
        entries = torch.from_numpy(self.entries).to(weight.device)
        return weight.movedim(self.dim, 0)[entries].flatten(1)

    def from_rows(self, rows: Tensor, like: torch.Size) -> Tensor:
        """The inverse of `rows` for a weight of shape `like`; the number of inputs follows from the rows."""
        rest = [size for dim, size in enumerate(like) if dim != self.dim]
        places = torch.from_numpy(np.argsort(self.entries, axis=None)).to(rows.device)
        return rows.reshape(-1, *rest)[places].movedim(0, self.dim)

    def of_units(self, count: int) -> Reader:
        """The same layer if it read `count` units, one after the other."""
        positions = self.entries.shape[1]
        return Reader(self.path, self.dim, np.arange(count * positions).reshape(count, positions))


@dataclass(frozen=True, eq=False)
class LayerPair:
    """A group that one layer alone makes, and that others read behind channel-wise operations.

    Fields:
        group: of the graph.
        maker: path of the module that makes it, a convolution or linear layer in one piece.
        readers: at least one; all are given the same tensor.
        trained: names of the maker's bias, and of the scales and shifts of the normalisations in between.
        between: for batches of as many images as it was recorded with.
    """

    group: Group
    maker: str
    readers: tuple[Reader, ...]
    trained: tuple[str, ...]
    between: Between

    @property
    def weight(self) -> str:
        """The name of the maker's weight."""
        return f"{self.maker}.weight"

    def values(self, model: nn.Module, inputs: Tensor, tensors: TensorsByName) -> Tensor:
        """What the readers get, (images, units, places), when the maker is given `inputs` and has the weights given."""
        maker, reader = model.get_submodule(self.maker), self.readers[0]
        own = {name: tensors[f"{self.maker}.{name}"] for name, _ in maker.named_parameters()}
        output = functional_call(maker, own, (inputs,))
        return reader.values(self.between(output, tensors), model.get_submodule(reader.path))


def find_pairs(model: nn.Module, graph: ChannelGraph, run: ForwardPass) -> tuple[LayerPair, ...]:
    """The layer pairs of a model, in the order of its forward pass.

    A group has none if several layers make it (residual streams), if a maker or reader is grouped or used several
    times, if a reader has other inputs too, if readers see different things (one a normalised copy, say), or if what
    lies between reads anything but the maker's output and weights.

    Args:
        run: the forward pass that is recorded, with what lies between.
    """
    modules = dict(model.named_modules())
    drafts = [d for group in graph.prunable if (d := _draft_pair(group, graph, modules)) is not None]
    return tuple(_record_pairs(model, drafts, run))


def same_pairs(
    pairs: Iterable[LayerPair], model: nn.Module, graph: ChannelGraph, run: ForwardPass
) -> tuple[LayerPair, ...]:
    """The same pairs in a model that has been cut, whose graph is `graph`.

    Pairs are not searched anew: a depthwise convolution that is left with one channel looks like any other.
    """
    modules, drafts = dict(model.named_modules()), []
    for pair in pairs:
        group = graph.by_id[pair.group.id]
        slots = [slot for r in pair.readers if (slot := graph.slot(r.weight, r.dim)) is not None]
        readers = tuple(r for s in slots if (r := _find_reader(group, s, modules[s.layer])) is not None)
        drafts.append(_Draft(group, pair.maker, readers, pair.trained))
    return tuple(_record_pairs(model, drafts, run))


def _record_pairs(model: nn.Module, drafts: Sequence[_Draft], run: ForwardPass) -> Iterator[LayerPair]:
    """Those of the drafts that are pairs when the model runs."""
    tensors, modules = dict(named_tensors(model)), dict(model.named_modules())
    recorder = Recorder({t.data_ptr(): name for name, t in tensors.items() if t.numel()})
    seen = {path: _Seen() for draft in drafts for path in draft.paths}
    with torch.no_grad(), _watch_modules(modules, seen, recorder), recorder:
        run(model)
    for pair in (_finish_pair(draft, seen, recorder) for draft in drafts):
        if pair is not None and _gives_the_same(model, pair, seen, tensors):
            yield pair


def _count_holders(model: nn.Module) -> dict[str, int]:
    """Tensor name -> how many modules hold it."""
    held: dict[int, int] = {}
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            held[id(tensor)] = held.get(id(tensor), 0) + 1
    return {name: held[id(tensor)] for name, tensor in named_tensors(model)}


@dataclass(frozen=True, eq=False)
class _Draft:
    """A pair before it has been run."""

    group: Group
    maker: str
    readers: tuple[Reader, ...]
    trained: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.maker, *(reader.path for reader in self.readers))


def _draft_pair(group: Group, graph: ChannelGraph, modules: Mapping[str, nn.Module]) -> _Draft | None:
    """The pair of a group, unless it can be seen already that it has none."""
    owned = [s for s in graph.slots if (s.units == group.units[0]).any() and not is_depthwise(modules[s.layer])]
    makers = [slot for slot in owned if slot.role == "out"]
    readers = [_find_reader(group, slot, modules[slot.layer]) for slot in owned if slot.role == "in"]
    mixed = any(np.isin(units, group.units).any() for call in graph.cross_channel for _, units in call.blocks)
    if mixed or len(makers) != 1 or channels_per_unit(graph)[group.id] != 1 or not readers or None in readers:
        return None
    if not _in_one_piece(modules[makers[0].layer]):
        return None
    trained = tuple(slot.tensor for slot in owned if slot.role in ("bias", "scale", "shift"))
    return _Draft(group, makers[0].layer, tuple(r for r in readers if r is not None), trained)


def _find_reader(group: Group, slot: Slot, module: nn.Module) -> Reader | None:
    if not _in_one_piece(module) or not np.isin(slot.units, group.units).all():
        return None
    place = np.argsort(np.argsort(group.units))  # of each unit among the sorted ones
    entries = np.argsort(slot.units, kind="stable").reshape(group.size, -1)[place]
    if entries.shape[1] > 1 and not isinstance(module, nn.Linear):
        return None
    return Reader(slot.layer, slot.dim, entries)


def _in_one_piece(module: nn.Module) -> bool:
    """Whether it is a convolution or linear layer of which each output sees all inputs."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1)


class _Seen:
    """What goes into a module and comes out of it: the tensors and their numbers; how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.given, self.into, self.out = torch.empty(0), -1, -1


@contextmanager
def _watch_modules(modules: Mapping[str, nn.Module], seen: Mapping[str, _Seen], recorder: Recorder) -> Iterator[None]:
    def note_input(path: str, inputs: tuple[Tensor, ...]) -> None:
        note = seen[path]
        note.calls += 1
        note.given, note.into = inputs[0].clone(), recorder.number(inputs[0])

    def note_output(path: str, output: Tensor) -> None:
        seen[path].out = recorder.number(output)

    with ExitStack() as hooks:
        for path in seen:
            before = lambda _m, x, p=path: note_input(p, x)  # noqa: E731 - a hook must return None
            hooks.enter_context(_temporary_hook(modules[path].register_forward_pre_hook, before))
            after = lambda _m, _x, y, p=path: note_output(p, y)  # noqa: E731 - likewise
            hooks.enter_context(_temporary_hook(modules[path].register_forward_hook, after))
        yield


@contextmanager
def _temporary_hook(register: Callable[..., Any], hook: Callable[..., None]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def _finish_pair(draft: _Draft, seen: Mapping[str, _Seen], recorder: Recorder) -> LayerPair | None:
    inputs = {seen[reader.path].into for reader in draft.readers}
    if any(seen[path].calls != 1 for path in draft.paths) or len(inputs) != 1:
        return None
    between = recorder.between(seen[draft.maker].out, inputs.pop())
    return None if between is None else LayerPair(draft.group, draft.maker, draft.readers, draft.trained, between)


@torch.no_grad()
def _gives_the_same(model: nn.Module, pair: LayerPair, seen: Mapping[str, _Seen], tensors: TensorsByName) -> bool:
    """Whether running it again gives what the readers were given, and no weight has another user."""
    reader, users = pair.readers[0], _count_holders(model)
    if any(users[name] > 1 for name in (pair.weight, *pair.trained, *(r.weight for r in pair.readers))):
        return False
    expected = reader.values(seen[reader.path].given, model.get_submodule(reader.path))
    return torch.allclose(pair.values(model, seen[pair.maker].given, tensors), expected, rtol=1e-4, atol=1e-5)


class _SeenEnoughError(Exception):
    """All that was wanted of a forward pass has been seen."""


@torch.no_grad()
def record_inputs(model: nn.Module, path: str, passes: Iterable[ForwardPass]) -> Iterator[Tensor]:
    """What the module at `path` is given in each pass; the rest of the forward pass is left out."""
    found: list[Tensor] = []

    def stop(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].clone())  # the model may go on in place
        raise _SeenEnoughError

    with _temporary_hook(model.get_submodule(path).register_forward_pre_hook, stop):
        for run in passes:
            try:
                run(model)
            except _SeenEnoughError:
                yield found.pop()


@torch.no_grad()
def second_moments(model: nn.Module, pairs: Sequence[LayerPair], passes: Iterable[ForwardPass]) -> list[Tensor]:
    """Per pair E[y y^T] over images and places of what its readers are given: (units, units), float64, on the CPU."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(pair: LayerPair, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        flat = pair.readers[0].values(inputs[0], module).movedim(1, 0).flatten(1)
        name = pair.group.id
        sums[name] = sums.get(name, 0) + (flat @ flat.T).double().cpu()
        counts[name] = counts.get(name, 0) + flat.shape[1]

    with ExitStack() as hooks:
        for pair in pairs:
            module = model.get_submodule(pair.readers[0].path)
            hooks.enter_context(_temporary_hook(module.register_forward_pre_hook, lambda m, x, s=pair: add(s, m, x)))
        for run in passes:
            run(model)
    return [sums[pair.group.id] / counts[pair.group.id] for pair in pairs]
