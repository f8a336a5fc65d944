"""A trial from recipe to outcome, on real digits with a small network trained for a moment."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.errors import TargetError
from autoprune.methods.bn_scale import ScaleRegulariser
from autoprune.methods.taylor import Taylor
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.outcome import Outcome, Rung
from autoprune.tasks import Task, load_task
from autoprune.timing.pairs import Timing
from autoprune.training.runtime import Runtime
from autoprune.trial.cache import FolderStore
from autoprune.trial.run import Trial, run
from autoprune.trial.shared import SharedState

TASK = {
    "kind": "classification",
    "data": {"name": "digits"},
    "model": {"name": "digits_net", "train": {"images": 12_000, "lr": 0.1, "batch_size": 64}},
}


@pytest.fixture(scope="module")
def task(data_folder: Path) -> Task:
    assert data_folder.is_dir()
    return load_task(TASK)


@pytest.fixture(scope="module")
def shared(task: Task) -> SharedState:
    return SharedState.of(task, Runtime(threads=2))


def recipe(name: str = "l1", flops: float | None = 0.5, **training: object) -> Recipe:
    return Recipe(
        method=MethodChoice(name=name),
        target=Target(flops=flops),
        training=Training(**{"images": 2560, "lr": 0.05, "batch_size": 64, **training}),  # type: ignore[arg-type]
    )


def test_a_completed_trial_has_accuracy_cost_widths_and_the_seconds_of_every_stage(shared: SharedState) -> None:
    done = run(recipe(), shared, id=7, control=True)
    outcome = done.outcome

    assert (outcome.id, outcome.control, outcome.status, outcome.error) == (7, True, "completed", None)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.9
    assert outcome.flops_ratio == pytest.approx(0.5, abs=TOLERANCE)
    assert [0, 2560] == [rung.images for rung in outcome.rungs]
    assert outcome.rungs[-1].accuracy == outcome.accuracy
    assert {"prepare", "sparsify", "score", "cut", "recalibrate", "finetune", "evaluate"} == set(outcome.seconds)
    assert done.keep is not None
    assert done.keep.widths(shared.graph) == outcome.widths
    assert outcome == Outcome.from_json(outcome.to_json())


def test_the_model_handed_back_scores_what_the_outcome_says(shared: SharedState) -> None:
    done = run(recipe(), shared)
    assert done.model is not None
    right = 0
    with torch.inference_mode():
        for inputs, labels in shared.task.validation.batches(torch.arange(len(shared.task.validation)), 100):
            right += (done.model(inputs).argmax(1) == labels).sum().item()

    assert right / len(shared.task.validation) == done.outcome.accuracy


class GroupedNet(nn.Module):
    """Four groups of three filters each: by offset three units of four filters, by group four units of three."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(1, 12, 3), nn.Conv2d(12, 12, 3, groups=4)
        self.wide, self.head = nn.Conv2d(12, 101, 1), nn.Linear(101, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wide(self.grouped(self.stem(x).relu()).relu()).relu().mean((2, 3)))


def grouped_net() -> GroupedNet:
    """One whole group whose weights are near zero: cutting it costs least."""
    torch.manual_seed(0)
    net = GroupedNet()
    with torch.no_grad():
        for layer in (net.stem, net.grouped):
            layer.weight[3:6] *= 1e-3
    return net


@pytest.mark.parametrize(("grouped", "sizes"), [("offsets", {3}), ("groups", {4}), ("either", {4})])
def test_groups_lose_offsets_or_go_whole_whichever_keeps_more(data_folder: Path, grouped: str, sizes: set[int]) -> None:
    assert data_folder.is_dir()
    shared = SharedState.of(
        load_task({**TASK, "model": {"factory": f"{__name__}:grouped_net", "train": {"images": 0}}}), Runtime(threads=1)
    )
    done = run(replace(recipe(flops=0.7, images=64), allocation=Allocation(grouped=grouped)), shared)

    assert done.outcome.error is None
    assert done.graph is not None
    assert sizes == {group.size for group in done.graph.prunable} - {101}
    assert done.outcome.widths == done.keep.widths(done.graph)
    assert done.outcome.flops_ratio == cost(done.graph, done.keep).ratios(shared.dense_cost)["flops"]


def test_the_same_recipe_gives_the_same_outcome(task: Task) -> None:
    one, two = (run(recipe("taylor"), SharedState.of(task, Runtime(threads=1))).outcome for _ in range(2))

    assert one.accuracy == two.accuracy
    assert one.widths == two.widths


def test_trials_do_not_change_what_they_share(shared: SharedState) -> None:
    before = {name: tensor.clone() for name, tensor in shared.model.state_dict().items()}
    for name in ("bn_scale", "taylor", "dense"):
        assert run(recipe(name, images=640), shared).outcome.completed

    assert all(torch.equal(before[name], tensor) for name, tensor in shared.model.state_dict().items())


def test_the_dense_control_trains_the_whole_model(shared: SharedState) -> None:
    outcome = run(recipe("dense", flops=None), shared).outcome

    assert outcome.completed
    assert outcome.flops_ratio == 1.0
    assert outcome.params_ratio == 1.0


def test_the_sparsify_stage_is_paid_from_the_same_images(shared: SharedState) -> None:
    method = MethodChoice(name="bn_scale", params={"share": 0.5})
    outcome = run(Recipe(method=method, target=Target(flops=0.5), training=recipe().training), shared).outcome

    assert outcome.rungs[-1].images == 2560
    assert outcome.seconds["sparsify"] > 0


def test_a_report_that_says_no_stops_the_trial_and_hears_the_cost(shared: SharedState) -> None:
    heard: list[tuple[Rung, dict[str, float]]] = []

    def report(rung: Rung, ratios: dict[str, float]) -> bool:
        heard.append((rung, ratios))
        return False

    done = run(recipe(), shared, report)

    assert done.outcome.status == "stopped"
    assert done.outcome.accuracy is None
    assert done.model is None
    assert [0] == [rung.images for rung, _ in heard]
    assert heard[0][1]["flops"] == pytest.approx(0.5, abs=TOLERANCE)


def test_a_report_that_says_no_at_the_very_end_changes_nothing(shared: SharedState) -> None:
    done = run(recipe(rungs=(1.0,)), shared, lambda rung, ratios: False)

    assert done.outcome.completed
    assert done.model is not None


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (recipe(lr=100.0, weight_decay=1.0), "loss"),
        (recipe("nosuch"), "unknown method 'nosuch'"),
        (recipe(flops=0.0001), "cannot be reached"),
        (Recipe(method=MethodChoice(name="l1", params={"p": 3})), "unknown hyper-parameter of 'l1' 'p'"),
        (
            Recipe(
                method=MethodChoice(name="l1"),
                target=Target(flops=0.5),
                allocation=Allocation(name="ratios", ratios={"x": 1.0}),
            ),
            "'x' matches no prunable group",
        ),
    ],
    ids=["diverged", "method", "target", "parameter", "ratios"],
)
def test_a_recipe_that_fails_is_an_outcome_with_its_error(shared: SharedState, broken: Recipe, error: str) -> None:
    done = run(broken, shared)

    assert done.outcome.status == "failed"
    assert error in (done.outcome.error or "")
    assert "\n" not in (done.outcome.error or "")
    assert done.model is None
    assert done.outcome == Trial(Outcome.from_json(done.outcome.to_json())).outcome


class OutOfMemory(methods.METHODS["l1"]):  # type: ignore[name-defined,misc]
    """Fails as a GPU that is too small does."""

    name = "hungry"

    def score(self, context: methods.Context) -> methods.Scores:  # type: ignore[name-defined]
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_running_out_of_memory_is_an_outcome_too(shared: SharedState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "hungry", OutOfMemory)
    outcome = run(recipe("hungry"), shared).outcome

    assert outcome.status == "failed"
    assert "OutOfMemoryError: CUDA out of memory" in (outcome.error or "")


def test_an_interrupted_trial_goes_on_where_it_was(task: Task, tmp_path: Path) -> None:
    whole = run(recipe(images=1920), SharedState.of(task, Runtime(threads=1))).outcome

    class Stop(BaseException):
        pass

    def interrupt(rung: Rung, ratios: dict[str, float]) -> bool:
        if rung.images:
            raise Stop
        return True

    halves = recipe(images=1920, rungs=(0.0, 0.5))
    with pytest.raises(Stop):
        run(halves, SharedState.of(task, Runtime(threads=1)), interrupt, scratch=tmp_path)
    assert list(tmp_path.iterdir())
    resumed = run(halves, SharedState.of(task, Runtime(threads=1)), scratch=tmp_path).outcome

    assert resumed.accuracy == whole.accuracy


@pytest.mark.parametrize("name", ["l1", "bn_scale", "svd", "fuzzy"])
def test_a_trial_that_is_stopped_at_every_rung_ends_as_one_that_is_not(task: Task, tmp_path: Path, name: str) -> None:
    wanted = recipe(name, images=1920, rungs=(0.0, 0.3, 0.7))
    shared = SharedState.of(task, Runtime(threads=1))
    whole = run(wanted, shared)
    legs = []
    while not legs or legs[-1].outcome.status == "stopped":
        moment = 7.0 + len(legs)
        legs.append(run(wanted, shared, lambda rung, ratios: False, scratch=tmp_path, clock=lambda at=moment: at))  # type: ignore[misc]
    *stopped, last = legs

    assert whole.outcome.completed
    assert last.outcome.accuracy == whole.outcome.accuracy
    assert len(stopped) == len(whole.outcome.rungs) - 1
    assert {leg.outcome.started for leg in legs} == {7.0}
    for one, two in zip(last.outcome.rungs, whole.outcome.rungs, strict=True):
        assert (one.share, one.images, one.accuracy) == (two.share, two.images, two.accuracy)
    for what in ("keep", "graph"):
        assert _said(getattr(last, what)) == _said(getattr(whole, what))
    assert (last.outcome.widths, last.outcome.notes) == (whole.outcome.widths, whole.outcome.notes)
    assert last.outcome.flops_ratio == whole.outcome.flops_ratio
    assert set(last.outcome.seconds) == set(whole.outcome.seconds)
    assert last.model is not None
    assert whole.model is not None
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(last.model.state_dict()[key], tensor), key


def _said(value: object) -> object:
    """A graph by what can be compared of it."""
    return [(g.id, g.size, g.stage) for g in value.groups] if isinstance(value, ChannelGraph) else value


def test_rungs_are_shares_of_all_images_and_those_before_the_cut_are_skipped(shared: SharedState) -> None:
    method = MethodChoice(name="bn_scale", params={"share": 0.5})
    training = recipe(rungs=(0.0, 0.25, 0.75)).training
    outcome = run(Recipe(method=method, target=Target(flops=0.5), training=training), shared).outcome

    assert [(rung.share, rung.images) for rung in outcome.rungs] == [(0, 1280), (0.75, 1920), (1, 2560)]
    assert [rung.comparable for rung in outcome.rungs] == [False, True, True]


def test_a_method_that_starts_layers_anew_is_not_judged_at_the_cut(shared: SharedState) -> None:
    method = MethodChoice(name="epruner", params={"inherit_bn": "no"})
    outcome = run(Recipe(method=method, target=Target(flops=0.5), training=recipe().training), shared).outcome

    assert [rung.share for rung in outcome.rungs] == [1]


def test_a_stage_that_aims_at_nothing_is_trained_once_for_all_targets(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sparse(flops: float) -> Recipe:
        method = MethodChoice(name="bn_scale", params={"share": 0.5, "penalty": 1e-3})
        return replace(recipe("bn_scale", flops), method=method)

    steps = 0
    before = ScaleRegulariser.before_step

    def count(self: ScaleRegulariser, *args: Any) -> None:
        nonlocal steps
        steps += 1
        before(self, *args)

    monkeypatch.setattr(ScaleRegulariser, "before_step", count)
    alone = run(sparse(0.3), SharedState.of(task, Runtime(threads=1))).outcome
    assert steps == 20
    store = FolderStore(tmp_path / "shared")
    run(sparse(0.5), SharedState.of(task, Runtime(threads=1), store))
    assert steps == 40
    shared = run(sparse(0.3), SharedState.of(task, Runtime(threads=1), store), scratch=tmp_path).outcome

    assert steps == 40
    assert (shared.accuracy, shared.widths) == (alone.accuracy, alone.widths)


def test_scores_are_shared_with_other_processes(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, method = FolderStore(tmp_path), methods.build(MethodChoice(name="taylor"))
    one, two = (SharedState.of(task, Runtime(threads=1), store) for _ in range(2))
    found = one.scores(method, one.context(one.model, 7))
    monkeypatch.setattr(type(method), "score", lambda *_: pytest.fail("computed twice"))
    again = two.scores(method, two.context(two.model, 7))

    assert list(again) == list(found)
    assert all((again[group] == np.asarray(found[group])).all() for group in found)


def test_an_unreachable_target_is_refused_before_any_training(shared: SharedState) -> None:
    with pytest.raises(TargetError, match=r"flops: 0.001 cannot be reached.*frozen: .*reaches the model's output"):
        shared.check_reachable(Target(flops=0.001))


def test_scores_of_the_dense_model_are_computed_once(shared: SharedState) -> None:
    method = methods.build(MethodChoice(name="taylor"))

    three, four = (shared.context(shared.model, seed) for seed in (3, 4))

    assert shared.scores(method, three) is shared.scores(method, three)
    assert shared.scores(method, three) is not shared.scores(method, four)


def test_criteria_that_methods_build_on_are_computed_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, calls, score = SharedState.of(task, Runtime(threads=1)), [], Taylor.score
    monkeypatch.setattr(Taylor, "score", lambda self, context: calls.append(self) or score(self, context))
    context = shared.context(shared.model, 7)
    for params in ({"l1": 0.3}, {"l1": 0.7}):
        shared.scores(methods.build(MethodChoice(name="blend", params=params)), context)
    shared.scores(methods.build(MethodChoice(name="fuzzy", params={"base": "taylor"})), context)
    shared.scores(Taylor(), context)

    assert len(calls) == 1


def test_of_another_model_they_are_computed_for_it(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, seen, score = SharedState.of(task, Runtime(threads=1)), [], Taylor.score
    monkeypatch.setattr(Taylor, "score", lambda self, context: seen.append(context.model) or score(self, context))
    other = task.build(seed=3)
    blend = methods.build(MethodChoice(name="blend"))
    for model in (shared.model, other, other):
        shared.scores(blend, shared.context(model, 7))

    assert [model is other for model in seen] == [False, True, True]


# --- latency and constraints ------------------------------------------------------------------------------------------


@pytest.fixture
def half_as_long(shared: SharedState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pruned model takes 3 ms, half the time of the dense one."""
    timing = Timing(ms=3.0, ratio=0.5, low=0.47, high=0.54)
    monkeypatch.setattr(shared.timer, "time", lambda _model, latency: replace(timing, ms=3.0 * latency.batch))


def test_latency_is_reported_where_it_is_asked_for(shared: SharedState, half_as_long: None) -> None:
    ratios: list[dict[str, float]] = []

    def report(_rung: Rung, known: dict[str, float]) -> bool:
        ratios.append(known)
        return False

    outcome = run(recipe(images=64), shared, report, latency=Latency(batch=7)).outcome

    assert (outcome.latency_ms, outcome.latency_ratio) == (21.0, 0.5)
    assert (outcome.latency_low, outcome.latency_high, ratios[0]["latency"]) == (0.47, 0.54, 0.5)
    assert "latency" in outcome.seconds
    assert outcome == Outcome.from_json(outcome.to_json())


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"latency_ms": 2.5}, "constraint: latency_ms 3 > 2.5"),
        ({"latency": 0.4}, "constraint: latency 0.5 > 0.4"),
        ({"latency": 0.4, "latency_ms": 1.0}, "constraint: latency_ms 3 > 1"),  # three times as much; 0.5 is 25 % over
        ({"params": 0.3}, r"constraint: params 0\.\d+ > 0.3"),
        ({"activations": 0.1}, r"constraint: activations 0\.\d+ > 0.1"),
    ],
)
def test_a_broken_constraint_ends_a_trial_right_after_its_cut(
    shared: SharedState, half_as_long: None, limits: dict[str, float], error: str
) -> None:
    done = run(recipe(), shared, latency=Latency(), constraints=Constraints(**limits))
    outcome = done.outcome

    assert outcome.status == "stopped"
    assert re.fullmatch(error, outcome.error or "")
    assert outcome.infeasible
    assert outcome.accuracy is None
    assert outcome.rungs == ()
    assert outcome.flops_ratio == pytest.approx(0.5, abs=TOLERANCE)
    assert outcome.latency_ms == 3.0
    assert outcome.widths
    assert {"recalibrate", "finetune", "evaluate"}.isdisjoint(outcome.seconds)
    assert done.model is None
    assert outcome == Outcome.from_json(outcome.to_json())


def test_a_target_beyond_a_constraint_ends_a_trial_before_its_stage(shared: SharedState) -> None:
    outcome = run(recipe("bn_scale", flops=0.62), shared, constraints=Constraints(flops=0.6)).outcome

    assert (outcome.status, outcome.error) == ("stopped", "constraint: flops 0.62 > 0.6")
    assert set(outcome.seconds) == {"prepare"}
    assert outcome.flops_ratio is None


def test_constraints_that_are_kept_change_nothing(shared: SharedState, half_as_long: None) -> None:
    kept = Constraints(flops=0.55, params=1.0, activations=1.0, latency=0.5, latency_ms=3.0)
    outcome = run(recipe(images=64), shared, latency=Latency(), constraints=kept).outcome

    assert (outcome.status, outcome.error) == ("completed", None)


def test_the_dense_model_may_break_them_all(shared: SharedState, half_as_long: None) -> None:
    limits = Constraints(flops=0.1, params=0.1, latency_ms=1.0)
    outcome = run(recipe("dense", flops=None, images=64), shared, latency=Latency(), constraints=limits).outcome

    assert (outcome.status, outcome.latency_ms) == ("completed", 3.0)


def test_a_trial_that_goes_on_elsewhere_is_not_timed_again(
    shared: SharedState, half_as_long: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(recipe(images=64), shared, lambda _rung, _ratios: False, latency=Latency(), scratch=tmp_path)
    monkeypatch.setattr(shared.timer, "time", lambda *_: pytest.fail("timed again"))
    outcome = run(recipe(images=64), shared, latency=Latency(), scratch=tmp_path).outcome

    assert (outcome.status, outcome.latency_ms, outcome.latency_ratio) == ("completed", 3.0, 0.5)
    assert (outcome.latency_low, outcome.latency_high) == (0.47, 0.54)
