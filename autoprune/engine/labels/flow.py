"""What a labelled forward pass gathers: the ground that rules write to.

A rule sees a `Call` and tells the `Flow` what the output's labels are, which labels must live together and which must
not be touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import FIXED, Block, drop_constant, spread

#: Name of an operation and how many calls of it there have been before.
CallKey = tuple[str, int]


@dataclass(frozen=True)
class RawOp:
    """A matrix-multiply-like operation as it was met; dims are label arrays, constants hold everything unlabelled.

    `inputs` are the labels that are summed over.
    """

    name: str
    kind: str
    flops: int
    dims: tuple[Ints, ...]
    activations: int
    out_dims: tuple[Ints, ...]
    resolution: int
    inputs: Ints | None = None


@dataclass(frozen=True)
class RawMixer:
    """A call that lets the entries along the dimensions `over` act on each other: the `index`-th of its name."""

    name: str
    index: int
    over: tuple[int, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Ways:
    """How grouped convolutions and norms lose channels.

    Fields:
        whole_groups: whole groups go; else the same offset goes out of every group.
        by_offset: convolutions found to lose offsets. One that a cut leaves with a single input per group looks
            depthwise; the probe, which runs the dense model's `Ways`, knows here that it is not.
        modes: the modes in which the model had to be run: `train` too if parts of it, auxiliary heads, are idle in
            `eval`.
    """

    whole_groups: bool = False
    by_offset: set[str] = field(default_factory=set)
    modes: set[str] = field(default_factory=lambda: {"eval"})


@dataclass
class Flow:
    """What one traced forward pass found out about labels; the tracer owns it, the rules write to it.

    Fields (those that are not plain):
        lengths: (module, labels of parts): the module's code made tensors, or parts, of these lengths.
        known: shape (labels,): equal where a split has tied labels; the other ties are known only in the end.
        roles: labels and the part that the tensor they lie on plays for them (see `graph.Slot`).
        sizes: (module, attribute, labels): the module's attribute of that name counts these entries.
        splits: (module, labels of shape (rows, offsets)): a dimension was split, all rows lose the same offsets.
        numbers: the Python numbers among the arguments of every pointwise call.
        uses: which calls work with what comes straight out of a layer, and its labels: those of the layer's filters.
        biases: labels of filters (or of a norm's scales) and those of the biases that are added to them.
        own: ids of the model's parameters and buffers, and of views of them.
        direct: ids of tensors that come straight out of a layer, views included.
        uniform: ids of tensors whose entries are all alike, fresh from `zeros` and the like.
        parts: ids of views: what is written into them is written into other tensors.
        numbered: whether channels were taken by number somewhere: by slices, splits, padding.
        calls: how often each operation has been called so far.
        path: the module whose forward is running.
    """

    known: Ints
    blocks: dict[int, tuple[Tensor, list[Block]]] = field(default_factory=dict)
    ties: list[Ints] = field(default_factory=list)
    freezes: list[tuple[Ints, str]] = field(default_factory=list)
    roles: list[tuple[Ints, str]] = field(default_factory=list)
    ops: list[RawOp] = field(default_factory=list)
    mixers: list[RawMixer] = field(default_factory=list)
    sizes: list[tuple[str, str, Ints]] = field(default_factory=list)
    splits: list[tuple[str, Ints]] = field(default_factory=list)
    lengths: list[tuple[str, tuple[Ints, ...]]] = field(default_factory=list)
    numbers: dict[CallKey, tuple[float, ...]] = field(default_factory=dict)
    uses: list[tuple[CallKey, list[Block]]] = field(default_factory=list)
    biases: list[tuple[Ints, Ints]] = field(default_factory=list)
    own: set[int] = field(default_factory=set)
    direct: set[int] = field(default_factory=set)
    uniform: set[int] = field(default_factory=set)
    parts: set[int] = field(default_factory=set)
    ways: Ways = field(default_factory=Ways)
    numbered: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    path: str = ""

    def get(self, tensor: object) -> list[Block]:
        """The tensor's labelled dimensions; tensors never seen have none."""
        return self.blocks.get(id(tensor), (None, []))[1]

    def set(self, tensor: object, blocks: Iterable[Block]) -> None:
        """Give a tensor labels. The tensor is kept alive, so that its id stays its own."""
        if isinstance(tensor, Tensor):
            self.blocks[id(tensor)] = (tensor, list(blocks))

    def fresh(self, count: int) -> Ints:
        """New labels that no tensor of the model has."""
        labels = np.arange(len(self.known), len(self.known) + count)
        self.known = np.concatenate([self.known, labels])
        return labels

    def add(self, other: Flow) -> None:
        """What another pass over the same model has found out about its labels; its costs are not counted."""
        self.known = other.known
        self.numbered |= other.numbered
        for mine, others in (
            (self.ties, other.ties),
            (self.freezes, other.freezes),
            (self.roles, other.roles),
            (self.sizes, other.sizes),
            (self.lengths, other.lengths),
        ):
            mine.extend(others)

    def tie(self, a: Ints, b: Ints, why: str) -> None:
        """Entries that meet live and die together; what meets a FIXED entry must stay."""
        if a is b:
            return
        a, b = (a, b) if a.shape == b.shape else np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        if np.count_nonzero(a) == np.count_nonzero(b) == a.size:  # nothing is FIXED; `all` takes three times as long
            self.ties.append(np.concatenate([a, b]).reshape(2, -1))
            return
        both = (a != FIXED) & (b != FIXED)
        if both.any():
            self.ties.append(np.stack([a[both], b[both]]))
        self.freeze(np.concatenate([a[~both], b[~both]]), why)

    def repeats(self, labels: Ints, axes: Iterable[int]) -> bool:
        """Whether the labels are known to be the same all along these axes of their array."""
        known = self.known[labels]
        return all((known == np.take(known, [0], axis)).all() for axis in axes)

    def freeze(self, labels: Ints, why: str) -> None:
        """These entries must stay."""
        real = labels[labels != FIXED]
        if real.size:
            self.freezes.append((real.ravel(), f"{why} in {self.path}" if self.path else why))

    def freeze_all(self, blocks: Iterable[Block], why: str) -> None:
        """Freeze every label of the blocks."""
        for _, labels in blocks:
            self.freeze(labels, why)

    def mix(self, name: str, tensor: object, over: Collection[int]) -> None:
        """The tensor's entries along `over` act on each other: how many there are is no longer the channels' affair.

        What a model cut there computes is what the uncut one would compute from the entries that stay; `masking.mask`
        needs to know which these are.
        """
        blocks = tuple(block for block in self.get(tensor) if set(block[0]) & set(over))
        self.sizes.extend((self.path, "normalized_shape", labels) for dims, labels in blocks if dims == tuple(over))
        if blocks:
            self.mixers.append(RawMixer(name, self.calls[name] - 1, tuple(sorted(over)), blocks))

    def along(self, tensor: object, dim: int, why: str) -> Ints | None:
        """The labels along one dimension, or None; blocks on other dimensions, or joint with them, are frozen."""
        found = None
        for dims, labels in self.get(tensor):
            if dims == (dim,):
                found = labels
            else:
                self.freeze(labels, why)
        return found

    def merge(self, blocks: Sequence[Block], shape: Sequence[int], why: str) -> list[Block]:
        """Blocks of tensors that are combined entry by entry: labels on the same dimension are tied, the first stay."""
        dims = blocks[0][0] if blocks else ()
        if len(dims) == 1 and all(own == dims for own, _ in blocks):  # the plain case: all along one dimension
            for _, labels in blocks[1:]:
                self.tie(blocks[0][1], labels, why)
            return [blocks[0]]
        result: list[Block] = []
        for block in blocks:
            hits = [other for other in result if set(other[0]) & set(block[0])]
            if not hits:
                result.append(block)
                continue
            dims = tuple(sorted({d for own, _ in [*hits, block] for d in own}))
            first, *others = (spread(own, dims, shape) for own in [*hits, block])
            for other in others:
                self.tie(first, other, why)
            result = [other for other in result if not any(other is hit for hit in hits)]
            result.append(drop_constant(dims, np.asarray(first)))
        return result


class Call(NamedTuple):
    """One call of an aten operation: `name` without namespace, overload and in-place underscore."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Argument by position or keyword."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    @property
    def first_out(self) -> Any:
        """The output, or the first of several."""
        return self.out[0] if isinstance(self.out, (tuple, list)) else self.out

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        given = (*self.args, *self.kwargs.values())
        nested = any(isinstance(value, (list, tuple, dict)) for value in given)
        return [leaf for leaf in (tree_leaves(given) if nested else given) if isinstance(leaf, Tensor)]
