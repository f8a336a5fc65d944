"""Hinge: proximal operators by brute force, what rows and columns of A do, and the trial that ends with both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Residual, block, image, randomised
from regularisers import build, cross_entropy, drive, images, predict, resumed, stage
from torch import Tensor, nn

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.low_rank import decomposed, recompose, unprofitable
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context
from autoprune.methods.hinge import GroupSparsity, proximal
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

PENALTIES = ("l1", "half", "l1-2", "logsum")


def context(net: nn.Module, method: object = None) -> Context:
    net = method.prepare(net) if method is not None else net  # type: ignore[attr-defined]
    return Context(net, trace(net, image()), images, cross_entropy, predict, 0)


def answers(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return net(image())


# --- proximal operators -----------------------------------------------------------------------------------------------


def objective(x: np.ndarray, norm: float, weight: float, penalty: str) -> np.ndarray:
    costs = {"l1": weight * x, "half": 2 * 0.5 * weight * np.sqrt(x), "logsum": weight * np.log((x + 1e-8) / 1e-8)}
    square = (x - norm) ** 2 if penalty == "half" else (x - norm) ** 2 / 2
    return square + costs[penalty]


@pytest.mark.parametrize("penalty", ["l1", "half", "logsum"])
@pytest.mark.parametrize("weight", [0.003, 0.05, 0.4])
def test_a_proximal_operator_is_the_best_of_all_values(penalty: str, weight: float) -> None:
    norms = np.array([0.0, 0.01, 0.07, 0.3, 0.9, 2.0])
    found = proximal(torch.tensor(norms), torch.full((6,), weight, dtype=torch.float64), penalty).numpy()
    grid = np.concatenate([[0.0], np.linspace(1e-4, 2.5, 250_000)])

    for norm, value in zip(norms, found, strict=True):
        best = grid[objective(grid, norm, weight, penalty).argmin()]
        assert value == pytest.approx(best, abs=2e-4)


def test_l1_minus_2_shrinks_by_l1_and_gives_back_along_what_is_left() -> None:
    # soft thresholding of (3, 1, 0.2) by 0.5: (2.5, 0.5, 0), length sqrt(6.5); times 1 + 0.5 / sqrt(6.5)
    found = proximal(torch.tensor([3.0, 1.0, 0.2]), torch.full((3,), 0.5), "l1-2")

    assert found.tolist() == pytest.approx([2.5 * (1 + 0.5 / 6.5**0.5), 0.5 * (1 + 0.5 / 6.5**0.5), 0.0])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_layer_of_zeros_stays_zero_and_nothing_is_nan(penalty: str) -> None:
    assert proximal(torch.zeros(7), torch.full((7,), 0.1), penalty).tolist() == [0.0] * 7
    assert proximal(torch.zeros(7), torch.zeros(7), penalty).tolist() == [0.0] * 7


# --- rows and columns -------------------------------------------------------------------------------------------------


def sparsity(net: nn.Module, steps: int = 40, **params: object) -> tuple[Context, GroupSparsity]:
    method = build("hinge", **params)
    case = context(net, method)
    return case, method.sparsify(case, stage(method, steps, flops=0.01, lr=0.1, schedule="constant"))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_whole_groups_become_zero_never_single_entries(penalty: str) -> None:
    net, strengths = randomised(Residual(stream=23, inner=31)), {"l1": 3, "l1-2": 3, "half": 0.5, "logsum": 0.02}
    case, regulariser = sparsity(
        net, direction="decompose", penalty=penalty, strength=strengths[penalty], annealing=1.0
    )
    before = case.model.a2.mix.weight.detach().flatten(1).clone()
    drive(case.model, regulariser, 25)
    after = case.model.a2.mix.weight.detach().flatten(1)
    gone = after.norm(dim=0) == 0

    assert 0 < gone.sum() < 23
    assert torch.nn.functional.cosine_similarity(before[:, ~gone], after[:, ~gone], dim=0).min() > 0.9999
    assert (after[:, ~gone] != 0).all()


def test_a_zeroed_row_can_be_cut_and_the_stream_keeps_its_width() -> None:
    case, regulariser = sparsity(
        randomised(Residual(stream=23, inner=31)), direction="decompose", annealing=1.0, strength=3.0
    )
    drive(case.model, regulariser, 25)
    dead = [i for i in range(23) if not case.model.a2.mix.weight[:, i].any()]
    assert dead
    small = prune(case.model, case.graph, Keep.of({"a2.basis": sorted(set(range(23)) - set(dead))}))

    assert small.a2.basis.weight.shape[0] == 23 - len(dead)
    assert small.a2.mix.weight.shape[0] == 23
    assert torch.allclose(answers(small), answers(case.model), atol=1e-5)


def test_a_zeroed_column_can_be_pruned_as_a_channel_and_the_layer_merged() -> None:
    case, regulariser = sparsity(
        randomised(Residual(stream=23, inner=31)), direction="prune", annealing=1.0, strength=1.3
    )
    drive(case.model, regulariser, 40)
    dead = [j for j in range(31) if not case.model.a1[0].mix.weight[j].any()]
    assert dead
    small = prune(case.model, case.graph, Keep.of({"a1.0.mix": sorted(set(range(31)) - set(dead))}))
    merged = recompose(small, decomposed(small))

    assert isinstance(merged.a1[0], nn.Conv2d)
    assert merged.a1[0].weight.shape[0] == 31 - len(dead)
    assert torch.allclose(answers(merged), answers(case.model), atol=1e-4)


def test_directions_decide_per_layer_what_may_go() -> None:
    net = randomised(Residual(stream=23, inner=31))
    by = {way: build("hinge", direction=way) for way in ("prune", "decompose", "either")}
    groups = {way: set(method.score(context(net, method))) for way, method in by.items()}
    inner = {f"{layer}.basis" for layer in ("stem.0", "a1.0", "a2", "b1.0", "b2", "head")}
    mixed = build("hinge", direction="either", directions={"a1.*": "prune", "b?": "decompose", "stem.*": "prune"})

    assert groups["decompose"] <= inner
    assert {"a1.0.mix", "b1.0.mix", "stem.0.mix"} <= groups["prune"]
    assert not groups["prune"] & inner
    assert groups["either"] == groups["prune"] | groups["decompose"]
    found = set(mixed.score(context(net, mixed)))
    assert "a1.0.basis" not in found
    assert "a1.0.mix" in found
    assert "stem.0.mix" not in found  # its stream is made by b2 as well, which is to be decomposed alone
    assert "b2.basis" in found


def test_scores_are_the_norms_of_rows_and_columns_of_a() -> None:
    method = build("hinge", scope="faithful")
    case = context(randomised(nn.Sequential(block(3, 7), block(7, 11), nn.Flatten(), nn.Linear(275, 5))), method)
    mix = case.model[1][0].mix.weight.detach().flatten(1)
    scores = method.score(case)

    assert scores["1.0.basis"] == pytest.approx(mix.norm(dim=0).numpy(), rel=1e-5)
    assert scores["1.0.mix"] == pytest.approx(mix.norm(dim=1).numpy(), rel=1e-5)


# --- weights of the penalty -------------------------------------------------------------------------------------------


def test_a_group_of_average_norm_is_used_up_as_often_as_strength_says() -> None:
    case, regulariser = sparsity(
        randomised(Residual(stream=23, inner=31)), direction="decompose", strength=0.5, annealing=1.0
    )
    before = case.model.a2.mix.weight.detach().flatten(1).norm(dim=0)
    drive(case.model, regulariser, 40)
    after = case.model.a2.mix.weight.detach().flatten(1).norm(dim=0)
    alive = after > 0

    assert (before - after)[alive].numpy() == pytest.approx(
        np.full(int(alive.sum()), 0.5 * float(before.mean())), rel=1e-3
    )


def test_the_penalty_weakens_at_two_points() -> None:
    case, regulariser = sparsity(randomised(Residual()), annealing=3.0, first=0.7, second=0.4)
    factors = []
    for left in (1.0, 0.71, 0.69, 0.41, 0.39, 0.1):
        regulariser.start = regulariser._sum_of_norms(case.model) / left
        factors.append(regulariser._annealing_so_far(case.model))

    assert factors == pytest.approx([1, 1, 3, 3, 9, 9])


def test_the_penalty_ends_when_the_small_groups_would_meet_the_target() -> None:
    method = build("hinge", direction="decompose", annealing=1.0, threshold=0.5, near=0.0)
    case = context(randomised(Residual(stream=23, inner=31)), method)
    regulariser = method.sparsify(case, stage(method, 400, flops=0.6, lr=0.1, schedule="constant"))
    seen: list[bool] = []
    drive(case.model, regulariser, 400, look=lambda step: seen.append(regulariser.over))
    left = case.model.a2.mix.weight.detach().clone()
    drive(case.model, regulariser, 1)
    means, scores = regulariser.balance[0], method.score(case)
    alive = {g.id: scores[g.id] > 0.5 * float(means[g.units[0]]) for g in regulariser.groups[0].groups}
    keep = Keep.of({group: np.flatnonzero(stays).tolist() or [0] for group, stays in alive.items()})
    wasted = unprofitable(case.model, case.graph, keep)
    single = trace(recompose(case.model, wasted), image())
    left_over = Keep.of({group: kept for group, kept in keep.kept if group.removesuffix(".basis") not in wasted})

    assert not seen[0]
    assert seen[-1]
    assert wasted
    assert torch.equal(left, case.model.a2.mix.weight)
    assert cost(single, left_over).flops <= 0.6 * cost(case.graph, Keep.all()).flops


def test_all_but_a_train_at_a_lower_rate_weight_decay_included() -> None:
    method = build("hinge", rest=0.25)
    case = context(randomised(Residual()), method)
    begins = stage(method, lr=0.1)
    regulariser = method.sparsify(case, replace(begins, weight_decay=0.5))
    for parameter in case.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    regulariser.before_step(case.model, 0, 40)

    assert begins.training.weight_decay == 0
    a, other = case.model.a2.mix.weight, case.model.a2.basis.weight
    assert torch.allclose(a.grad, 1 + 0.5 * a.detach())
    assert torch.allclose(other.grad, 0.25 * (1 + 0.5 * other.detach()))


def test_an_interrupted_stage_ends_with_the_same_bits() -> None:
    def make() -> tuple[nn.Module, GroupSparsity]:
        case, regulariser = sparsity(randomised(Residual()), steps=20)
        return case.model, regulariser

    assert resumed(make, 20, 7)


# --- a trial ----------------------------------------------------------------------------------------------------------


def test_a_trial_ends_with_ranks_and_channels_at_the_target(data_folder: Path) -> None:
    assert data_folder.is_dir()
    task = {
        "data": {"name": "digits"},
        "model": {"name": "digits_net", "train": {"images": 12_000, "lr": 0.1, "batch_size": 64}},
    }
    shared = SharedState.of(load_task(task), Runtime(threads=1))
    done = run(
        Recipe(
            method=MethodChoice(name="hinge", params={"share": 0.5}),
            target=Target(flops=0.5),
            allocation=Allocation(name="global", normalise="none", max_ratio=0.8),
            training=Training(images=5120, lr=0.05, batch_size=64),
        ),
        shared,
    )

    assert done.outcome.error is None
    assert done.outcome.flops_ratio == pytest.approx(0.5, abs=0.02)
    assert done.outcome.accuracy is not None
    assert done.outcome.accuracy > 0.8
    assert "groups_at_zero" in done.outcome.notes
