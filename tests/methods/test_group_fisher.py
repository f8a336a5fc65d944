"""Group Fisher: what units cost, one removal at a time, masks that hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from masks import Tokens, count_hooks, multiplied, traced_as
from nets import Chain, Depthwise, Grouped, Residual, Shared, image, randomised
from regularisers import build, context, cross_entropy, images, predict, stage
from torch import nn
from torch.nn import functional as F

from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context, Stage
from autoprune.methods.group_fisher import Removal, cost_per_unit
from autoprune.recipe import Allocation, Target, Training
from autoprune.tasks import load_task
from autoprune.training.fit import OnRung, TrainingLoop, fit
from autoprune.training.processes import ALONE
from autoprune.training.protocols import Listener, listening
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState


@pytest.mark.parametrize("grouped", ["offsets", "groups"])
@pytest.mark.parametrize("make", [Chain, Residual, Depthwise, Grouped, Shared, Tokens])
def test_the_masked_model_computes_what_the_cut_one_does(make: Callable[[], nn.Module], grouped: str) -> None:
    net = randomised(make())
    case = traced_as(net, grouped)
    method = build("group_fisher", lr=0.05)
    regulariser = method.sparsify(case, stage(method, 12, 0.6, lr=0.05))
    train(net, regulariser, 12)
    net.eval()
    keep = regulariser.keep()
    small = prune(net, case.graph, keep)

    assert keep.kept
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    with torch.no_grad():
        assert torch.allclose(net(image()), small(image()), atol=1e-5)
    masks = {name: torch.ones(2, len(units)) for name, units in regulariser.gradients.readers.items()}
    for name, units in regulariser.gradients.readers.items():
        masks[name][:, regulariser.factor[units] == 0] = 0
    with torch.no_grad(), multiplied(net, masks):  # as it was when masks are multiplied in
        assert torch.allclose(net(image()), small(image()), atol=1e-5)


def test_all_that_makes_a_unit_of_a_residual_stream_and_all_that_reads_it_is_switched_off() -> None:
    net = randomised(Residual(stream=23, inner=31))
    case = context(net)
    method = build("group_fisher")
    regulariser = method.sparsify(case, stage(method, 12, 0.5))
    train(net, regulariser, 12)
    lost = sorted(set(range(23)) - set(dict(regulariser.keep().kept)["stem.0"]))

    assert lost
    for name in ("stem.0", "a2", "b2"):
        assert not net.get_submodule(name).weight[lost].any()
        assert net.get_submodule(name).weight.flatten(1).any(1).sum() == 23 - len(lost)
    for name in ("a1.0", "b1.0", "head"):
        assert not net.get_submodule(name).weight[:, lost].any()


def train(
    net: nn.Module,
    regulariser: Removal,
    steps: int,
    begin: int = 0,
    end: int | None = None,
    look: Callable[[int], None] | None = None,
    momentum: dict | None = None,
) -> dict:
    """Steps `begin` to `end` of a stage of `steps`, on batches that follow from the step; the optimiser's state."""
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    if momentum is not None:
        optimizer.load_state_dict(momentum)
    with listening(regulariser, net):
        for step in range(begin, steps if end is None else end):
            random = torch.Generator().manual_seed(step)
            inputs, labels = torch.randn(6, 3, 9, 9, generator=random), torch.randint(5, (6,), generator=random)
            optimizer.zero_grad()
            F.cross_entropy(net(inputs), labels).backward()
            regulariser.before_step(net, step, steps)
            optimizer.step()
            regulariser.after_step(net, step, steps)
            if look is not None:
                look(step)
    return optimizer.state_dict()


def start(
    net: nn.Module, steps: int, flops: float = 0.5, allocation: Allocation | None = None, **params: float
) -> Removal:
    method, case = build("group_fisher", **params), context(net)
    return method.sparsify(case, replace(stage(method, steps, flops), allocation=allocation or Allocation()))


def test_one_unit_goes_every_d_steps_and_what_was_gathered_is_forgotten() -> None:
    net = randomised(Residual(stream=23, inner=31))
    regulariser = start(net, 300, spread=0.9)
    assert regulariser.at_once == 1
    assert regulariser.every == 270 // regulariser.choice.estimated_removals() > 1
    gone: list[int] = []
    empty: list[bool] = []

    def look(step: int) -> None:
        gone.append(len(regulariser.gone))
        empty.append(not regulariser.sums.any())

    train(net, regulariser, 300, end=60, look=look)

    assert gone == [(step + 1) // regulariser.every for step in range(60)]
    assert empty == [(step + 1) % regulariser.every == 0 for step in range(60)]


def test_a_stage_with_fewer_steps_than_units_removes_several_at_a_time_and_meets_the_target() -> None:
    net = randomised(Residual(stream=23, inner=31))
    case = context(net)
    method, regulariser = build("group_fisher", spread=0.5), start(net, 10, spread=0.5)
    need = regulariser.choice.estimated_removals()
    gone: list[int] = []
    train(net, regulariser, 10, look=lambda _: gone.append(len(regulariser.gone)))
    ratio = cost(case.graph, regulariser.keep()).ratios(cost(case.graph, Keep.all()))["flops"]
    end = Context(net, case.graph, images, cross_entropy, predict, 0, regulariser)
    told = method.select(end, method.score(end), Target(flops=0.5), Allocation()).notes

    assert regulariser.at_once == -(-need // 5) > 1
    assert gone[:3] == [regulariser.at_once, 2 * regulariser.at_once, 3 * regulariser.at_once]
    assert ratio == pytest.approx(0.5, abs=TOLERANCE)
    assert told["units_per_event"] == regulariser.at_once
    assert told["removed"] + told["removed_at_end"] == gone[-1]


def test_what_is_left_when_the_stage_ends_goes_then() -> None:
    net = randomised(Residual(stream=23, inner=31))
    regulariser = start(net, 100, spread=1.0)
    regulariser.every = 40  # so far apart that only two go in time
    train(net, regulariser, 100)

    assert len(regulariser.gone) - regulariser.at_end == 2
    assert regulariser.at_end > 10
    assert abs(regulariser.choice.excess(regulariser.choice.count_alive(regulariser.alive)[None])[0]) <= TOLERANCE


def test_once_the_target_is_met_nothing_goes_and_nothing_is_gathered() -> None:
    net = randomised(Residual(stream=23, inner=31))
    regulariser = start(net, 40, flops=0.9, spread=0.2)
    gone: list[int] = []
    train(net, regulariser, 40, look=lambda _: gone.append(len(regulariser.gone)))

    assert gone[20] == gone[-1] > 0
    assert not regulariser.gradients.on
    assert regulariser.at_end == 0


@pytest.mark.parametrize("normaliser", ["memory", "flops", "none"])
def test_who_goes_is_the_least_score_over_what_it_costs_at_these_widths(normaliser: str) -> None:
    """Residual(7, 11) on 9 x 9 images, batch 2: a stream unit is made by 3 maps of 162 elements, an inner one by 1.

    FLOPs of a 1x1 layer: 324 per pair of channels. A stream unit is in stem (3), a1, a2, b1, b2 (11 each) and, 4 per
    pair, in the head (5). With 4 of a1's units gone, of 7 - those are left in a1 and a2.
    """
    net = randomised(Residual())
    regulariser = start(net, 300, normaliser=normaliser)
    graph = regulariser.choice.graph
    stream, a1 = graph.by_id["stem.0"].units, graph.by_id["a1.0"].units
    worth = {
        "memory": (3 * 162, 162),
        "flops": (324 * (3 + 7 + 7 + 11 + 11) + 4 * 5, 324 * (7 + 7)),
        "none": (1, 1),
    }[normaliser]
    scores = np.full(graph.unit_count, 1e9)
    alive = np.ones(graph.unit_count, dtype=bool)
    alive[a1[:4]] = False
    scores[stream[5]], scores[a1[6]] = 2.0 * worth[0], 2.0 * worth[1]
    scores[a1[:4]] = 0

    for factor, first in ((0.99, stream[5]), (1.01, a1[6])):
        scores[stream[5]] = factor * 2 * worth[0]
        assert regulariser.choice.next_block(scores, alive).tolist() == [first]


def test_twice_the_pixels_of_what_makes_a_unit_halve_its_normalised_score() -> None:
    """A pool behind the parent keeps everything else as it is; padding with copies keeps the scores as well."""

    def graph_of(size: tuple[int, int]) -> ChannelGraph:
        net = nn.Sequential(nn.Conv2d(3, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(7, 5, 1), nn.Flatten())
        return trace(randomised(net), torch.zeros(2, 3, *size))

    small, large = (cost_per_unit(graph_of(size), "memory")[0] for size in ((9, 9), (9, 18)))

    assert small == 2 * 81
    assert large == 2 * small


def test_a_block_that_would_leave_the_target_behind_is_passed_over() -> None:
    net = randomised(Residual(stream=7, inner=31))
    regulariser = start(net, 300, flops=0.97)
    graph = regulariser.choice.graph
    scores = np.full(graph.unit_count, 1.0)
    scores[graph.by_id["stem.0"].units] = 0  # one of these is worth a seventh of the FLOPs

    assert regulariser.choice.next_block(scores, regulariser.alive)[0] in graph.by_id["a1.0"].units


@pytest.mark.parametrize("name", ["global", "uniform"])
def test_widths_are_those_that_the_allocation_allows(name: str) -> None:
    net = randomised(Residual(stream=40, inner=48))
    case = context(net)
    allocation = Allocation(name=name, round_to=8, min_channels=16)
    regulariser = start(net, 30, 0.6, allocation)
    train(net, regulariser, 30)
    allowed = allowed_widths(case.graph, allocation, case.graph.by_id)
    widths = regulariser.keep().widths(case.graph)

    assert regulariser.at_once >= 8
    assert any(width < case.graph.by_id[group].size for group, width in widths.items())
    assert all(widths[group] in allowed[group] and widths[group] >= 16 for group in widths)
    assert cost(case.graph, regulariser.keep()).ratios(cost(case.graph, Keep.all()))["flops"] == pytest.approx(
        0.6, abs=TOLERANCE
    )


def test_where_units_are_too_coarse_for_the_target_widths_around_are_searched_and_one_comes_back() -> None:
    net = randomised(Residual(stream=5, inner=7))
    case = context(net)
    regulariser = start(net, 30, 0.5)
    scores = np.random.default_rng(0).random(case.graph.unit_count)
    regulariser._remove_units(scores, 3)
    early = list(regulariser.gone)
    regulariser._meet_target(scores)
    ratio = cost(case.graph, regulariser.keep()).ratios(cost(case.graph, Keep.all()))["flops"]

    assert ratio == pytest.approx(0.5, abs=TOLERANCE)
    assert regulariser.put_back == len(set(early) - set(regulariser.gone)) == 1
    assert len(regulariser.gone) == 3 - 1 + regulariser.at_end


def test_an_interrupted_stage_ends_with_the_same_bits() -> None:
    def make() -> tuple[nn.Module, Removal]:
        net = randomised(Residual(stream=23, inner=31))
        return net, start(net, 60, spread=0.7)

    one, whole = make()
    train(one, whole, 60)
    for at in (13, 50):
        first, before = make()
        momentum = train(first, before, 60, end=at)
        state = json.loads(json.dumps(before.state_dict()))
        second, after = make()
        second.load_state_dict(first.state_dict())
        after.load_state_dict(state)
        train(second, after, 60, begin=at, momentum=copy.deepcopy(momentum))

        assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in one.state_dict().items())
        assert whole.state_dict() == after.state_dict()
        assert whole.keep() == after.keep()


def test_fit_goes_on_from_a_checkpoint_to_the_same_bits_and_leaves_no_hooks(data_folder: Path, tmp_path: Path) -> None:
    assert data_folder.is_dir()
    task = load_task({"data": {"name": "digits"}, "model": {"name": "digits_net", "train": {"images": 0}}})
    method, shared = build("group_fisher", lr=0.01), SharedState.of(task, Runtime(threads=1))
    training = method.stage_training(Training(batch_size=16, rungs=(0.5,)))

    def interrupt(images: int, accuracy: float) -> bool:
        raise KeyboardInterrupt

    def go(checkpoint: Path | None, on_rung: OnRung) -> tuple[nn.Module, Removal]:
        model = copy.deepcopy(shared.model)
        models.append(model)
        begins = Stage(Target(flops=0.5), Allocation(), training, steps=20)
        regulariser = method.sparsify(shared.context(model, 0), begins)
        fitted = partial(fit, model, task, training, shared.runtime, images=320, seed=0, regulariser=regulariser)
        fitted(on_rung=on_rung, checkpoint=checkpoint)
        return model, regulariser

    models: list[nn.Module] = []
    one, whole = go(None, lambda *_: True)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stage.pt", interrupt)
    two, resumed = go(tmp_path / "stage.pt", lambda *_: True)

    assert len(whole.gone) > 20
    assert whole.state_dict() == resumed.state_dict()
    assert all(torch.equal(tensor, two.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert [count_hooks(model) for model in models] == [0, 0, 0]


def test_hooks_are_there_while_it_trains_and_gone_when_it_ends_or_fails() -> None:
    net = randomised(Residual())
    regulariser = start(net, 60)
    seen: list[int] = []
    keys = list(net.state_dict())

    def look(step: int) -> None:
        seen.append(count_hooks(net))
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(net, regulariser, 60, look=look)

    assert isinstance(regulariser, Listener)
    assert seen == [6] * 4  # five readers and the model
    assert count_hooks(net) == 0
    assert list(net.state_dict()) == keys


def test_without_being_listened_to_it_complains() -> None:
    net = randomised(Residual())
    regulariser = start(net, 60)

    with pytest.raises(AssertionError, match="not observed"):
        regulariser.before_step(net, 0, 60)


def test_steps_that_are_observed_are_no_graphs() -> None:
    loop = object.__new__(TrainingLoop)
    loop.regulariser, loop.processes = start(randomised(Residual()), 60), ALONE

    assert loop._why_never_captured() == "layer by layer: the method listens to the passes"


def test_the_stage_trains_at_its_own_constant_rate() -> None:
    training = build("group_fisher", lr=0.003).stage_training(Training(lr=0.1, schedule="cosine", warmup=0.1))

    assert (training.lr, training.schedule, training.warmup) == (0.003, "constant", 0.0)
