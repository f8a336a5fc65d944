"""Where a labelled forward pass is, and what it has met so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from autoprune.engine.labels.blocks import Block
from autoprune.engine.labels.evidence import CallKey


@dataclass
class PassState:
    """What rules must know of the calls before theirs; of no use once the pass has ended. Tensors go by their id.

    Fields:
        weights: the model's parameters and buffers, and what is computed from them alone, by id; held, so that no other
            tensor gets the same id.
        plain_weights: those among them that hold entries of the model's own tensors as they are.
        layer_outputs: tensors that come straight out of a layer, views included.
        products: matrix products of what comes straight out of a layer, and views of them: the call, the labels of that
            factor, and how many of the two factors have them.
        uniform: tensors whose entries are all alike, or random, fresh from `zeros` and the like.
        positions: tensors that hold positions of labelled entries: which these are, and why they stay if it is read.
        made_in: uniform tensors and the modules whose code made them.
        parts: views of uniform tensors, and these themselves, with the place that they have there.
        views: tensors that are parts of others: what is written into them is written into those.
        whole_groups: grouped convolutions and norms lose whole groups; else the same offset goes out of every group.
        by_offset: modules whose convolutions have lost offsets. One that a cut leaves with a single input per group
            looks depthwise; a pass over the cut model starts with the names of the dense one's, and knows that it is
            not.
        by_row: calls that split a dimension whose parts go as a whole: see `GroupingMode`.
        uneven: calls that split into parts of different sizes.
        key: the running call.
        arguments: of the running call, or the last one.
        calls: how often each operation has been called so far.
        calls_within: the same by module whose forward called it, and name (`operations.counted_as`).
        path: the module whose forward is running.
    """

    weights: dict[int, Tensor]
    plain_weights: set[int] = field(init=False)
    layer_outputs: set[int] = field(default_factory=set)
    products: dict[int, tuple[CallKey, list[Block], int]] = field(default_factory=dict)
    uniform: set[int] = field(default_factory=set)
    positions: dict[int, tuple[list[Block], str]] = field(default_factory=dict)
    made_in: dict[int, str] = field(default_factory=dict)
    parts: dict[int, Any] = field(default_factory=dict)
    views: set[int] = field(default_factory=set)
    whole_groups: bool = False
    by_offset: set[str] = field(default_factory=set)
    by_row: frozenset[CallKey] = frozenset()
    uneven: set[CallKey] = field(default_factory=set)
    key: CallKey = ("", 0)
    arguments: Any = ()
    calls: Counter[str] = field(default_factory=Counter)
    calls_within: Counter[tuple[str, str]] = field(default_factory=Counter)
    path: str = ""

    def __post_init__(self) -> None:
        self.plain_weights = set(self.weights)
