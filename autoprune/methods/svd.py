"""Low-rank decomposition: layers become two, and singular values say which inner channels go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from autoprune.engine.surgery.low_rank import decomposable, decompose, decomposed
from autoprune.methods.base.method import Context, Method, Scores, sum_over_slots
from autoprune.schema import choices


@dataclass(frozen=True, kw_only=True)
class SVD(Method):
    """Every layer as a product of two, cut at the rank that the allocation gives it; channels may go as well.

    The matrix of a layer's filters is U S V^T; its inner channel i has the squared singular value S_i^2 as its score:
    what the layer's outputs lose in the square, per weight, when it goes (Eckart and Young 1936). An inner channel is a
    unit of a group like any other, named after the layer with `.basis`, so the target, the allocation and `ratios`
    speak about ranks and channels alike. Where a rank does not pay the layer stays single, and is offered no more.

    Fields:
        channels: `keep` = ranks alone; `prune` = channels go too, by the squared norm of their filters.
    """

    name: ClassVar[str] = "svd"
    source: ClassVar[str] = (
        "Zhang et al., Accelerating Very Deep Convolutional Networks, TPAMI 2016, section 3.1; its linear part"
    )
    summary: ClassVar[str] = "layers become two of lower rank, by singular values; channels may be pruned as well"

    #: ResNet-20 at half of the FLOPs, seed 0, 100 steps of 16 images: 47 %, where `l1` has 69 %. The shortest trials in
    #: a ready space that has it are of 390 steps; with 780 of 128 images it is 0.7 points behind
    #: (analysis/claims/methods_cifar10.md).
    least_steps: ClassVar[int] = 390

    channels: str = field(default="keep", metadata=choices("keep", "prune"))

    def prepare(self, model: nn.Module) -> nn.Module:
        """All layers decomposed that can be; already decomposed ones stay as they are."""
        return decompose(model, decomposable(model))

    def groups(self, context: Context) -> tuple[str, ...]:
        """The inner channels; with `channels: prune` all."""
        inner = {f"{path}.basis" for path in decomposed(context.model)}
        return tuple(group for group in super().groups(context) if group in inner or self.channels == "prune")

    def score(self, context: Context) -> Scores:
        """Per inner channel ||filter||^2 ||column||^2 = S_i^2; per other channel the sum of its filters' squares."""
        squares = sum_over_slots(context.model, context.graph, ("out",), lambda filters: filters.square().sum(1))
        columns = sum_over_slots(context.model, context.graph, ("in",), lambda inputs: inputs.square().sum(1))
        inner = {f"{path}.basis" for path in decomposed(context.model)}
        ranks = {group: squares[group] * columns[group] for group in squares if group in inner}
        return ranks if self.channels == "keep" else {**squares, **ranks}
