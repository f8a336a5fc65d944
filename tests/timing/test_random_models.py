"""Random models keep to widths that the allocation allows, and a prediction is fitted to what they take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.tracing.trace import trace
from autoprune.recipe import Allocation
from autoprune.timing.random_models import SHARES, fit_to_random_models, random_keeps


@pytest.fixture(scope="module")
def model() -> nn.Module:
    layers = [nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 72, 3), nn.ReLU(), nn.Conv2d(72, 8, 1)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("round_to", [1, 8])
def test_every_width_is_allowed_and_they_spread(model: nn.Module, round_to: int) -> None:
    graph = trace(model, torch.zeros(1, 3, 9, 9))
    allocation = Allocation(name="uniform", round_to=round_to)
    allowed = allowed_widths(graph, allocation, {group.id for group in graph.prunable})
    keeps = list(itertools.islice(random_keeps(graph, allocation, seed=5), 60))
    shares = np.array([keep.counts(graph) / graph.sizes for keep in keeps])

    assert all(width in allowed[name] for keep in keeps for name, width in keep.widths(graph).items())
    assert shares.min() < SHARES[0] < SHARES[1] <= shares.max()
    assert keeps[:5] == list(itertools.islice(random_keeps(graph, allocation, seed=5), 5))


def test_a_prediction_is_fitted_to_what_models_take(model: nn.Module) -> None:
    """On a clock by which a model takes as long as it has parameters, to which its layers' work is in proportion."""
    graph = trace(model, torch.zeros(1, 3, 5, 5))
    asked = []

    def measure(pruned: nn.Module) -> float:
        asked.append(pruned)
        return count(pruned) / count(model)

    found = fit_to_random_models(model, graph, Allocation(name="uniform"), measure, models=40)
    unseen = list(itertools.islice(random_keeps(graph, Allocation(name="uniform"), seed=9), 20))

    assert len(asked) == 40
    for keep in unseen:
        widths = keep.widths(graph)
        first, second = (next(width for name, width in widths.items() if name.startswith(n)) for n in ("0", "2"))
        parameters = first * 28 + second * (9 * first + 1) + 8 * (second + 1)
        assert found.ratio(keep.counts(graph)) == pytest.approx(parameters / count(model), rel=0.05)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
