"""The cut at a limit of time, on a clock of its own, and the page's mean over seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from digits import TASK
from torch import nn

from autoprune.analysis.benchmarks.latency_allocation import NEAR, Row, cut, page
from autoprune.recipe import Allocation
from autoprune.study.constraints import Latency
from autoprune.tasks import load_task
from autoprune.timing.pairs import Timing
from autoprune.timing.random_models import fit_to_random_models
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState

ROW = Row(
    network="net",
    method="l1",
    normalise="mean",
    limit=0.5,
    per="flops",
    round_to=1,
    seed=0,
    latency=(0.49, 0.48, 0.51),
    flops=0.25,
    accuracy=0.7,
    unseen=0.6,
    dense=0.9,
    images=7,
)


@pytest.mark.parametrize("per", ["channel", "latency"])
def test_a_cut_takes_what_was_asked_for_where_the_prediction_is_wrong(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, per: str
) -> None:
    assert data_folder.is_dir()
    shared = SharedState.of(load_task(TASK), Runtime(threads=1))

    def share(model: nn.Module) -> float:
        return sum(p.numel() for p in model.parameters()) / sum(p.numel() for p in shared.model.parameters())

    def time(model: nn.Module, _latency: Latency) -> Timing:
        ratio = share(model)
        return Timing(ms=ratio, ratio=ratio, low=ratio, high=ratio)

    monkeypatch.setattr(shared.timer, "time", time)
    wrong = fit_to_random_models(
        shared.model, shared.graph, Allocation(name="uniform"), lambda model: share(model) ** 0.8, models=40
    )
    scores = {group.id: np.arange(1.0, group.size + 1) for group in shared.graph.prunable}
    _, timing = cut(shared, scores, Allocation(per=per), wrong, 0.5)

    assert timing.ratio == pytest.approx(0.5, abs=2 * NEAR)


def test_the_page_has_the_mean_over_seeds() -> None:
    rows = [ROW, replace(ROW, seed=1, accuracy=0.72, unseen=0.64), replace(ROW, per="channel")]

    how = "| net | l1 | mean | 0.5 | flops | 1 | 0.490 (0.480 to 0.510) | 25.0% | 2"

    assert f"{how} | 71.00 ± 1.41 | 62.00 ± 2.83 | 90.00 |" in page(rows)
