"""Ranks and channels in one network: what singular values say, what pays, and that the trial's numbers are true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Residual, block, image, randomised
from regularisers import build, cross_entropy, images, predict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.allocation.ratio_keys import weights_by_key
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.low_rank import decomposed
from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.run import Trial, run
from autoprune.trial.shared import SharedState

TASK = {
    "data": {"name": "digits"},
    "model": {"name": "digits_net", "train": {"images": 12_000, "lr": 0.1, "batch_size": 64}},
}


@pytest.fixture(scope="module")
def shared(data_folder: Path) -> SharedState:
    assert data_folder.is_dir()
    return SharedState.of(load_task(TASK), Runtime(threads=1))


def trial(shared: SharedState, flops: float, **params: str) -> Trial:
    done = run(
        Recipe(
            method=MethodChoice(name="svd", params=params),
            target=Target(flops=flops),
            allocation=Allocation(name="uniform"),
            training=Training(images=1280, lr=0.02, batch_size=64),
        ),
        shared,
    )
    assert done.outcome.error is None
    return done


def context(net: nn.Module) -> Context:
    return Context(net, trace(net, image()), images, cross_entropy, predict, 0)


def test_ratios_may_call_both_parts_by_the_name_of_the_layer() -> None:
    case = context(build("svd").prepare(randomised(Residual(stream=23, inner=31))))
    found = weights_by_key(case.graph, {"a1.0": 0.5, "a?.basis": 0.25})
    inside = {group: weight for group, weight in found.items() if group.startswith("a")}

    assert inside == {"a1.0.basis": 0.5, "a1.0.mix": 0.5, "a2.basis": 0.25}


def test_an_inner_channel_scores_its_squared_singular_value() -> None:
    dense = randomised(Residual(stream=23, inner=31))
    method = build("svd")
    scores = method.score(context(method.prepare(dense)))
    values = torch.linalg.svdvals(dense.a2.weight.detach().flatten(1)).numpy()

    assert {"stem.0.basis", "a1.0.basis", "a2.basis", "b1.0.basis", "b2.basis"} <= set(scores)
    assert all(group.endswith(".basis") for group in scores)
    assert np.sort(scores["a2.basis"])[::-1] == pytest.approx(values**2, rel=1e-3)


def test_channels_score_the_squares_of_their_filters_as_if_nothing_were_decomposed() -> None:
    dense = randomised(nn.Sequential(block(3, 7), block(7, 11), nn.Flatten(), nn.Linear(11 * 25, 5)))
    method = build("svd", channels="prune")
    scores = method.score(context(method.prepare(dense)))

    assert scores["1.0.mix"] == pytest.approx(dense[1][0].weight.detach().square().sum((1, 2, 3)).numpy(), rel=1e-4)


def test_ranks_alone_meet_the_target_on_the_rebuilt_model_and_keep_every_channel(shared: SharedState) -> None:
    done = trial(shared, 0.6)
    assert done.model is not None
    assert done.graph is not None
    example = shared.task.example()
    counted = []
    for model in (shared.model, done.model):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.cpu()(*example)
        counted.append(counter.get_total_flops())

    assert counted[1] / counted[0] == pytest.approx(done.outcome.flops_ratio)
    assert done.outcome.flops_ratio == pytest.approx(0.6, abs=2 * TOLERANCE)
    assert decomposed(done.model)
    sizes = {group.id: group.size for group in done.graph.prunable}
    assert all(width == sizes[group] for group, width in done.outcome.widths.items() if not group.endswith(".basis"))


def test_ranks_and_channels_mix_in_one_network_and_what_does_not_pay_is_single(shared: SharedState) -> None:
    done = trial(shared, 0.4, channels="prune")
    assert done.model is not None
    assert done.graph is not None
    pairs = decomposed(done.model)
    lost = {g.id for g in done.graph.prunable if done.outcome.widths[g.id] < g.size}

    assert any(group.endswith(".basis") for group in lost)
    assert any(not group.endswith(".basis") for group in lost)
    for path in pairs:
        basis, mix = (done.model.get_parameter(f"{path}.{part}.weight") for part in ("basis", "mix"))
        rank, entries, filters = len(basis), basis[0].numel(), len(mix)
        assert rank * (entries + filters) < entries * filters


def test_the_artefact_of_a_trial_loads_into_the_dense_factory(shared: SharedState, tmp_path: Path) -> None:
    done = trial(shared, 0.5, channels="prune")
    assert done.model is not None
    assert done.graph is not None
    assert done.keep is not None
    artifact.save(tmp_path / "small", done.model, done.graph, done.keep)
    again = artifact.load(tmp_path / "small", shared.task.build)
    example = shared.task.example()

    with torch.no_grad():
        assert torch.allclose(again(*example), done.model.cpu().eval()(*example), atol=1e-6)


def test_an_unreachable_rank_is_refused_before_training(shared: SharedState) -> None:
    done = run(Recipe(method=MethodChoice(name="svd"), target=Target(flops=0.001)), shared)

    assert done.outcome.status == "failed"
    assert "cannot be reached" in str(done.outcome.error)
    assert done.outcome.rungs == ()
