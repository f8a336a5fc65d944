"""EPruner: which filters are exemplars, that they are kept as they are, and how b meets the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from nets import Chain, Concat, Depthwise, Grouped, Residual, image, randomised
from regularisers import build, context
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.methods import Selection, epruner
from autoprune.methods.epruner import ExemplarSearch, find_exemplars, preferences, similarities, worth
from autoprune.recipe import Allocation, Target


def points(*rows: list[float]) -> np.ndarray:
    """Minus the squared distances between points of the plane."""
    x = np.array(rows, dtype=float)
    return -((x[:, None] - x) ** 2).sum(2)


def noise(units: int, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    """Similarities of random filters of 27 weights whose norms are spread."""
    draw = np.random.default_rng(seed)
    return points(*(draw.standard_normal((units, 27)) * np.exp(spread * draw.standard_normal((units, 1)))))


def elected(similarity: np.ndarray, beta: float) -> list[int]:
    return np.flatnonzero(find_exemplars(similarity, beta * preferences(similarity), 0.5, 0).chosen).tolist()


def clustered(net: nn.Module, layer: nn.Module, clusters: int) -> np.ndarray:
    """Give the filters of a layer `clusters` tight clusters; the cluster of each filter."""
    draw = torch.Generator().manual_seed(2)
    centres = torch.randn(clusters, *layer.weight.shape[1:], generator=draw)
    member = torch.randperm(len(layer.weight), generator=draw) % clusters
    layer.weight.data.copy_(centres[member] + 1e-2 * torch.randn(layer.weight.shape, generator=draw))
    return member.numpy()


def ratio(graph: ChannelGraph, keep: Keep) -> float:
    return cost(graph, keep).ratios(cost(graph, Keep.all()))["flops"]


# ---- similarity and preference ---------------------------------------------------------------------------------------


def test_the_preference_is_the_median_of_the_column_with_the_zero_of_the_diagonal() -> None:
    similarity = points([0, 0], [1, 0], [0, 2], [3, 0])

    # columns: 0 -1 -4 -9; -1 0 -5 -4; -4 -5 0 -13; -9 -4 -13 0
    assert similarity[:, 0].tolist() == [0, -1, -4, -9]
    assert preferences(similarity).tolist() == [-2.5, -2.5, -4.5, -6.5]


def test_filters_are_compared_as_they_are_without_biases() -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.Conv2d(7, 5, 1)).eval()
    case = context(net)
    found = similarities(net, case.graph, case.graph.prunable)["0"]
    x = net[0].weight.detach().flatten(1).double().numpy()

    assert found == pytest.approx(points(*x.tolist()), rel=1e-9, abs=1e-12)
    assert (np.diag(found) == 0).all()


def test_filters_of_coupled_layers_count_together() -> None:
    net = randomised(Residual())
    case = context(net)
    found = similarities(net, case.graph, case.graph.prunable)["stem.0"]
    x = torch.cat([layer.weight.detach().flatten(1) for layer in (net.stem[0], net.a2, net.b2)], 1).double()

    assert found == pytest.approx(points(*x.tolist()), rel=1e-9)


def test_a_unit_of_a_grouped_convolution_has_one_filter_of_each_group() -> None:
    net = randomised(Grouped())
    case = context(net)
    found = similarities(net, case.graph, case.graph.prunable)["grouped.0"]
    weight = net.grouped[0].weight.detach().double()
    x = torch.stack([torch.cat([weight[7 * group + unit].flatten() for group in range(3)]) for unit in range(7)])

    assert found == pytest.approx(points(*x.tolist()), rel=1e-9)


# ---- exemplars -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0, 2.0])
def test_exemplars_are_the_best_clustering_of_all(beta: float) -> None:
    similarity = points([0, 0], [1, 0], [0, 2], [7, 7], [7.5, 7], [7, 9], [-6, 3])
    paid = beta * preferences(similarity)

    def net(chosen: tuple[int, ...]) -> float:
        rest = [i for i in range(7) if i not in chosen]
        return sum(paid[list(chosen)]) + sum(similarity[rest][:, list(chosen)].max(1)) if rest else sum(paid)

    everyone = [some for size in range(1, 8) for some in combinations(range(7), size)]

    assert elected(similarity, beta) == list(max(everyone, key=net))


@pytest.mark.parametrize("beta", [0.1, 0.4, 0.75, 1.0])
def test_five_tight_clusters_have_five_exemplars_one_each(beta: float) -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 23, 3), nn.BatchNorm2d(23), nn.Conv2d(23, 5, 1)))
    member = clustered(net, net[0], 5)
    case = context(net)
    found = elected(similarities(net, case.graph, case.graph.prunable)["0"], beta)

    assert sorted(member[found]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
def test_a_larger_b_has_no_more_exemplars_and_at_least_one(spread: float) -> None:
    counts = [len(elected(noise(31, spread), beta)) for beta in (0.05, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 4.0)]

    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 31
    assert counts[-1] >= 1
    assert len(set(counts)) > 3


def test_the_order_of_the_filters_does_not_matter() -> None:
    similarity = noise(31, 0.3)
    order = np.random.default_rng(1).permutation(31)

    for beta in (0.5, 0.65, 0.8):
        assert sorted(order[elected(similarity[order][:, order], beta)].tolist()) == elected(similarity, beta)


class Unsettled:
    """Affinity propagation that settles only with the damping it is told."""

    tried: list[tuple[float, int]]
    needs = 1.0

    def __init__(self, *, damping: float, max_iter: int, **_others: Any) -> None:
        self.damping, self.most = damping, max_iter
        self.tried.append((damping, max_iter))

    def fit(self, similarity: np.ndarray) -> None:
        settles = self.damping >= self.needs
        self.n_iter_ = 20 if settles else self.most
        # scikit-learn may or may not name centres when it gives up
        self.cluster_centers_indices_ = np.array([2]) if settles or self.damping < 0.6 else np.array([], dtype=int)


@pytest.mark.parametrize(("needs", "tried", "chosen"), [
    (0.5, [(0.5, 200)], [2]),
    (0.7, [(0.5, 200), (0.7, 333)], [2]),
    (0.9, [(0.5, 200), (0.7, 333), (0.9, 1000)], [2]),
    (1.0, [(0.5, 200), (0.7, 333), (0.9, 1000)], [0, 1, 2, 3, 4, 5, 6]),
])  # fmt: skip
def test_messages_that_do_not_settle_are_damped_more_and_then_all_units_count(
    monkeypatch: pytest.MonkeyPatch, needs: float, tried: list[tuple[float, int]], chosen: list[int]
) -> None:
    monkeypatch.setattr("sklearn.cluster.AffinityPropagation", Unsettled)
    monkeypatch.setattr(Unsettled, "tried", [], raising=False)
    monkeypatch.setattr(Unsettled, "needs", needs)
    found = find_exemplars(noise(7), -np.ones(7), 0.5, 0)

    assert Unsettled.tried == tried
    assert np.flatnonzero(found.chosen).tolist() == chosen
    assert found.settled == (needs < 1)


def test_groups_that_do_not_settle_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sklearn.cluster.AffinityPropagation", Unsettled)
    monkeypatch.setattr(Unsettled, "tried", [], raising=False)
    case, method = context(randomised(Chain())), build("epruner")
    selection = method.select(case, method.score(case), Target(flops=0.5), Allocation())

    assert selection.notes["unsettled_groups"] == 2


# ---- worth -----------------------------------------------------------------------------------------------------------


def test_worth_by_hand() -> None:
    similarity = points([0, 0], [1, 0], [0, 3], [5, 0])
    found = worth(similarity, np.array([-2.0, -1, -10, -4]), np.array([True, False, False, True]))

    # 0 serves 0, 1, 2 at 0, 1, 9; without it 3 would at 25, 16, 34: 65 more. 3 serves itself; 0 would at 25.
    # 1 would serve itself for 1 less and nobody else for less. 2 likewise for 9 less.
    assert found.tolist() == [65 / 2, 1 / 1, 9 / 10, 25 / 4]


def test_worth_without_another_exemplar_or_without_a_preference() -> None:
    similarity = points([0, 0], [0, 0], [0, 3])

    assert worth(similarity, np.array([-1.0, -1, -1]), np.array([True, False, False])).tolist() == [np.inf, 0, 9]
    assert worth(similarity, np.array([0.0, 0, 0]), np.array([True, False, False])).tolist() == [np.inf, 0, np.inf]


def test_exemplars_are_worth_more_than_b_and_the_others_less() -> None:
    similarity = noise(31, 0.3)
    search = ExemplarSearch({"0": similarity}, {"0": 1.0}, 0.5, 0)
    chosen = search.exemplars_at(0.6)["0"].chosen
    found = worth(similarity, preferences(similarity), chosen)

    assert 3 < chosen.sum() < 28
    assert found[chosen].min() > 0.6 > found[~chosen].max()


def test_scores_put_the_exemplars_of_the_authors_b_first() -> None:
    case, method = context(randomised(Residual(stream=23, inner=31))), build("epruner")
    search = similarities(case.model, case.graph, case.graph.prunable)

    for group, values in method.score(case).items():
        assert np.flatnonzero(values >= 1).tolist() == elected(search[group], 0.75)
        assert ((values >= 0) & (values <= 2)).all()


# ---- meeting the target ----------------------------------------------------------------------------------------------


def select(
    net: nn.Module, flops: float, allocation: Allocation | None = None, **params: Any
) -> tuple[Any, Any, Selection]:
    case, method = context(net), build("epruner", **params)
    return case, method, method.select(case, method.score(case), Target(flops=flops), allocation or Allocation())


@pytest.mark.parametrize("flops", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("net", [Residual(stream=23, inner=31), Concat(growth=19), Depthwise(width=29)])
def test_the_target_is_met_and_what_is_kept_are_exemplars_but_for_the_adjusted(net: nn.Module, flops: float) -> None:
    case, _, selection = select(randomised(net), flops)
    keep, notes, differ = selection.keep, selection.notes, 0
    kept = keep.to_dict()
    for group, values in similarities(case.model, case.graph, case.graph.prunable).items():
        differ += len(set(elected(values, notes["beta"])) ^ set(kept.get(group, range(len(values)))))

    assert ratio(case.graph, keep) == pytest.approx(flops, abs=TOLERANCE)
    assert notes["adjusted_units"] == differ
    assert notes["unsettled_groups"] == 0


def test_where_exemplars_meet_the_target_nothing_is_adjusted() -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 23, 3), nn.BatchNorm2d(23), nn.Conv2d(23, 5, 1)))
    member = clustered(net, net[0], 5)
    _, _, selection = select(net, 5 / 23)

    assert selection.notes["adjusted_units"] == 0
    assert sorted(member[list(dict(selection.keep.kept)["0"])]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("units", [9, 17])
def test_where_the_number_jumps_worth_decides(units: int) -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 23, 3), nn.BatchNorm2d(23), nn.Conv2d(23, 5, 1)))
    clustered(net, net[0], 5)
    case, _, selection = select(net, units / 23)
    search = ExemplarSearch(similarities(net, case.graph, case.graph.prunable), {"0": 1.0}, 0.5, 0)
    ranks = search.ranks(selection.notes["beta"])["0"]

    assert selection.notes["adjusted_units"] > 0
    assert sorted(dict(selection.keep.kept)["0"]) == sorted(np.argsort(ranks)[23 - units :].tolist())


def test_widths_are_those_that_the_allocation_allows() -> None:
    allocation = Allocation(round_to=4, max_ratio=0.6)
    case, _, selection = select(randomised(Residual(stream=23, inner=31)), 0.45, allocation)
    keep = selection.keep
    allowed = allowed_widths(case.graph, allocation, case.graph.by_id)

    assert ratio(case.graph, keep) == pytest.approx(0.45, abs=TOLERANCE)
    assert all(width in allowed[group] for group, width in keep.widths(case.graph).items())
    assert min(width / case.graph.by_id[group].size for group, width in keep.widths(case.graph).items()) >= 0.4


def test_groups_that_the_allocation_leaves_out_stay_whole() -> None:
    allocation = Allocation(name="ratios", ratios={"a1.*": 1.0})
    _, _, selection = select(randomised(Residual(stream=23, inner=31)), 0.7, allocation)

    assert list(dict(selection.keep.kept)) == ["a1.0"]


def test_without_a_target_nothing_goes() -> None:
    case, method = context(randomised(Chain())), build("epruner")

    assert method.select(case, method.score(case), Target(), Allocation()) == Selection(Keep.all())


def test_the_last_stage_has_its_own_b() -> None:
    layers = [nn.Conv2d(3, 29, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(29, 31, 3), nn.Conv2d(31, 5, 1)]
    net = randomised(nn.Sequential(*layers))
    for layer in (net[0], net[3]):
        layer.weight.data.mul_(torch.linspace(0.2, 2, len(layer.weight))[:, None, None, None])

    def late(factor: float) -> float:
        case, _, selection = select(net, 0.5, late_beta=factor)
        widths = selection.keep.widths(case.graph)
        assert [case.graph.by_id[group].stage for group in ("0", "3")] == [0, 1]
        return widths["3"] / widths["0"]

    assert late(2.0) < late(1.0) < late(0.5)


def test_faithful_leaves_the_stream_alone() -> None:
    _, _, selection = select(randomised(Residual(stream=23, inner=31)), 0.7, scope="faithful")

    assert set(dict(selection.keep.kept)) == {"a1.0", "b1.0"}


def no_batches(_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    raise AssertionError("EPruner asked for data")


def test_no_data_is_looked_at() -> None:
    case, method = replace(context(randomised(Chain())), batches=no_batches, loss=no_batches), build("epruner")
    keep = method.select(case, method.score(case), Target(flops=0.5), Allocation()).keep
    method.rebuild(case, keep)

    assert ratio(case.graph, keep) == pytest.approx(0.5, abs=TOLERANCE)


# ---- rebuilding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inherit", ["yes", "no"])
def test_exemplars_are_kept_bit_by_bit_and_their_readers_read_the_same(inherit: str) -> None:
    case, method, selection = select(randomised(Chain()), 0.4, inherit_bn=inherit)
    cut, kept = method.rebuild(case, selection.keep), dict(selection.keep.kept)
    first, second = list(kept["first.0"]), list(kept["second.0"])

    assert torch.equal(cut.first[0].weight, case.model.first[0].weight[first])
    assert torch.equal(cut.second[0].weight, case.model.second[0].weight[second][:, first])


def test_batch_norms_of_pruned_groups_start_anew_if_they_are_not_inherited() -> None:
    net = randomised(Residual(stream=23, inner=31))
    case, method, selection = select(net, 0.8, Allocation(name="ratios", ratios={"a1.*": 1.0}), inherit_bn="no")
    cut = method.rebuild(case, selection.keep)
    fresh = nn.BatchNorm2d(len(dict(selection.keep.kept)["a1.0"]))

    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in cut.a1[1].state_dict().items())
    for path in ("stem.1", "b1.1"):
        before = net.get_submodule(path).state_dict()
        assert all(torch.equal(value, before[name]) for name, value in cut.get_submodule(path).state_dict().items())
    assert torch.equal(cut.a2.bias, net.a2.bias)  # nothing is folded
    assert torch.equal(net.a1[1].running_mean, randomised(Residual(stream=23, inner=31)).a1[1].running_mean)
    assert cut(image()).shape == (2, 5)


def test_batch_norms_are_inherited_by_default() -> None:
    case, method, selection = select(randomised(Chain()), 0.5)
    cut = method.rebuild(case, selection.keep)

    assert torch.equal(cut.first[1].weight, case.model.first[1].weight[list(dict(selection.keep.kept)["first.0"])])


def test_notes_say_what_decided_the_cut() -> None:
    _, _, selection = select(randomised(Chain()), 0.5)

    assert list(selection.notes) == ["beta", "adjusted_units", "unsettled_groups"]
    assert epruner.BETAS[0] < selection.notes["beta"] < epruner.BETAS[1]
