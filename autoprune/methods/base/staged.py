"""Methods that train under a regulariser before the cut."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import nn

from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Context, Method, Note, Scores, Selection, Stage
from autoprune.methods.base.units import SCOPES, Units, in_scope
from autoprune.recipe import Allocation, Target, Training
from autoprune.schema import within
from autoprune.training.protocols import Regulariser


@dataclass(frozen=True, kw_only=True)
class Staged(Method):
    """A method with a sparsify stage.

    Fields:
        share: share of the training images spent in sparsify stages.
        scope: which groups are pruned: `faithful` = channels that one layer alone makes, `coupled` = all.
    """

    share: float = field(default=0.5, metadata=within(0.05, 1, search=(0.2, 0.9)))
    scope: str = field(default="coupled", metadata=SCOPES)

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """One stage, of `share`."""
        return (self.share,)

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those in scope."""
        return tuple(group.id for group in in_scope(context.model, context.graph, self.scope))

    def units(self, context: Context) -> Units:
        """The filters of the groups in scope."""
        return Units.of(context.model, context.graph, in_scope(context.model, context.graph, self.scope))


class ConstantRate(Method):
    """A method whose sparsify stage has a constant learning rate: its field `lr`."""

    lr: float

    def stage_training(self, training: Training) -> Training:
        """Constant learning rate `lr`."""
        return replace(super().stage_training(training), lr=self.lr, schedule="constant", warmup=0.0)


class Deciding(Regulariser, Protocol):
    """A regulariser that knows at the end of its stage what is kept."""

    def keep(self) -> Keep:
        """What it has decided to keep."""

    def notes(self, model: nn.Module) -> Mapping[str, Note]:
        """What else it has found out; the model is the one that it has regularised."""


@dataclass(frozen=True, kw_only=True)
class Decided(Staged):
    """A method whose regulariser decides, during the stage, what is kept."""

    @abstractmethod
    def sparsify(self, context: Context, stage: Stage) -> Deciding:
        """The regulariser on `context.model` during the sparsify stage."""

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """What the regulariser has decided; before any stage, what an allocation of the scores keeps."""
        if context.regulariser is None:
            return super().select(context, scores, target, allocation)
        regulariser: Deciding = context.regulariser  # type: ignore[assignment] # it comes from `sparsify`
        return Selection(regulariser.keep(), regulariser.notes(context.model))
