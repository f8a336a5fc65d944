"""What methods share that train before the cut."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import pytest
from nets import Chain, randomised
from regularisers import context
from torch import nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.methods import Context, Note, Scores, Selection, Stage
from autoprune.methods.base.staged import ConstantRate, Decided, Deciding
from autoprune.methods.magnitude import L1
from autoprune.recipe import Allocation, Target, Training

HALF = Target(flops=0.5)


class Finished:
    """A regulariser at the end of its stage."""

    def keep(self) -> Keep:
        return Keep.of({"first.0": [1, 4]})

    def notes(self, model: nn.Module) -> dict[str, Note]:
        return {"layers": len(list(model.children())), "removed": 7}


class Example(Decided):
    name: ClassVar[str] = "example"

    def sparsify(self, context: Context, stage: Stage) -> Deciding:
        raise NotImplementedError

    def score(self, context: Context) -> Scores:
        return L1().score(context)


def test_what_the_regulariser_has_decided_is_selected_with_its_notes() -> None:
    net = randomised(Chain())
    end = replace(context(net), regulariser=Finished())
    selection = Example().select(end, Example().score(end), HALF, Allocation())

    assert selection.keep == Keep.of({"first.0": [1, 4]})
    assert selection.notes == {"layers": len(list(net.children())), "removed": 7}


@pytest.mark.parametrize("flops", [0.3, 0.6])
def test_before_any_stage_the_scores_are_allocated(flops: float) -> None:
    start = context(randomised(Chain()))
    scores, target = Example().score(start), Target(flops=flops)

    assert Example().select(start, scores, target, Allocation()) == Selection(allocate(start.graph, scores, target))


@dataclass(frozen=True, kw_only=True)
class Steady(ConstantRate, Example):
    late: int = 7
    lr: float = field(default=0.03)


def test_a_stage_at_a_constant_rate_differs_from_the_recipe_in_that_alone() -> None:
    recipe = Training(lr=0.2, schedule="cosine", warmup=0.3, batch_size=11, momentum=0.7, weight_decay=0.01)
    expected = replace(Example().stage_training(recipe), lr=0.05, schedule="constant", warmup=0.0)

    assert Steady(lr=0.05).stage_training(recipe) == expected
    assert [one.name for one in fields(Steady)] == ["share", "scope", "late", "lr"]
