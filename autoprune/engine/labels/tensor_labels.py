"""Which labels lie on which tensors of a forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from autoprune.engine.graph import Ints
from autoprune.engine.labels.blocks import Block


@dataclass
class TensorLabels:
    """The labelled dimensions of every tensor that a pass has met.

    Fields:
        representative: shape (labels,): the same for labels that splits have tied, and else the label itself; other
            ties show only once the pass has ended.
        blocks: id of a tensor -> the tensor, kept alive so that its id stays its own, and its blocks.
    """

    representative: Ints
    blocks: dict[int, tuple[Tensor, list[Block]]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of labels handed out, FIXED included."""
        return len(self.representative)

    def get(self, tensor: object) -> list[Block]:
        """The tensor's labelled dimensions; tensors never seen have none."""
        found = self.blocks.get(id(tensor))
        return [] if found is None else found[1]

    def set(self, tensor: object, blocks: Iterable[Block]) -> None:
        """Give a tensor labels; whatever is no tensor is left alone."""
        if isinstance(tensor, Tensor):
            self.blocks[id(tensor)] = (tensor, list(blocks))

    def hold(self, tensor: Tensor) -> None:
        """Keep a tensor, whether it has labels or not, so that its id stays its own."""
        self.blocks.setdefault(id(tensor), (tensor, []))

    def fresh(self, count: int) -> Ints:
        """New labels that no tensor of the model has."""
        labels = np.arange(self.count, self.count + count)
        self.representative = np.concatenate([self.representative, labels])
        return labels

    def unify(self, a: Ints, b: Ints) -> None:
        """The labels `a` count as the labels `b` of the same shape from now on."""
        self.representative[a.ravel()] = self.representative[b.ravel()]

    def repeats(self, labels: Ints, axes: Iterable[int]) -> bool:
        """Whether the labels are known to be the same all along these axes of their array."""
        known = self.representative[labels]
        return all((known == np.take(known, [0], axis)).all() for axis in axes)
