"""Blends of criteria: ranks over the network, what single criteria become, and what the units are ranked by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import Depthwise, Residual, randomised
from regularisers import build, context
from torch import nn

from autoprune import methods
from autoprune.errors import InputError
from autoprune.methods import Context, Method, Scores
from autoprune.methods.blend import CRITERIA, mean_ranks
from autoprune.recipe import Allocation, MethodChoice, Target
from autoprune.study.space import Space

NONE = dict.fromkeys(CRITERIA, 0.0)


def blend(**params: Any) -> Any:
    """A blend of the criteria that are named, and of no others."""
    return build("blend", **{**NONE, **params})


def two_groups() -> Context:
    """Groups of three and two units."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 5, 1))
    return context(randomised(net))


def told(**scores: Scores) -> Any:
    """A context whose criteria score so."""
    case = two_groups()
    return Context(
        case.model, case.graph, case.batches, case.loss, case.predict, 0, find_scores=lambda method: scores[method.name]
    )


def test_ranks_that_are_equal_share_their_mean() -> None:
    assert mean_ranks(np.array([7.0, 3.0, 7.0, 11.0, 7.0])).tolist() == [3, 1, 3, 5, 3]


def test_two_criteria_by_hand() -> None:
    # Over the mean of the group: l1 1/2 1 3/2 and 1/3 5/3, ranks 2 3 4 and 1 5; fpgm 1 1 1 and 3/2 1/2: 3 3 3 and 5 1.
    l1 = {"0": np.array([1.0, 2.0, 3.0]), "2": np.array([2.0, 10.0])}
    fpgm = {"0": np.array([7.0, 7.0, 7.0]), "2": np.array([9.0, 3.0])}
    found = blend(l1=0.25, fpgm=0.75).score(told(l1=l1, fpgm=fpgm))

    assert found["0"] == pytest.approx((0.25 * np.array([2, 3, 4]) + 0.75 * np.array([3, 3, 3])) / 5)
    assert found["2"] == pytest.approx((0.25 * np.array([1, 5]) + 0.75 * np.array([5, 1])) / 5)


@pytest.mark.parametrize(
    ("normalise", "ranks"),
    [
        ("none", [1, 2.5, 4, 2.5, 5]),
        ("mean", [2, 3, 4, 1, 5]),  # means 2 and 6
        ("max", [2, 3, 4.5, 1, 4.5]),  # 1/3 2/3 1 and 1/5 1
        ("std", [2, 3, 5, 1, 4]),  # deviations 0.816 and 4: 1.22 2.45 3.67 and 0.5 2.5
    ],
)
def test_scores_are_divided_by_a_figure_of_their_group_first(normalise: str, ranks: list[float]) -> None:
    l1 = {"0": np.array([1.0, 2.0, 3.0]), "2": np.array([2.0, 10.0])}
    found = blend(l1=0.5, normalise=normalise).score(told(l1=l1))

    assert 5 * np.concatenate([found["0"], found["2"]]) == pytest.approx(np.array(ranks))


def test_a_group_that_one_criterion_does_not_score_has_the_mean_over_the_others() -> None:
    l1 = {"0": np.array([1.0, 2.0, 3.0]), "2": np.array([2.0, 10.0])}
    found = blend(l1=0.25, bn_scale=0.75).score(told(l1=l1, bn_scale={"2": np.array([4.0, 1.0])}))

    assert found["0"] == pytest.approx(np.array([2, 3, 4]) / 5)
    assert found["2"] == pytest.approx(0.25 * np.array([1, 5]) / 5 + 0.75 * np.array([2, 1]) / 2)
    assert list(blend(bn_scale=1.0).score(told(bn_scale={"2": np.array([4.0, 1.0])}))) == ["2"]


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize(
    ("allocation", "normalise"),
    [
        (Allocation(name="uniform"), "mean"),
        (Allocation(name="global", normalise="mean"), "mean"),
        (Allocation(name="global", normalise="std", round_to=2), "std"),
        (Allocation(name="global", normalise="none"), "none"),
    ],
)
def test_a_blend_of_one_criterion_prunes_what_that_criterion_prunes(
    name: str, allocation: Allocation, normalise: str
) -> None:
    case = context(randomised(Residual(stream=23, inner=31)))
    alone, one = methods.build(MethodChoice(name=name)), blend(**{name: 0.7}, normalise=normalise)
    keeps = [method.select(case, method.score(case), Target(flops=0.5), allocation).keep for method in (alone, one)]

    assert keeps[0] == keeps[1]


def test_criteria_without_weight_are_not_computed() -> None:
    asked: list[Method] = []
    case = context(randomised(Depthwise()))
    case = Context(
        case.model,
        case.graph,
        case.batches,
        case.loss,
        case.predict,
        0,
        find_scores=lambda method: asked.append(method) or method.score(case),  # type: ignore[func-returns-value]
    )
    blend(l2=0.5, taylor=0.1).score(case)

    assert [method.name for method in asked] == ["l2", "taylor"]


def test_a_blend_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="method: all weights are 0; allowed: one above 0 of l1, l2, fpgm, bn_scale"):
        blend().score(two_groups())


def test_all_weights_can_be_searched_from_0_on() -> None:
    plain = {"method": {"choice": {"blend": "ranges"}}, "target": {"flops": 0.5}}
    space = Space.read(plain, check_method=methods.build, find_method=methods.find)

    assert {f"method.blend.{name}" for name in CRITERIA} <= set(space.parameters())


def test_without_batch_norms_their_scales_are_no_criterion() -> None:
    with pytest.raises(InputError, match="needs batch norms"):
        blend(l1=1.0, bn_scale=0.5).score(two_groups())


def test_weights_lead_from_one_criterion_to_another() -> None:
    case = context(randomised(Residual(stream=23, inner=31)))
    l1, taylor = (blend(**{name: 1.0}).score(case) for name in ("l1", "taylor"))
    found = blend(l1=0.3, taylor=0.9).score(case)

    assert l1.keys() == found.keys()
    assert all(found[g] == pytest.approx(0.25 * l1[g] + 0.75 * taylor[g]) for g in l1)
    assert any((l1[g] != taylor[g]).any() for g in l1)
