"""Studies made of real values through the real writer and reader: what a search leaves behind, without the search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from autoprune.analysis.benchmarks.browser import Browser
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.log import append_line
from autoprune.study.outcome import Outcome, Proposal, Rung

GROUPS = (
    {"id": "conv1", "size": 17, "stage": 0, "frozen": None},
    {"id": "layer1.0.conv1", "size": 19, "stage": 0, "frozen": None},
    {"id": "layer2.0.conv1", "size": 31, "stage": 1, "frozen": None},
    {"id": "layer3.0.conv1", "size": 67, "stage": 2, "frozen": None},
    {"id": "linear", "size": 10, "stage": 2, "frozen": "reaches the output of the model (aten.addmm)"},
)
METHODS = ("l1", "l2", "fpgm", "bn_scale", "taylor")
PARAMS: Mapping[str, Mapping[str, Any]] = {"bn_scale": {"penalty": 1e-4, "share": 0.5}, "taylor": {"images": 512}}

MakeStudy = Callable[..., Study]


@pytest.fixture
def build() -> SimpleNamespace:
    """The functions below that make values: `recipe`, `completed`, `stopped`, `failed`, `many_outcomes`, `widths`."""
    return SimpleNamespace(
        recipe=recipe,
        completed=completed,
        stopped=stopped,
        failed=failed,
        many_outcomes=many_outcomes,
        widths=widths,
    )


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Write a study folder and read it back: `make_study(outcomes, unfinished=(), **entries of study.yaml)`."""

    def make(outcomes: Iterable[Outcome], unfinished: Sequence[Recipe] = (), **config: Any) -> Study:
        folder = StudyFolder(tmp_path / "my study")
        folder.path.mkdir()
        folder.config.write_text(yaml.safe_dump({**study_config(), **config}, sort_keys=False))
        lines = [outcome.to_json() for outcome in outcomes]
        if lines:
            append_line(folder.outcomes, "\n".join(lines))
        for number, recipe in enumerate(unfinished, 100_001):
            append_line(folder.proposals, Proposal(id=number, recipe=recipe).to_json())
        return load_study(folder.path)

    return make


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    """59 trials of every kind, two of them controls, on two workers."""
    return make_study(many_outcomes(59), unfinished=[recipe("l1", 0.37)])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium, one for all tests."""
    running = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield running
    running.close()


def study_config() -> dict[str, Any]:
    return {
        "task": {
            "kind": "classification",
            "data": {
                "name": "cifar10",
                "splits": {"train": "train", "validation": "test[:5000]", "test": "test[5000:]"},
            },
            "model": {"name": "resnet20", "checkpoint": "weights/resnet20.safetensors"},
        },
        "space": {"method": {"choices": list(METHODS)}},
        "dense": {"accuracy": 0.917, "flops": 81_600_000, "params": 269_722, "activations": 188_000, "images": 5000},
        "groups": [dict(group) for group in GROUPS],
        "versions": {"python": "3.11.2", "torch": "2.15.0"},
        "seed": 13,
    }


def recipe(method: str, flops: float, **training: Any) -> Recipe:
    return Recipe(
        method=MethodChoice(name=method, params=PARAMS.get(method, {})),
        target=Target(flops=flops),
        allocation=Allocation(ratios={"stage0": 0.3}),
        training=Training(**{"images": 5_000, "rungs": (0.0, 0.3, 1.0), **training}),
    )


def widths(share: float) -> dict[str, int]:
    return {str(g["id"]): max(1, round(int(str(g["size"])) * share)) for g in GROUPS if g["frozen"] is None}


def completed(number: int, flops: float, accuracy: float, method: str = "l1", **fields: Any) -> Outcome:
    """A trial of 7 seconds on one worker, one after the other."""
    values: dict[str, Any] = {
        "params_ratio": flops * 0.9,
        "activations_ratio": flops * 1.1,
        "widths": {} if method == "dense" else widths(flops**0.5),
        "rungs": (
            Rung(share=0.0, images=0, metric=accuracy * 0.7, seconds=1.0),
            Rung(share=1.0, images=5_000, metric=accuracy, seconds=6.0),
        ),
        "started": 7.0 * number,
        "finished": 7.0 * number + 7.0,
        "seconds": {"prepare": 0.5, "cut": 0.25, "recalibrate": 0.25, "fine-tune": 4.5, "evaluate": 0.5},
        "worker": "worker-0",
    }
    values = {**values, **fields}
    choice = values.pop("recipe", recipe(method, flops))
    return Outcome(id=number, recipe=choice, status="completed", flops_ratio=flops, metric=accuracy, **values)


def failed(number: int, error: str, method: str = "taylor", **fields: Any) -> Outcome:
    values = {"started": 7.0 * number, "finished": 7.0 * number + 3.0, "worker": "worker-0", **fields}
    return Outcome(id=number, recipe=recipe(method, 0.5), status="failed", error=error, **values)


def stopped(number: int, flops: float, accuracy: float, method: str = "l2", **fields: Any) -> Outcome:
    rungs = (
        Rung(share=0.0, images=0, metric=accuracy - 0.1, seconds=1.0),
        Rung(share=0.3, images=1_500, metric=accuracy, seconds=2.0),
    )
    values = {"started": 7.0 * number, "finished": 7.0 * number + 3.0, "worker": "worker-0", "rungs": rungs, **fields}
    choice = recipe(method, flops)
    return Outcome(id=number, recipe=choice, status="stopped", flops_ratio=flops, widths=widths(flops**0.5), **values)


def many_outcomes(count: int, seed: int = 7) -> list[Outcome]:
    """Two controls, then trials of all methods and all ends whose accuracy falls with FLOPs as real ones do."""
    rng = np.random.default_rng(seed)
    clock = [11.0, 13.0]
    outcomes = [_drawn(number, rng, clock) for number in range(3, count + 1)]
    control = {"control": True, "worker": "worker-0"}
    dense = completed(1, 1.0, 0.921, "dense", started=2.0, finished=10.0, **control)
    random = completed(2, 0.503, 0.811, "random", started=2.5, finished=12.0, **{**control, "worker": "worker-1"})
    return [dense, random, *outcomes][:count]


def _drawn(number: int, rng: np.random.Generator, clock: list[float]) -> Outcome:
    worker = number % 2
    started, duration = clock[worker] + rng.uniform(0.05, 0.4), rng.uniform(6.5, 8.0)
    clock[worker] = started + duration
    method = METHODS[rng.integers(len(METHODS))]
    flops = rng.uniform(0.08, 0.95)
    accuracy = 0.925 - 0.12 * (1 - flops) ** 3 - 0.35 * max(0.0, 0.3 - flops) - abs(rng.normal(0, 0.03))
    place = {"started": started, "finished": started + duration, "worker": f"worker-{worker}"}
    end = rng.random()
    if end < 0.06:
        return failed(number, "DivergedError: the loss is nan at step 17", method, **place)
    if end < 0.2:
        return stopped(number, flops, accuracy - 0.1, method, **place)
    training = {"lr": float(rng.uniform(1e-3, 1e-1))}
    return completed(number, flops, float(accuracy), method, recipe=recipe(method, flops, **training), **place)
