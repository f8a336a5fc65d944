"""What the loss misses of each group, and trials whose allocation asks for it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nets import Residual, image, randomised
from regularisers import cross_entropy, predict
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.allocation.features import feature_weights
from autoprune.engine.allocation.strategies import strategy_of
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.tracing.trace import trace
from autoprune.methods import METHODS, Context, Selection, Stage
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.tasks import load_task
from autoprune.training.protocols import Regulariser
from autoprune.training.runtime import Runtime
from autoprune.trial import sensitivity
from autoprune.trial import shared as shared_module
from autoprune.trial.cache import FolderStore, StudyCache
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState


def batches(images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The last batch is smaller: means over images are not means over batches."""
    generator = torch.Generator().manual_seed(3)
    for count in (300, images - 300):
        yield torch.randn(count, 3, 9, 9, generator=generator), torch.randint(5, (count,), generator=generator)


def case() -> Context:
    net = randomised(Residual())
    return Context(net, trace(net, image()), batches, cross_entropy, predict, seed=0)


def loss_without(net: nn.Module, writers: tuple[str, ...], units: Tensor) -> float:
    """Mean over 512 images with these filters, and their biases, at zero."""
    silenced = copy.deepcopy(net)
    with torch.no_grad():
        for name in writers:
            layer = silenced.get_submodule(name)
            for parameter in layer.parameters():
                parameter[units] = 0
        images, labels = (torch.cat(parts) for parts in zip(*batches(512), strict=True))
        return F.cross_entropy(silenced(images), labels).item()


def test_a_rise_is_that_of_the_loss_without_the_weaker_half() -> None:
    context = case()
    net = context.model
    before = copy.deepcopy(net.state_dict())
    stream, inner = ("stem.0", "a2", "b2"), ("b1.0",)
    norms = {w: sum(net.get_submodule(n).weight.detach().flatten(1).abs().sum(1) for n in w) for w in (stream, inner)}
    weaker = {writers: norm.argsort()[: len(norm) // 2] for writers, norm in norms.items()}
    rises = sensitivity.loss_rises(context)
    dense = loss_without(net, (), torch.arange(0))

    assert [len(units) for units in weaker.values()] == [3, 5]
    assert set(rises) == {"stem.0", "a1.0", "b1.0"}
    assert rises["stem.0"] == pytest.approx(loss_without(net, stream, weaker[stream]) - dense, abs=1e-5)
    assert rises["b1.0"] == pytest.approx(loss_without(net, inner, weaker[inner]) - dense, abs=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


# ---- in trials -------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A stem, a branch that adds to it, and one more layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(1, 37, 3), nn.Conv2d(37, 61, 1), nn.Conv2d(61, 37, 1)
        self.last, self.head = nn.Conv2d(37, 53, 3), nn.Linear(53, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.down(self.up(x).relu())).relu()
        return self.head(self.last(x).relu().mean((2, 3)))


def net() -> Net:
    """The same weights for every task."""
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def shared(data_folder: Path) -> SharedState:
    assert data_folder.is_dir()
    model = {"factory": f"{__name__}:net", "train": {"images": 6400, "lr": 0.1, "batch_size": 64}}
    return SharedState.of(
        load_task({"kind": "classification", "data": {"name": "digits"}, "model": model}), Runtime(threads=1)
    )


def recipe(name: str, allocation: Allocation, **params: object) -> Recipe:
    return Recipe(
        method=MethodChoice(name=name, params=params),
        target=Target(flops=0.5),
        allocation=allocation,
        training=Training(images=256, batch_size=64, rungs=(1.0,)),
    )


HOW = Allocation(name="features", depth=0.3, flops=-0.4, stream=-0.5, sensitivity=-0.6)


def test_sensitivity_is_measured_once_and_only_if_it_counts(
    shared: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ChannelGraph] = []

    def counted(context: Context) -> dict[str, float]:
        seen.append(context.graph)
        return sensitivity.loss_rises(context)

    monkeypatch.setattr(shared_module, "loss_rises", counted)
    fresh = replace(shared, cache=StudyCache())
    run(recipe("l1", replace(HOW, sensitivity=0.0)), fresh)
    run(recipe("l1", Allocation(name="uniform", sensitivity=1.0)), fresh)
    assert seen == []

    one, two = (run(recipe("l1", replace(HOW, sensitivity=by)), fresh).outcome for by in (-1.0, 1.0))
    assert seen == [shared.graph]
    assert (one.error, two.error) == (None, None)
    assert one.widths != two.widths
    groups = fresh.whole_groups
    fresh.allocation(HOW, groups, groups.graph)
    assert seen == [shared.graph, groups.graph]


def test_other_processes_find_the_sensitivity_in_the_store(
    shared: SharedState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (replace(shared, cache=StudyCache(FolderStore(tmp_path))) for _ in range(2))
    found = one.allocation(HOW, shared.offsets, shared.graph)
    monkeypatch.setattr(shared_module, "loss_rises", lambda _: pytest.fail("measured again"))
    assert two.allocation(HOW, shared.offsets, shared.graph) == found


class Looking(METHODS["bn_scale"]):  # type: ignore[name-defined,misc]
    """Notes the allocations that it is shown."""

    name = "looking"
    stage_aims = True
    seen: list[Allocation] = []  # noqa: RUF012 - what all of them saw

    def sparsify(self, context: Context, stage: Stage) -> Regulariser | None:
        self.seen.append(stage.allocation)
        return None

    def score(self, context: Context) -> dict[str, object]:
        return METHODS["l1"]().score(context)  # type: ignore[return-value]

    def select(self, context: Context, scores: dict[str, object], target: Target, allocation: Allocation) -> Selection:
        self.seen.append(allocation)
        return super().select(context, scores, target, allocation)  # type: ignore[no-any-return]


def test_a_method_is_shown_ratios(shared: SharedState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "looking", Looking)
    outcome = run(recipe("looking", HOW, share=0.5), shared).outcome
    rises = sensitivity.loss_rises(shared.context(shared.model, 0))

    assert outcome.error is None
    assert [allocation.name for allocation in Looking.seen] == ["ratios", "ratios"]
    assert Looking.seen[0].ratios == pytest.approx(feature_weights(shared.graph, strategy_of(HOW), rises))
    assert Looking.seen[1] == Looking.seen[0]
    assert outcome.recipe.allocation == HOW


@pytest.mark.parametrize(
    ("name", "params"),
    [("l1", {}), ("fuzzy", {"rounds": 3}), ("svd", {"channels": "prune"}), ("svd", {}), ("hinge", {}), ("greg1", {})],
)
def test_methods_with_several_cuts_and_those_that_decompose_meet_the_target(
    shared: SharedState, name: str, params: dict[str, object]
) -> None:
    shared.check_reachable(Target(flops=0.5), HOW)
    outcome = run(recipe(name, HOW, **params), shared).outcome

    assert outcome.error is None
    assert outcome.flops_ratio == pytest.approx(0.5, abs=TOLERANCE)


def test_in_whole_groups_too(shared: SharedState) -> None:
    outcome = run(recipe("l1", replace(HOW, grouped="either")), shared).outcome

    assert outcome.error is None
    assert outcome.flops_ratio == pytest.approx(0.5, abs=TOLERANCE)
