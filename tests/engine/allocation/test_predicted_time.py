"""Predicted times: a device that follows the law is found exactly; noise, outliers and layers of one kind are borne."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.engine.allocation import predicted_time
from autoprune.engine.allocation.predicted_time import PredictedTime, fit_time
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.tracing.trace import trace

Counts = NDArray[np.int64]


class Net(nn.Module):
    """Three convolutions of odd widths, one of them depthwise, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 45, 3), nn.Conv2d(45, 71, 3)
        self.deep, self.point = nn.Conv2d(71, 71, 3, groups=71), nn.Conv2d(71, 37, 1)
        self.head = nn.Linear(37, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.point(self.deep(self.body(self.stem(x)))).mean((2, 3)))
        return found


@cache
def graph() -> ChannelGraph:
    return trace(Net().eval(), torch.zeros(1, 3, 15, 15))


def drawn(count: int, seed: int = 3) -> Counts:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(graph().sizes // 5, graph().sizes + 1) for _ in range(count)])


def widths_of(counts: Counts) -> NDArray[np.int64]:
    """Kept channels of stem, body and point."""
    names = [next(g.id for g in graph().prunable if layer in g.id) for layer in ("stem", "body", "point")]
    return counts[:, [graph().column[name] for name in names]]


def device(counts: Counts, block: int) -> NDArray[np.float64]:
    """Seconds of a device that takes whole blocks of channels: of its law by hand, in no unit."""
    stem, body, point = np.ceil(widths_of(counts) / block).T * block
    return 11.0 + 0.5 * stem * 3 + 0.02 * stem * body + 0.3 * body + 0.05 * body * point


def ratios(counts: Counts, block: int) -> NDArray[np.float64]:
    return device(counts, block) / device(graph().sizes[None], block)


@pytest.mark.parametrize("block", [1, 16])
def test_a_law_of_layers_is_found_and_how_channels_are_counted(block: int) -> None:
    found = fit_time(graph(), drawn(64), ratios(drawn(64), block))
    unseen = drawn(200, seed=5)

    assert block in found.blocks
    assert np.quantile(np.abs(found.ratios(unseen) / ratios(unseen, block) - 1), 0.95) < 0.04
    assert found.median < 0.01
    assert found.ratio(unseen[7]) == pytest.approx(found.ratios(unseen)[7])


def test_the_dense_model_takes_its_own_time() -> None:
    found = fit_time(graph(), drawn(64), ratios(drawn(64), 16))

    assert found.ratio(graph().sizes) == pytest.approx(1, abs=0.03)


def test_the_errors_that_it_names_are_those_of_models_it_has_not_seen() -> None:
    noise = np.random.default_rng(7).normal(1, 0.03, (2, 120))
    found = fit_time(graph(), drawn(120), ratios(drawn(120), 1) * noise[0])
    unseen = drawn(120, seed=5)
    errors = np.abs(found.ratios(unseen) / (ratios(unseen, 1) * noise[1]) - 1)

    assert found.median == pytest.approx(float(np.median(errors)), rel=0.5)
    assert found.most == pytest.approx(float(np.quantile(errors, 0.95)), rel=0.5)
    assert 0.01 < found.median < found.most < 0.12


def test_timings_that_something_else_disturbed_are_left_out() -> None:
    disturbed = ratios(drawn(64), 1)
    disturbed[[3, 29]] *= 2.5
    found = fit_time(graph(), drawn(64), disturbed)
    unseen = drawn(200, seed=5)

    assert np.quantile(np.abs(found.ratios(unseen) / ratios(unseen, 1) - 1), 0.95) < 0.04


def test_more_channels_never_take_less() -> None:
    found = fit_time(graph(), drawn(64), ratios(drawn(64), 16))
    counts = drawn(50, seed=9)

    assert (found.ratios(np.minimum(counts + 1, graph().sizes)) >= found.ratios(counts)).all()


def test_as_arrays_and_back() -> None:
    found = fit_time(graph(), drawn(30), ratios(drawn(30), 1))
    again = PredictedTime.of_arrays(graph(), found.to_arrays())

    assert (again.blocks, again.median, again.most) == (found.blocks, found.median, found.most)
    assert again.ratio(drawn(1)[0]) == found.ratio(drawn(1)[0])
    assert tuple(found.to_arrays()) == PredictedTime.ARRAYS


def test_terms_by_hand() -> None:
    """Of the stem: work in blocks of 16 is 3 * 48 of 3 * 48, at 17 channels 3 * 32; what it writes 17 of 45."""
    counts = graph().sizes.copy()
    counts[graph().column[next(g.id for g in graph().prunable if "stem" in g.id)]] = 17
    terms = predicted_time._terms(graph(), np.stack([graph().sizes, counts]), (16,))
    stem = next(number for number, op in enumerate(graph().ops) if "stem" in op.name)
    outputs = len(graph().ops) + stem

    assert terms[0, :-1].sum() == pytest.approx(2)
    assert terms[1, stem] / terms[0, stem] == pytest.approx(32 / 48)
    assert terms[1, outputs] / terms[0, outputs] == pytest.approx(17 / 45)
    assert (terms[:, -1] == 1).all()
