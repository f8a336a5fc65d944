"""What one labelled forward pass has found, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from autoprune.engine.graph import InputSpec
from autoprune.engine.labels.evidence import CallKey, Evidence
from autoprune.engine.labels.ties import Ties
from autoprune.engine.tracing.data_values import DataValues
from autoprune.engine.tracing.size_attributes import Attributes


class LabelSlot(NamedTuple):
    """One labelled tensor dimension: its labels are the `size` numbers from `first` on."""

    tensor: str
    dim: int
    first: int
    size: int


@dataclass(frozen=True)
class GroupingMode:
    """How a model is run and its grouped layers are read; what the dense model's run settles holds for cut copies too.

    Fields:
        whole_groups: grouped convolutions and norms lose whole groups; else the same offset goes out of every group.
        by_offset: modules whose convolutions were found to lose offsets.
        by_row: calls that split a dimension, (name, number of its call), of which the first of the new dimensions stays
            one of channels: maps made from the outputs of a linear layer. Else it is the last one, as in heads.
        uneven: calls that split into parts of different sizes. Those of a cut copy may be equal by chance.
        values: what the model reads off its data, if it does; told to every pass but the first.
        trains: the model has parts, auxiliary heads, that are idle in `eval`, and was run in `train` mode as well.
    """

    whole_groups: bool = False
    by_offset: frozenset[str] = frozenset()
    by_row: frozenset[CallKey] = frozenset()
    uneven: frozenset[CallKey] = frozenset()
    values: DataValues | None = None
    trains: bool = False


@dataclass(frozen=True, eq=False)
class LabelledRun:
    """One labelled forward pass: what it was run on and what the rules found out.

    `label_count` is the number of labels handed out, FIXED included; `mode` is as the pass has settled it; `sizes`
    counts the entries of every parameter; `attributes` gives the integers that modules hold.
    """

    specs: tuple[InputSpec, ...]
    slots: tuple[LabelSlot, ...]
    label_count: int
    ties: Ties
    evidence: Evidence
    mode: GroupingMode
    sizes: Mapping[str, int]
    attributes: Callable[[], Attributes]
