"""Weights of groups from a few coefficients over their features."""

from __future__ import annotations

import json
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS, Chain, Depthwise, Residual, image
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate, check_target, held_up_by, smallest
from autoprune.engine.allocation.features import LEAST, NOISE, as_ratios, feature_weights, features, needs_rises
from autoprune.engine.allocation.strategies import Features, strategy_of
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, Recipe, Target
from autoprune.study.space import Space
from autoprune.tasks.zoo import PadShortcut

COEFFICIENTS = ("depth", "flops", "stream", "sensitivity")
CHAIN, RESIDUAL = trace(Chain(7, 11), image()), trace(Residual(7, 11), image())
WIDE = trace(Chain(70, 110), image())
GRAPHS = {name: trace(net(), image()) for name, net in NETS.items()}


def shaped(**coefficients: float) -> Allocation:
    return Allocation(name="features", **coefficients)  # type: ignore[arg-type]


def coefficients(**values: float) -> Features:
    strategy = strategy_of(shaped(**values))
    assert isinstance(strategy, Features)
    return strategy


def standardised(*values: float) -> np.ndarray:
    array = np.array(values)
    return (array - array.mean()) / array.std()


def scores(graph: ChannelGraph) -> dict[str, np.ndarray]:
    return {group.id: np.arange(group.size, dtype=float) for group in graph.prunable}


def test_depth_is_the_place_in_the_forward_pass() -> None:
    assert features(CHAIN, {})["depth"].tolist() == [-1, 1]
    assert features(RESIDUAL, {})["depth"] == pytest.approx([-sqrt(1.5), 0, sqrt(1.5)])


def test_flops_are_those_that_go_with_the_group() -> None:
    # 81 places; 3 -> 7, twice 7 -> 11 -> 7, 7 -> 5 at one place
    stream, inner = 81 * (3 * 7 + 4 * 7 * 11) + 7 * 5, 81 * 2 * 7 * 11

    assert features(RESIDUAL, {})["flops"] == pytest.approx(standardised(log(stream), log(inner), log(inner)))


def test_a_stream_is_what_many_layers_write_to() -> None:
    found = features(RESIDUAL, {})["stream"]  # the stem and two branches write to it, one layer to what is in a branch

    assert found == pytest.approx(standardised(log(3), log(1), log(1)))
    assert found == pytest.approx([sqrt(2), -sqrt(0.5), -sqrt(0.5)])


def test_depthwise_layers_and_gates_make_no_stream() -> None:
    assert not features(trace(Depthwise(), image()), {})["stream"].any()


class Padded(nn.Module):
    """A shortcut filled up with zeros: two groups have the same first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.wide = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 13, 1), nn.Conv2d(13, 17, 1)
        self.shortcut, self.head = PadShortcut(7, 17, 1), nn.Linear(17, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.wide(self.inner(x).relu()) + self.shortcut(x)
        return self.head(x.relu().mean((2, 3)))


def test_groups_of_one_layer_are_written_to_by_that_layer_once() -> None:
    graph = trace(Padded(), image())

    assert list(graph.by_id) == ["stem", "inner", "wide", "wide#2"]
    assert features(graph, {})["stream"] == pytest.approx(standardised(log(2), 0, 0, 0))


def test_sensitivity_is_the_logarithm_of_the_rise_and_noise_has_a_floor() -> None:
    rises = {"stem.0": 0.7, "a1.0": 0.11, "b1.0": -0.3}

    assert features(RESIDUAL, rises)["sensitivity"] == pytest.approx(
        standardised(log(0.7), log(0.11), log(0.7 * NOISE))
    )


def test_a_group_without_a_measured_sensitivity_is_an_average_one() -> None:
    assert features(RESIDUAL, {"stem.0": 0.7, "b1.0": 0.11})["sensitivity"] == pytest.approx([1, 0, -1])
    assert features(RESIDUAL, {"other": 0.7})["sensitivity"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("rises", [{}, {"stem.0": -0.7, "a1.0": 0.0, "b1.0": -0.1}, {"stem.0": 3.0, "a1.0": 3.0}])
def test_a_feature_in_which_groups_do_not_differ_says_nothing(rises: dict[str, float]) -> None:
    assert features(RESIDUAL, rises)["sensitivity"].tolist() == [0, 0, 0]


def test_a_weight_is_e_to_the_coefficients_times_the_features_over_the_largest() -> None:
    # first.0: depth -1, flops +1; second.0: the other way round
    assert feature_weights(CHAIN, coefficients(depth=0.7)) == pytest.approx({"first.0": exp(-1.4), "second.0": 1})
    assert feature_weights(CHAIN, coefficients(depth=0.7, flops=1.1)) == pytest.approx(
        {"first.0": 1, "second.0": exp(-0.8)}
    )
    assert feature_weights(CHAIN, coefficients(sensitivity=-0.3), {"first.0": 0.9, "second.0": 0.1}) == pytest.approx(
        {"first.0": exp(-0.6), "second.0": 1}
    )


def test_however_strong_the_coefficients_every_group_may_be_pruned() -> None:
    assert feature_weights(CHAIN, coefficients(depth=5, flops=-5)) == {"first.0": LEAST, "second.0": 1}


def test_a_network_without_anything_to_prune_has_no_weights() -> None:
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(27, 5)), image(3))

    assert feature_weights(graph, coefficients(depth=1, flops=1, stream=1)) == {}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(GRAPHS)), st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_weights_are_relative_and_features_standardised(name: str, values: list[float], seed: int) -> None:
    graph = GRAPHS[name]
    rises = dict(zip(graph.by_id, np.random.default_rng(seed).normal(size=len(graph.prunable)), strict=True))
    found = feature_weights(graph, coefficients(**dict(zip(COEFFICIENTS, values, strict=True))), rises)

    assert list(found) == list(graph.by_id)
    assert all(0 < weight <= 1 for weight in found.values())
    assert max(found.values()) == 1
    for numbers in features(graph, rises).values():
        assert numbers.mean() == pytest.approx(0, abs=1e-9)
        assert numbers.std() == pytest.approx(1) or not numbers.any()


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("flops", [0.4, 0.8])
def test_without_coefficients_it_is_uniform(name: str, flops: float) -> None:
    keeps = []
    for allocation in (shaped(), Allocation(name="uniform")):
        try:
            keeps.append(allocate(GRAPHS[name], scores(GRAPHS[name]), Target(flops=flops), allocation))
        except TargetError as refused:
            keeps.append(str(refused))

    assert keeps[0] == keeps[1]


@pytest.mark.parametrize("feature", ["depth", "flops", "stream"])
def test_a_larger_coefficient_prunes_more_of_what_has_the_feature(feature: str) -> None:
    graph = trace(Residual(230, 310), image())
    values = features(graph, {})[feature]
    pruned = []
    for coefficient in (-1, -0.3, 0, 0.3, 1):
        keep = allocate(graph, scores(graph), Target(flops=0.5), shaped(**{feature: coefficient}))
        shares = 1 - keep.counts(graph) / graph.sizes
        pruned.append(shares[values.argmax()] / shares[values.argmin()])

    assert pruned == sorted(pruned)
    assert pruned[2] == pytest.approx(1, abs=0.02)
    assert pruned[0] < 0.7
    assert pruned[-1] > 1.4


def test_shares_stand_to_each_other_as_the_weights_do() -> None:
    allocation = shaped(depth=0.25)
    widths = allocate(WIDE, scores(WIDE), Target(flops=0.6), allocation).widths(WIDE)

    assert 1 - widths["first.0"] / 70 == pytest.approx(exp(-0.5) * (1 - widths["second.0"] / 110), abs=2 / 70)


def test_by_features_is_by_the_ratios_they_stand_for() -> None:
    allocation = shaped(depth=0.4, stream=-0.6)
    ratios = as_ratios(RESIDUAL, allocation, {})

    assert (ratios.name, dict(ratios.ratios)) == ("ratios", feature_weights(RESIDUAL, strategy_of(allocation)))
    assert allocate(RESIDUAL, scores(RESIDUAL), Target(flops=0.5), ratios) == allocate(
        RESIDUAL, scores(RESIDUAL), Target(flops=0.5), allocation
    )
    other = Allocation(name="uniform", round_to=4)
    assert as_ratios(RESIDUAL, other, {}) is other


def test_limits_stay_what_they_were() -> None:
    assert as_ratios(RESIDUAL, Allocation(name="features", depth=1, round_to=4), {}).round_to == 4


def test_what_is_in_reach_does_not_depend_on_the_coefficients() -> None:
    strong, even = shaped(depth=2, sensitivity=-2), Allocation(name="uniform")

    assert smallest(WIDE, strong) == smallest(WIDE, even)
    assert held_up_by(WIDE, strong) == held_up_by(WIDE, even)
    check_target(WIDE, Target(flops=0.1), strong)
    one, two = (allowed_widths(WIDE, allocation, {"first.0": 1}) for allocation in (strong, even))
    assert {group: widths.tolist() for group, widths in one.items()} == {g: w.tolist() for g, w in two.items()}
    with pytest.raises(TargetError, match="held up by"):
        check_target(WIDE, Target(flops=0.0001), strong)


def test_without_data_there_is_no_sensitivity() -> None:
    message = r"allocation.sensitivity: sensitivity is measured on data, and there is none here; allowed: 0, or a trial"
    with pytest.raises(InputError, match=message):
        allocate(CHAIN, scores(CHAIN), Target(flops=0.5), shaped(sensitivity=0.1))


def test_the_loss_is_measured_only_where_a_coefficient_of_sensitivity_needs_it() -> None:
    assert needs_rises(shaped(sensitivity=-0.1))
    assert not needs_rises(shaped(depth=2))
    assert not needs_rises(Allocation(name="uniform", sensitivity=2))


def test_coefficients_searched_from_a_space() -> None:
    ranges = {name: {"float": [-1.5, 1.5]} for name in COEFFICIENTS}
    data = {"method": "l1", "allocation": {"choice": {"uniform": {}, "features": ranges}}}
    space = Space.read(data)
    low, high = (
        next(recipe for recipe in corners if recipe.allocation.name == "features")
        for corners in (space.corners()[:2], space.corners()[2:])
    )

    assert Space.read(space.to_plain()) == space
    assert set(space.parameters()) == {"allocation", *(f"allocation.features.{name}" for name in COEFFICIENTS)}
    assert low.allocation == shaped(**dict.fromkeys(COEFFICIENTS, -1.5))
    assert high.allocation == shaped(**dict.fromkeys(COEFFICIENTS, 1.5))
    assert Recipe.from_dict(json.loads(json.dumps(high.to_dict()))) == high
