"""What a labelled forward pass shows of the model beside ties: operations and costs, roles, sizes, numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import Block

#: Name of an operation and how many calls of it there have been before.
CallKey = tuple[str, int]


#: Such a call, and which of its outputs.
PartKey = tuple[str, int, int]


@dataclass(frozen=True)
class LabelledOp:
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
class LabelledCrossChannelCall:
    """A call that lets the entries along the dimensions `over` act on each other: the `index`-th of its name."""

    name: str
    index: int
    over: tuple[int, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class LabelledComputedWeight:
    """A layer's weight that the model computes from its parameters; see `graph.ComputedWeight`."""

    module: str
    name: str
    index: int
    argument: int
    blocks: tuple[Block, ...]


@dataclass
class Evidence:
    """What the rules note while the pass runs; nothing is added once it has ended.

    Fields:
        ops: operations that cost FLOPs, in the order of the pass.
        cross_channel: calls in which labelled entries act on each other.
        computed_weights: the weights of layers that are computed from parameters.
        roles: labels and the part that the tensor they lie on plays for them (see `graph.Slot`).
        attributes: (module, attribute, labels): the module's attribute of that name counts these entries.
        lengths: (module, labels of parts): the module's code made tensors, or parts, of these lengths.
        paddings: (module, labels of parts): the module's code padded channels by so many.
        splits: (module, labels of shape (rows, offsets)): a dimension was split, all rows lose the same offsets.
        split_calls: the calls that split a dimension, and its labels, shape (rows, offsets).
        rows: labels of shape (rows, offsets): a dimension was split into maps, all of a row has its first label after.
        numbers: the Python numbers among the arguments of every pointwise call that has some.
        layer_uses: which calls work with what comes straight out of a layer, and its labels: those of the filters.
        product_uses: which calls work with a matrix product of what comes straight out of a layer, which call made the
            product, the labels of that factor, and how many of the two factors have them.
        weight_uses: which calls work with a tensor of the model's own, or a view of one, and its labels.
        bias_pairs: labels of filters (or of a norm's scales) and those of the biases that are added to them.
        parts: the entries that slices and splits have taken along a labelled dimension.
        part_lengths: how many entries they have taken, of dimensions without labels too.
        slices: the labels along a dimension, and those of a slice of it.
        meetings: (module, operation) -> how often tensors that are no weights met in an operation entry by entry.
        output_shapes: of the tensors that the model returns.
        takes_by_number: whether channels were taken by number somewhere: by slices, splits, padding.
    """

    ops: list[LabelledOp] = field(default_factory=list)
    cross_channel: list[LabelledCrossChannelCall] = field(default_factory=list)
    computed_weights: list[LabelledComputedWeight] = field(default_factory=list)
    roles: list[tuple[Ints, str]] = field(default_factory=list)
    attributes: list[tuple[str, str, Ints]] = field(default_factory=list)
    lengths: list[tuple[str, tuple[Ints, ...]]] = field(default_factory=list)
    paddings: list[tuple[str, tuple[Ints, ...]]] = field(default_factory=list)
    splits: list[tuple[str, Ints]] = field(default_factory=list)
    split_calls: dict[CallKey, Ints] = field(default_factory=dict)
    rows: list[Ints] = field(default_factory=list)
    numbers: dict[CallKey, tuple[float, ...]] = field(default_factory=dict)
    layer_uses: list[tuple[CallKey, list[Block]]] = field(default_factory=list)
    product_uses: list[tuple[CallKey, CallKey, list[Block], int]] = field(default_factory=list)
    weight_uses: list[tuple[CallKey, list[Block]]] = field(default_factory=list)
    bias_pairs: list[tuple[Ints, Ints]] = field(default_factory=list)
    parts: list[tuple[PartKey, Ints]] = field(default_factory=list)
    part_lengths: dict[PartKey, int] = field(default_factory=dict)
    slices: list[tuple[Ints, Ints]] = field(default_factory=list)
    meetings: Counter[tuple[str, str]] = field(default_factory=Counter)
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    takes_by_number: bool = False

    def joined(self, training: Evidence) -> Evidence:
        """With what a pass in train mode over the same model shows of its labels; the costs of that do not count."""
        return replace(
            self,
            roles=[*self.roles, *training.roles],
            attributes=[*self.attributes, *training.attributes],
            lengths=[*self.lengths, *training.lengths],
            paddings=[*self.paddings, *training.paddings],
            slices=[*self.slices, *training.slices],
            takes_by_number=self.takes_by_number or training.takes_by_number,
        )
