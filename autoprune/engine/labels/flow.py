"""What a rule sees of a labelled forward pass: the `Call`, and the `Flow` to which it tells what the call does.

A rule says what the output's labels are, which labels must live together and which must not be touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import Block, drop_constant, project, spread
from autoprune.engine.labels.evidence import Evidence, LabelledComputedWeight, LabelledCrossChannelCall
from autoprune.engine.labels.pass_state import PassState
from autoprune.engine.labels.tensor_labels import TensorLabels
from autoprune.engine.labels.ties import Ties
from autoprune.engine.operations import counted_as


def _drop(block: Block, dim: int) -> Block:
    dims, labels = block
    return tuple(d for d in dims if d != dim), np.take(labels, 0, dims.index(dim))


@dataclass(frozen=True, eq=False)
class Flow:
    """One forward pass as rules see it; the tracer makes it, the rules write to its four parts, mostly by its methods.

    Fields:
        labels: the labels of every tensor.
        state: where the pass is, and what it has met.
        ties: which labels live and die together, and which must stay.
        evidence: what else the pass shows of the model.
    """

    labels: TensorLabels
    state: PassState
    ties: Ties = field(default_factory=Ties)
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def path(self) -> str:
        """The module whose forward is running."""
        return self.state.path

    # ---- the labels of tensors ---------------------------------------------------------------------------------------

    def get(self, tensor: object) -> list[Block]:
        """The tensor's labelled dimensions; tensors never seen have none."""
        return self.labels.get(tensor)

    def set(self, tensor: object, blocks: Iterable[Block]) -> None:
        """Give a tensor labels."""
        self.labels.set(tensor, blocks)

    def fresh(self, count: int) -> Ints:
        """New labels that no tensor of the model has."""
        return self.labels.fresh(count)

    def repeats(self, labels: Ints, axes: Iterable[int]) -> bool:
        """Whether the labels are known to be the same all along these axes of their array."""
        return self.labels.repeats(labels, axes)

    def along(self, tensor: object, dim: int, why: str) -> Ints | None:
        """The labels along one dimension, or None; blocks on other dimensions, or joint with them, are frozen."""
        found = None
        for dims, labels in self.get(tensor):
            if dims == (dim,):
                found = labels
            elif dim in dims and self.repeats(labels, [axis for axis, d in enumerate(dims) if d != dim]):
                found = project((dims, labels), dim)
            else:
                self.freeze(labels, why)
        return found

    def is_weight(self, tensor: object) -> bool:
        """Whether the tensor is a parameter or buffer of the model, or is computed from such alone, not from inputs."""
        return id(tensor) in self.state.weights

    # ---- what labels mean to each other ------------------------------------------------------------------------------

    def tie(self, a: Ints, b: Ints, why: str) -> None:
        """Entries that meet live and die together; what meets a FIXED entry must stay."""
        beside_fixed = self.ties.tie(a, b)
        if beside_fixed is not None:
            self.freeze(beside_fixed, why)

    def freeze(self, labels: Ints, why: str) -> None:
        """These entries must stay."""
        self.ties.freeze(labels, f"{why} in {self.path}" if self.path else why)

    def freeze_all(self, blocks: Iterable[Block], why: str) -> None:
        """Freeze every label of the blocks."""
        for _, labels in blocks:
            self.freeze(labels, why)

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
            result = [other for other in result if not any(other is hit for hit in hits)]
            met = self._told_apart([*hits, block])
            if len({d for own, _ in met for d in own}) == sum(len(own) for own, _ in met):
                result += met
                continue
            dims = tuple(sorted({d for own, _ in met for d in own}))
            first, *others = (spread(own, dims, shape) for own in met)
            for other in others:
                self.tie(first, other, why)
            result.append(drop_constant(dims, np.asarray(first)))
        return result

    def _told_apart(self, blocks: list[Block]) -> list[Block]:
        """The blocks without dimensions that several share and along which the labels of all those only repeat.

        Attention over channels, (heads, C, 1) against (heads, 1, C): both lose the same offsets in every head, but
        their offsets have nothing to do with each other.
        """
        if len({own for own, _ in blocks}) == 1:
            return blocks
        for dim in sorted({d for own, _ in blocks for d in own}):
            sharing = [block for block in blocks if dim in block[0]]
            if len(sharing) > 1 and all(len(own) > 1 and self.repeats(a, [own.index(dim)]) for own, a in sharing):
                blocks = [(_drop(block, dim) if dim in block[0] else block) for block in blocks]
        return blocks

    # ---- what the call shows of the model ----------------------------------------------------------------------------

    def mix(self, name: str, tensor: object, over: Collection[int]) -> None:
        """The tensor's entries along `over` act on each other: each output depends on which entries there are.

        A model that is cut there computes what the dense one would compute from the entries that stay; `masking.mask`
        needs to know which these are.
        """
        blocks = tuple(block for block in self.get(tensor) if set(block[0]) & set(over))
        for dims, labels in blocks:
            if dims == tuple(over):
                self.note_attribute("normalized_shape", labels)
        if blocks:
            index = self.state.calls[name] - 1
            self.evidence.cross_channel.append(LabelledCrossChannelCall(name, index, tuple(sorted(over)), blocks))

    def note_weight(self, call: Call, argument: int) -> None:
        """If this argument of the call, a weight, is computed from parameters, masks have to zero it there."""
        weight = call.args[argument]
        if self.is_weight(weight) and id(weight) not in self.state.plain_weights and (blocks := self.get(weight)):
            name, rank = counted_as(call.name), weight.dim()
            from_last = tuple((tuple(dim - rank for dim in dims), labels) for dims, labels in blocks)
            index = self.state.calls_within[self.path, name] - 1
            self.evidence.computed_weights.append(LabelledComputedWeight(self.path, name, index, argument, from_last))

    def note_role(self, labels: Ints, role: str) -> None:
        """The tensor these labels lie on plays that part for them (see `graph.Slot`)."""
        self.evidence.roles.append((labels, role))

    def note_bias(self, filters: Ints, biases: Ints) -> None:
        """These biases, one for each, are added to what these filters put out."""
        self.evidence.bias_pairs.append((filters, biases))

    def note_attribute(self, name: str, labels: Ints) -> None:
        """If the running module has an attribute of that name, it counts these entries."""
        self.evidence.attributes.append((self.path, name, labels))

    def note_lengths(self, *parts: Ints) -> None:
        """The running module's code made a tensor, or parts of one, as long as these labels."""
        self.evidence.lengths.append((self.path, parts))

    def note_padding(self, added: Sequence[Ints]) -> None:
        """The running module's code padded a tensor by these new entries: in front and behind, last dimension first."""
        some = [labels for labels in added if labels.any()]
        if some:
            alone = [(labels,) for labels in (*some, np.concatenate(some))]
            self.evidence.paddings += [(self.path, parts) for parts in (tuple(added), *alone)]

    def note_part(self, name: str, number: int, blocks: Iterable[Block], dim: int, length: int) -> None:
        """Output `number` of the running call has these of the entries along a dimension, taken by their numbers.

        Args:
            length: how many they are.
        """
        key = (name, self.state.calls[name] - 1, number)
        self.evidence.part_lengths[key] = length
        for dims, labels in blocks:
            if dim in dims:
                self.evidence.takes_by_number = True
                self.evidence.parts.append((key, labels.ravel()))


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an aten operation: `name` without namespace, overload and in-place underscore.

    `tensors` are all tensors among the arguments, those in lists included: aten nests no deeper.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    tensors: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        # At once and not when asked for: every call is asked, and a cached property takes 0.5 us more in Python 3.11.
        object.__setattr__(self, "tensors", _tensors_among((*self.args, *self.kwargs.values())))

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Argument by position or keyword."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    @property
    def first_out(self) -> Any:
        """The output, or the first of several."""
        return self.out[0] if isinstance(self.out, (tuple, list)) else self.out

    @property
    def outputs(self) -> list[Tensor]:
        """All tensors among the outputs."""
        if isinstance(self.out, Tensor):
            return [self.out]
        return [leaf for leaf in tree_leaves(self.out) if isinstance(leaf, Tensor)]


def _tensors_among(arguments: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in arguments:
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) in (list, tuple):
            found += [leaf for leaf in value if isinstance(leaf, Tensor)]
    return found
