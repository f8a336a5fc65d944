"""OrthoReg in whole trials: rounds, early birds, and stages that are interrupted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from regularisers import build
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.methods import METHODS, Context, Stage
from autoprune.methods.orthoreg import Orthonormality, OrthoReg
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.tasks import Task, load_task
from autoprune.training.fit import FitLog, fit
from autoprune.training.runtime import Runtime
from autoprune.trial import stages
from autoprune.trial.run import Trial, run
from autoprune.trial.shared import SharedState
from autoprune.trial.start import first_model


@pytest.fixture(scope="module")
def task(data_folder: Path) -> Task:
    assert data_folder.is_dir()
    trained = {"images": 6_000, "lr": 0.1, "batch_size": 64}
    return load_task({"data": {"name": "digits"}, "model": {"name": "digits_net", "train": trained}})


@pytest.fixture(scope="module")
def shared(task: Task) -> SharedState:
    return SharedState.of(task, Runtime(threads=1))


def recipe(name: str = "orthoreg", weights: str = "trained", **params: object) -> Recipe:
    training = Training(images=1920, lr=0.05, batch_size=64, weight_decay=0.003)
    choice = MethodChoice(name=name, params=params)
    return Recipe(method=choice, weights=weights, target=Target(flops=0.5), training=training)


@dataclass
class Witness:
    """What happened inside a trial."""

    stages: list[tuple[Stage, dict[str, Tensor]]] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


def witnessed(monkeypatch: pytest.MonkeyPatch, shared: SharedState, what: Recipe) -> tuple[Trial, Witness]:
    """Run a trial and note its stages with the weights they begin from, the FLOPs after each cut, all images."""
    witness = Witness()

    class Watched(OrthoReg):
        def sparsify(self, context: Context, stage: Stage) -> Orthonormality:
            weights = {name: tensor.clone() for name, tensor in context.model.state_dict().items()}
            witness.stages.append((stage, weights))
            return super().sparsify(context, stage)

        def rebuild(self, context: Context, keep: Keep) -> nn.Module:
            witness.left.append(cost(context.graph, keep).ratios(shared.dense_cost)["flops"])
            return super().rebuild(context, keep)

    def counted(*args: object, **kwargs: object) -> FitLog:
        log = fit(*args, **kwargs)  # type: ignore[arg-type]
        witness.trained.append(log.images)
        return log

    monkeypatch.setitem(METHODS, "orthoreg", Watched)
    monkeypatch.setattr(stages, "fit", counted)
    done = run(what, shared)
    assert done.outcome.error is None
    return done, witness


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_two_cuts_give_the_target(monkeypatch: pytest.MonkeyPatch, shared: SharedState) -> None:
    done, seen = witnessed(monkeypatch, shared, recipe(rounds=2))

    assert seen.left == [pytest.approx(2 / 3, abs=TOLERANCE), pytest.approx(0.5, abs=TOLERANCE)]
    assert done.outcome.flops_ratio == pytest.approx(0.5, abs=TOLERANCE)
    assert seen.trained == [384, 384, 1152]
    assert [(s.round, s.weight_decay, s.training.weight_decay) for s, _ in seen.stages] == [
        (0, 0.003, 0),
        (1, 0.003, 0),
    ]
    assert same(seen.stages[0][1], shared.model.state_dict())


def test_a_trial_tells_how_orthogonal_its_filters_became(shared: SharedState) -> None:
    free, bound = (run(recipe(strength=strength), shared).outcome.notes for strength in (1e-5, 1e-1))

    assert bound["off_orthogonality"] < 0.9 * free["off_orthogonality"]
    assert bound["diagonal_share"] > 1.1 * free["diagonal_share"]


def test_the_faithful_scope_keeps_the_streams_of_digits_net(shared: SharedState) -> None:
    streams = {"features.0": 24, "features.4.conv2": 48}
    faithful, coupled = (run(recipe(scope=scope), shared).outcome.widths for scope in ("faithful", "coupled"))

    assert streams.items() <= faithful.items()
    assert all(coupled[name] < width for name, width in streams.items())


def test_an_early_bird_begins_from_untrained_weights(monkeypatch: pytest.MonkeyPatch, shared: SharedState) -> None:
    trained, fresh = ({k: v.clone() for k, v in m.state_dict().items()} for m in (shared.model, shared.task.build()))
    done, seen = witnessed(monkeypatch, shared, recipe(weights="scratch", share=25 / 165))
    control, of_control = witnessed(monkeypatch, shared, recipe("dense", weights="scratch"))
    begins = [weights for _, weights in seen.stages]

    assert len(begins) == 1
    assert same(begins[0], fresh)
    assert not same(begins[0], trained)
    assert same(shared.model.state_dict(), trained)
    assert done.outcome.flops_ratio == pytest.approx(0.5, abs=TOLERANCE)
    assert control.outcome.flops_ratio == 1
    assert control.outcome.rungs[0].accuracy < 0.5  # ten classes, nothing learnt
    assert sum(seen.trained) == sum(of_control.trained) == 1920
    assert len(seen.trained) == 2


def test_the_batches_to_score_with_are_where_the_model_is(shared: SharedState) -> None:
    moved = shared.task.build().to("meta")
    inputs, labels = next(shared.context(moved, 0).batches(7))

    assert (inputs.device.type, labels.device.type) == ("meta", "meta")
    assert len(inputs) == 7


class Interrupted(Exception):
    pass


def test_an_interrupted_stage_ends_with_the_same_bits(task: Task, tmp_path: Path) -> None:
    training, method = Training(batch_size=64, lr=0.05, rungs=(0.4,), weight_decay=0.0), build("orthoreg", recover=0.5)
    file = tmp_path / "stage.pt"

    def trained(checkpoint: Path | None, stop: bool = False) -> dict[str, Tensor]:
        model = task.model()
        case = Context(
            model,
            trace(model, task.example()),
            lambda images: iter(()),
            lambda model, batch: task.loss(model, batch).value,
            task.predict,
            0,
        )
        begins = Stage(Target(flops=0.5), Allocation(), training, 20, round=1, weight_decay=0.01)
        regulariser = method.sparsify(case, begins)

        def heard(images: int, accuracy: float) -> bool:
            if stop:
                raise Interrupted
            return True

        fit(
            model,
            task,
            training,
            Runtime(threads=1),
            images=1280,
            seed=3,
            regulariser=regulariser,
            on_rung=heard,
            checkpoint=checkpoint,
        )
        return model.state_dict()

    with pytest.raises(Interrupted):
        trained(file, stop=True)  # after 8 steps of 20, of which the first 10 are plain
    assert file.exists()

    assert same(trained(file), trained(None))


def test_plain_training_is_what_the_recipe_says(task: Task) -> None:
    def trained(weight_decay: float, regulariser: Orthonormality | None) -> dict[str, Tensor]:
        model, training = task.build(), Training(batch_size=64, lr=0.05, weight_decay=weight_decay)
        fit(model, task, training, Runtime(threads=1), images=640, seed=3, regulariser=regulariser)
        return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}

    expected, without = trained(0.05, None), trained(0.0, None)
    actual = trained(0.0, Orthonormality(0.1, plain=10, weight_decay=0.05))

    assert all(torch.allclose(actual[name], expected[name], rtol=1e-3, atol=1e-4) for name in expected)
    assert not torch.allclose(without["classifier.weight"], expected["classifier.weight"], rtol=1e-3, atol=1e-4)


def test_weights_from_scratch_are_drawn_with_the_seed_of_the_recipe(shared: SharedState) -> None:
    starts = [
        first_model(Recipe(method=MethodChoice(name="dense"), weights="scratch", seed=seed), shared)
        for seed in (0, 0, 1)
    ]
    first, again, other = (start.state_dict() for start in starts)

    assert same(first, again)
    assert not same(first, other)
