"""Fuzzy pruning: memberships, alpha-cuts, what they take from which group, and how they meet the target."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from nets import Chain, Depthwise, Residual, randomised
from regularisers import build, context
from torch import nn

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import shrink
from autoprune.methods import Selection
from autoprune.methods.fuzzy import BASES, Fuzzy, normalised, within_cut
from autoprune.recipe import Allocation, MethodChoice, Target

X = np.linspace(0, 3, 301)


def ratio(graph: ChannelGraph, keep: Keep) -> float:
    return cost(graph, keep).ratios(cost(graph, Keep.all()))["flops"]


def layer(scores: list[float]) -> nn.Module:
    """A network of one group, whose filters have these L1 norms."""
    net = randomised(nn.Sequential(nn.Conv2d(3, len(scores), 1), nn.ReLU(), nn.Conv2d(len(scores), 5, 1)))
    net[0].weight.data.copy_(torch.tensor(scores)[:, None, None, None] / 3)
    return net


def spread(net: nn.Module) -> nn.Module:
    """The network with filters of very different norms, as trained ones are."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(torch.linspace(0.05, 2, len(module.weight))[:, None, None, None])
    return net


def select(net: nn.Module, flops: float, allocation: Allocation | None = None, **params: Any) -> tuple[Any, Keep, Any]:
    case, method = context(net), build("fuzzy", **params)
    selection = method.select(case, method.score(case), Target(flops=flops), allocation or Allocation())
    return case, selection.keep, selection.notes


# ---- memberships and cuts --------------------------------------------------------------------------------------------


def test_memberships_by_hand() -> None:
    method = build("fuzzy", corner=0.5, width=1.0)
    x = np.array([0, 0.5, 0.75, 1.5, 2])

    assert method.importance(x).tolist() == [0, 0, 0.25, 1, 1]
    assert method.unimportance(x).tolist() == [1, 1, 0.75, 0, 0]


def test_memberships_lie_in_0_to_1_rise_or_fall_and_add_up_to_1() -> None:
    method = build("fuzzy")
    important, unimportant = method.importance(X), method.unimportance(X)

    assert {important.min(), important.max(), unimportant.min(), unimportant.max()} == {0, 1}
    assert (np.diff(important) >= 0).all()
    assert (np.diff(unimportant) <= 0).all()
    assert important + unimportant == pytest.approx(np.ones(301))


def test_cuts_are_nested() -> None:
    method = build("fuzzy")
    for membership in (method.importance(X), method.unimportance(X)):
        cuts = [within_cut(membership, alpha) for alpha in np.linspace(0, 1, 21)]

        assert all((wider | narrower).sum() == wider.sum() for wider, narrower in pairwise(cuts))
        assert cuts[0].sum() > cuts[10].sum() > cuts[20].sum() > 0
        assert cuts[0].sum() < 301  # those that do not belong at all are in no cut


def test_strict_takes_what_is_unimportant_and_not_important() -> None:
    method = build("fuzzy", corner=0.4, width=0.8, alpha_important=0.5)
    x = np.array([0.2, 0.5, 0.7, 0.79, 0.81, 1.3])

    # alpha_U = 0.75: x <= 1.2 - 0.6 = 0.6; alpha_I = 0.5: x >= 0.8 is important
    assert method.units_cut(x, 0.25).tolist() == [True, True, False, False, False, False]
    # alpha_U = 0.25: x <= 1.0, but 0.81 is important
    assert method.units_cut(x, 0.75).tolist() == [True, True, True, True, False, False]
    assert method.units_cut(x, 1.0).tolist() == [True, True, True, True, False, False]


def test_assisted_takes_the_lowest_of_the_candidates_and_no_others() -> None:
    method = build("fuzzy", mode="assisted", corner=0.4, width=0.8, alpha_important=0.5, alpha_unimportant=0.9)
    x = np.array([1.3, 0.7, 0.2, 0.9, 1.6, 0.5, 1.8])  # candidates: below 0.8

    assert np.flatnonzero(method.units_cut(x, 0.4)).tolist() == [2, 5]  # floor(0.4 * 7)
    assert np.flatnonzero(method.units_cut(x, 0.9)).tolist() == [1, 2, 5]  # no more than candidates


def test_assisted_has_those_for_candidates_that_are_both_important_and_not() -> None:
    method = build("fuzzy", mode="assisted", corner=0.4, width=0.8, alpha_important=0.25, alpha_unimportant=0.25)
    x = np.array([0.5, 0.7, 0.9, 1.1])  # I: x >= 0.6; U: x <= 1.0

    assert np.flatnonzero(method.units_cut(x, 1.0)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
def test_at_one_alpha_a_skewed_group_loses_more_than_a_flat_one_and_one_of_equals_nothing(alpha: float) -> None:
    method = build("fuzzy")
    skewed, flat = normalised(np.geomspace(0.01, 10, 31)), normalised(np.linspace(6.0, 13, 31))

    assert method.units_cut(skewed, 1 - alpha).sum() > method.units_cut(flat, 1 - alpha).sum()
    assert not method.units_cut(normalised(np.full(31, 5.0)), 1 - alpha).any()


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_scores_are_the_base_methods_as_multiples_of_the_groups_mean(base: str) -> None:
    case = context(randomised(Residual()))
    expected = methods.build(MethodChoice(name=base)).score(case)
    found = build("fuzzy", base=base).score(case)

    assert found.keys() == expected.keys()
    for group, values in found.items():
        assert values.mean() == pytest.approx(1)
        assert values * expected[group].mean() == pytest.approx(expected[group])


def test_equal_scores_are_ones() -> None:
    assert normalised(np.zeros(3)).tolist() == [1, 1, 1]
    assert normalised(np.array([1.0, 2, 6])).tolist() == [1 / 3, 2 / 3, 2]


def test_the_scale_of_a_layer_does_not_matter() -> None:
    _, before, _ = select(randomised(Chain(23, 31)), 0.6)
    net = randomised(Chain(23, 31))
    net.second[0].weight.data.mul_(32)
    _, after, _ = select(net, 0.6)

    assert before.to_dict()["second.0"]
    assert after == before


# ---- meeting the target ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["strict", "assisted"])
@pytest.mark.parametrize("flops", [0.8, 0.5, 0.2])
@pytest.mark.parametrize("net", [Residual(stream=23, inner=31), Depthwise(width=29)])
def test_the_target_is_met(net: nn.Module, flops: float, mode: str) -> None:
    case, keep, notes = select(randomised(net), flops, mode=mode)

    assert ratio(case.graph, keep) == pytest.approx(flops, abs=TOLERANCE)
    assert notes.keys() == {
        "alpha_unimportant" if mode == "strict" else "p", "adjusted_units", "extra_rounds", "important_pruned",
    }  # fmt: skip


@pytest.mark.parametrize("units", [8, 10, 13, 19])
def test_the_cut_at_the_alpha_that_is_found_is_within_a_unit_of_the_target(units: int) -> None:
    scores = np.linspace(0.5, 10, 23)
    _, keep, notes = select(layer(scores.tolist()), units / 23, corner=0.0, width=2.0, alpha_important=0.9)
    method = build("fuzzy", corner=0.0, width=2.0, alpha_important=0.9)
    goes = method.units_cut(normalised(scores), 1 - notes["alpha_unimportant"])

    assert keep == Keep.of({"0": range(23 - units, 23)})
    assert np.flatnonzero(goes).tolist() == list(range(23 - units))
    assert notes["adjusted_units"] == notes["extra_rounds"] == notes["important_pruned"] == 0


@pytest.mark.parametrize("mode", ["strict", "assisted"])
def test_the_cost_does_not_rise_as_the_cut_gets_looser(mode: str) -> None:
    case, method = context(spread(randomised(Residual(stream=23, inner=31)))), build("fuzzy", mode=mode)
    x = method.score(case)
    ratios = []
    for looseness in np.linspace(0, 1, 21):
        kept = {group: np.flatnonzero(~method.units_cut(values, looseness)) for group, values in x.items()}
        ratios.append(ratio(case.graph, Keep.of({group: some.tolist() for group, some in kept.items()})))

    assert ratios == sorted(ratios, reverse=True)
    assert len(set(ratios)) > 5


@pytest.mark.parametrize("mode", ["strict", "assisted"])
@pytest.mark.parametrize("flops", [0.9, 0.7, 0.6])
def test_no_important_unit_goes_while_the_target_is_in_reach(flops: float, mode: str) -> None:
    case, keep, notes = select(spread(randomised(Residual(stream=23, inner=31))), flops, mode=mode)
    method = build("fuzzy", mode=mode)
    assert notes["extra_rounds"] == 0

    for group, x in method.score(case).items():
        gone = np.setdiff1d(np.arange(len(x)), dict(keep.kept).get(group, range(len(x))))
        assert (method.importance(x[gone]) < 0.5).all()
    assert notes["important_pruned"] == 0


def test_where_even_the_tightest_cut_takes_too_many_the_highest_come_back() -> None:
    # at alpha_U = 1 what is below a = 0.9 goes: all but the last
    _, keep, notes = select(layer([1.0, 2, 3, 4, 5, 6, 7, 100]), 5 / 8, corner=0.9)

    assert keep == Keep.of({"0": [3, 4, 5, 6, 7]})
    assert notes["alpha_unimportant"] == pytest.approx(1, abs=1e-3)
    assert notes["adjusted_units"] == 4


def test_what_is_out_of_reach_takes_another_round_on_what_is_left() -> None:
    # 0.8 times the mean is 5.76; of the five that are left, 9.12
    _, keep, notes = select(layer([1.0, 2, 3, 4, 5, 7, 8, 10, 15, 17]), 3 / 10)

    assert keep == Keep.of({"0": [7, 8, 9]})
    assert notes["extra_rounds"] == 1
    assert notes["important_pruned"] == notes["adjusted_units"] == 0


@pytest.mark.parametrize("mode", ["strict", "assisted"])
def test_where_all_are_equally_important_some_must_go_and_notes_say_so(mode: str) -> None:
    _, keep, notes = select(layer([5.0] * 11), 7 / 11, mode=mode)

    assert len(dict(keep.kept)["0"]) == 7
    assert notes["important_pruned"] == notes["adjusted_units"] == 4
    assert notes["extra_rounds"] == 0


def test_widths_are_those_that_the_allocation_allows() -> None:
    allocation = Allocation(round_to=4, max_ratio=0.7)
    case, keep, _ = select(randomised(Residual(stream=23, inner=31)), 0.5, allocation)
    allowed = allowed_widths(case.graph, allocation, case.graph.by_id)

    assert ratio(case.graph, keep) == pytest.approx(0.5, abs=TOLERANCE)
    assert all(width in allowed[group] for group, width in keep.widths(case.graph).items())


def test_without_a_target_nothing_goes() -> None:
    case, method = context(randomised(Chain())), build("fuzzy")

    assert method.select(case, method.score(case), Target(), Allocation()) == Selection(Keep.all())


# ---- rounds ----------------------------------------------------------------------------------------------------------


def test_the_first_cut_is_at_once_and_the_others_share_the_fine_tuning() -> None:
    assert build("fuzzy", rounds=4, share=0.3).stage_shares == pytest.approx((0, 0.1, 0.1, 0.1))
    assert build("fuzzy", rounds=1, share=0.3).stage_shares == (0.0,)


def test_between_cuts_the_training_is_plain() -> None:
    assert Fuzzy.sparsify is methods.Method.sparsify


def test_what_is_left_falls_by_the_same_factor_in_every_round() -> None:
    method = build("fuzzy", rounds=3)

    assert [method.left_after(0.125, cut) for cut in (1, 2, 3)] == pytest.approx([0.5, 0.25, 0.125])


def test_every_round_scores_anew_what_is_left() -> None:
    method, net = build("fuzzy", rounds=3), randomised(Residual(stream=43, inner=61))
    case = context(net)
    dense, left = cost(case.graph, Keep.all()), 1.0
    for cut in (1, 2, 3):
        wanted = method.left_after(0.2, cut)
        scores = method.score(case)
        assert all(values.mean() == pytest.approx(1) for values in scores.values())
        keep = method.select(case, scores, Target(flops=wanted / left), Allocation()).keep
        case = methods.Context(
            method.rebuild(case, keep), shrink(case.graph, keep), case.batches, case.loss, case.predict, case.seed
        )
        left = cost(case.graph, Keep.all()).ratios(dense)["flops"]
        assert left == pytest.approx(wanted, abs=TOLERANCE)
