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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from autoprune.engine.allocation.widths import channels_per_unit
from autoprune.engine.graph import ChannelGraph, Group, Ints, Slot
from autoprune.engine.surgery.tensors import named_tensors
from autoprune.methods.base.units import is_depthwise

Named = Mapping[str, Tensor]


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
class _Step:
    """One recorded operation; its arguments hold `_Made` and `_Name` in place of tensors."""

    operation: Callable[..., Any]
    args: Any
    made: tuple[int, ...]


@dataclass(frozen=True)
class _Made:
    """The tensor of this number, made by an earlier operation."""

    number: int


@dataclass(frozen=True)
class _Name:
    """A parameter or buffer."""

    name: str


@dataclass(frozen=True, eq=False)
class Between:
    """What happens between the output of a layer and the input of its readers.

    Fields: the operations in order; the numbers of that output (`start`) and that input (`end`).
    """

    steps: tuple[_Step, ...]
    start: int
    end: int

    def __call__(self, output: Tensor, tensors: Named) -> Tensor:
        """The readers' input when the layer's output is `output`, of the shape recorded, and these are the weights."""
        made = {self.start: output}

        def fill(values: Any) -> Any:
            values = tree_map_only(_Made, lambda m: made[m.number], values)
            return tree_map_only(_Name, lambda n: tensors[n.name], values)

        for step in self.steps:
            args, kwargs = fill(step.args)
            out = [t for t in tree_flatten(step.operation(*args, **kwargs))[0] if isinstance(t, Tensor)]
            made.update(zip(step.made, out, strict=True))
        return made[self.end]


@dataclass(frozen=True, eq=False)
class Site:
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

    def values(self, model: nn.Module, inputs: Tensor, tensors: Named) -> Tensor:
        """What the readers get, (images, units, places), when the maker is given `inputs` and has the weights given."""
        maker, reader = model.get_submodule(self.maker), self.readers[0]
        own = {name: tensors[f"{self.maker}.{name}"] for name, _ in maker.named_parameters()}
        output = functional_call(maker, own, (inputs,))
        return reader.values(self.between(output, tensors), model.get_submodule(reader.path))


def sites(model: nn.Module, graph: ChannelGraph, inputs: Tensor) -> tuple[Site, ...]:
    """The sites of a model, in the order of its forward pass.

    A group has none if several layers make it (residual streams), if a maker or reader is grouped or used several
    times, if a reader has other inputs too, if readers see different things (one a normalised copy, say), or if what
    lies between reads anything but the maker's output and weights.

    Args:
        inputs: the batch that is run to record what lies between.
    """
    modules = dict(model.named_modules())
    drafts = [d for group in graph.prunable if (d := _draft(group, graph, modules)) is not None]
    return tuple(_recorded(model, drafts, inputs))


def again(found: Iterable[Site], model: nn.Module, graph: ChannelGraph, inputs: Tensor) -> tuple[Site, ...]:
    """The same sites in a model that has been cut, whose graph is `graph`.

    They are not looked for: a depthwise convolution that is left with one channel looks like any other.
    """
    modules, drafts = dict(model.named_modules()), []
    for site in found:
        group = graph.by_id[site.group.id]
        slots = [s for r in site.readers for s in graph.slots_by_tensor[r.weight] if s.dim == r.dim]
        readers = tuple(r for s in slots if (r := _reader(group, s, modules[_path(s)])) is not None)
        drafts.append(_Draft(group, site.maker, readers, site.trained))
    return tuple(_recorded(model, drafts, inputs))


def _recorded(model: nn.Module, drafts: Sequence[_Draft], inputs: Tensor) -> Iterator[Site]:
    """Those of the drafts that are sites when the model runs."""
    tensors, modules = dict(named_tensors(model)), dict(model.named_modules())
    recorder = _Recorder({t.data_ptr(): name for name, t in tensors.items() if t.numel()})
    seen = {path: _Seen() for draft in drafts for path in draft.paths}
    with torch.no_grad(), _watching(modules, seen, recorder), recorder:
        model(inputs)
    for site in (_finished(draft, seen, recorder) for draft in drafts):
        if site is not None and _holds(model, site, seen, tensors):
            yield site


def owners(model: nn.Module) -> dict[str, int]:
    """Tensor name -> how many modules hold it."""
    held: dict[int, int] = {}
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            held[id(tensor)] = held.get(id(tensor), 0) + 1
    return {name: held[id(tensor)] for name, tensor in named_tensors(model)}


@dataclass(frozen=True, eq=False)
class _Draft:
    """A site before it has been run."""

    group: Group
    maker: str
    readers: tuple[Reader, ...]
    trained: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.maker, *(reader.path for reader in self.readers))


def _draft(group: Group, graph: ChannelGraph, modules: Mapping[str, nn.Module]) -> _Draft | None:
    """The site of a group, unless it can be seen already that it has none."""
    owned = [s for s in graph.slots if (s.units == group.units[0]).any() and not is_depthwise(modules[_path(s)])]
    makers = [slot for slot in owned if slot.role == "out"]
    readers = [_reader(group, slot, modules[_path(slot)]) for slot in owned if slot.role == "in"]
    mixed = any(np.isin(units, group.units).any() for mixer in graph.mixers for _, units in mixer.blocks)
    if mixed or len(makers) != 1 or channels_per_unit(graph)[group.id] != 1 or not readers or None in readers:
        return None
    if not _in_one_piece(modules[_path(makers[0])]):
        return None
    trained = tuple(slot.tensor for slot in owned if slot.role in ("bias", "scale", "shift"))
    return _Draft(group, _path(makers[0]), tuple(r for r in readers if r is not None), trained)


def _reader(group: Group, slot: Slot, module: nn.Module) -> Reader | None:
    if not _in_one_piece(module) or not np.isin(slot.units, group.units).all():
        return None
    place = np.argsort(np.argsort(group.units))  # of each unit among the sorted ones
    entries = np.argsort(slot.units, kind="stable").reshape(group.size, -1)[place]
    if entries.shape[1] > 1 and not isinstance(module, nn.Linear):
        return None
    return Reader(_path(slot), slot.dim, entries)


def _path(slot: Slot) -> str:
    """Of the module that holds the tensor."""
    return slot.tensor.rpartition(".")[0]


def _in_one_piece(module: nn.Module) -> bool:
    """Whether it is a convolution or linear layer of which each output sees all inputs."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1)


class _Recorder(TorchDispatchMode):
    """Notes every operation of a forward pass, with numbers in place of the tensors that it makes.

    A tensor that is changed in place gets a new number. Tensors are not kept alive.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.steps, self.count = names, list[_Step](), 0
        self.numbers = WeakTensorKeyDictionary()

    def number(self, tensor: Tensor) -> int:
        """Of a tensor as it is now."""
        if tensor not in self.numbers:
            self.renumber(tensor)
        found: int = self.numbers[tensor]
        return found

    def renumber(self, tensor: Tensor) -> int:
        self.numbers[tensor] = self.count
        self.count += 1
        return self.count - 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        known = tree_map_only(Tensor, self._known, (args, kwargs or {}))
        out = func(*args, **(kwargs or {}))
        made = tuple(self.renumber(t) for t in tree_flatten(out)[0] if isinstance(t, Tensor))
        self.steps.append(_Step(func, known, made))
        return out

    def _known(self, tensor: Tensor) -> _Made | _Name:
        if tensor not in self.numbers and tensor.data_ptr() in self.names:
            return _Name(self.names[tensor.data_ptr()])
        return _Made(self.number(tensor))

    def between(self, start: int, end: int) -> Between | None:
        """What makes `end` of `start`; None if anything else that depends on the model's inputs goes into it."""
        wanted, steps = {end}, []
        for step in reversed(self.steps):
            if start not in step.made and wanted & set(step.made):
                steps.append(step)
                wanted -= set(step.made)
                wanted |= {item.number for item in tree_flatten(step.args)[0] if isinstance(item, _Made)}
        return Between(tuple(reversed(steps)), start, end) if wanted == {start} else None


class _Seen:
    """What goes into a module and comes out of it: the tensors and their numbers; how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.given, self.into, self.out = torch.empty(0), -1, -1


@contextmanager
def _watching(modules: Mapping[str, nn.Module], seen: Mapping[str, _Seen], recorder: _Recorder) -> Iterator[None]:
    def note_input(path: str, inputs: tuple[Tensor, ...]) -> None:
        note = seen[path]
        note.calls += 1
        note.given, note.into = inputs[0].clone(), recorder.number(inputs[0])

    def note_output(path: str, output: Tensor) -> None:
        seen[path].out = recorder.number(output)

    with ExitStack() as hooks:
        for path in seen:
            hooks.enter_context(_hook(modules[path].register_forward_pre_hook, lambda _m, x, p=path: note_input(p, x)))
            after = lambda _m, _x, y, p=path: note_output(p, y)  # noqa: E731 - a hook must return None
            hooks.enter_context(_hook(modules[path].register_forward_hook, after))
        yield


@contextmanager
def _hook(register: Callable[..., Any], hook: Callable[..., None]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def _finished(draft: _Draft, seen: Mapping[str, _Seen], recorder: _Recorder) -> Site | None:
    inputs = {seen[reader.path].into for reader in draft.readers}
    if any(seen[path].calls != 1 for path in draft.paths) or len(inputs) != 1:
        return None
    between = recorder.between(seen[draft.maker].out, inputs.pop())
    return None if between is None else Site(draft.group, draft.maker, draft.readers, draft.trained, between)


@torch.no_grad()
def _holds(model: nn.Module, site: Site, seen: Mapping[str, _Seen], tensors: Named) -> bool:
    """Whether running it again gives what the readers were given, and no weight has another user."""
    reader, users = site.readers[0], owners(model)
    if any(users[name] > 1 for name in (site.weight, *site.trained, *(r.weight for r in site.readers))):
        return False
    expected = reader.values(seen[reader.path].given, model.get_submodule(reader.path))
    return torch.allclose(site.values(model, seen[site.maker].given, tensors), expected, rtol=1e-4, atol=1e-5)


class _EnoughError(Exception):
    """All that was wanted of a forward pass has been seen."""


@torch.no_grad()
def given_to(model: nn.Module, path: str, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the module at `path` is given for each batch; the rest of the forward pass is left out."""
    found: list[Tensor] = []

    def stop(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].clone())  # the model may go on in place
        raise _EnoughError

    with _hook(model.get_submodule(path).register_forward_pre_hook, stop):
        for batch in batches:
            try:
                model(batch)
            except _EnoughError:
                yield found.pop()


@torch.no_grad()
def second_moments(model: nn.Module, places: Sequence[Site], batches: Iterable[Tensor]) -> list[Tensor]:
    """Per site E[y y^T] over images and places of what its readers are given: (units, units), float64, on the CPU."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(site: Site, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        flat = site.readers[0].values(inputs[0], module).movedim(1, 0).flatten(1)
        name = site.group.id
        sums[name] = sums.get(name, 0) + (flat @ flat.T).double().cpu()
        counts[name] = counts.get(name, 0) + flat.shape[1]

    with ExitStack() as hooks:
        for site in places:
            module = model.get_submodule(site.readers[0].path)
            hooks.enter_context(_hook(module.register_forward_pre_hook, lambda m, x, s=site: add(s, m, x)))
        for batch in batches:
            model(batch)
    return [sums[site.group.id] / counts[site.group.id] for site in places]
