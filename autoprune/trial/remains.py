"""What is left of a dense network after cuts, in one trial or in several that go on from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import nn

from autoprune.engine.cost import Cost, cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import compose, shrink
from autoprune.engine.surgery.low_rank import decomposed, hollow, inner_channels, with_other_layers
from autoprune.trial.shared import TracedModel


@dataclass(frozen=True, eq=False)
class Remains:
    """What is left of a dense network: the ground that costs and widths are counted on.

    Fields:
        traced: the dense model in the grouping mode that it was cut in.
        ranks: its layers that are decomposed by now, and their inner channels before any was cut.
        keep: what is kept of `graph`.
    """

    traced: TracedModel
    ranks: Mapping[str, int] = field(default_factory=dict)
    keep: Keep = field(default_factory=Keep.all)

    @cached_property
    def graph(self) -> ChannelGraph:
        """The graph of the dense network with those layers decomposed."""
        return self.traced.graph_of(hollow(self.traced.model, self.ranks)) if self.ranks else self.traced.graph

    @cached_property
    def left(self) -> ChannelGraph:
        """The graph of the model that is left."""
        return shrink(self.graph, self.keep) if self.keep.kept else self.graph

    def after(self, keep: Keep) -> Remains:
        """After one more cut; `keep` is of the graph that is left now."""
        return replace(self, keep=compose(self.graph, self.keep, keep))

    def of(self, model: nn.Module) -> Remains:
        """The same for a model in which other layers are decomposed; it is as wide as what is left now."""
        known = set(decomposed(self.traced.model))
        ranks = {path: self.ranks.get(path, rank) for path, rank in inner_channels(model).items() if path not in known}
        if ranks == self.ranks:
            return self
        after = Remains(self.traced, ranks)
        return replace(after, keep=with_other_layers(self.keep, self.graph, after.graph))

    def ratios(self, dense: Cost) -> dict[str, float]:
        """Costs relative to the dense model's."""
        return cost(self.graph, self.keep).ratios(dense)
