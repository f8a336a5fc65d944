"""Studies of any number of trials, written without a search: what the report is tried and timed with.

Accuracy falls with FLOPs as it does in searches; methods differ by a point, `random` by three. One trial in seven is
stopped at a rung, some fail in four ways, some break a constraint, half go on from others, and members of the front are
trained again. Nothing here was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.outcome import BROKEN, Outcome, Proposal, Rung

#: Method -> how far its models lie above those of `l1`, in accuracy.
METHODS = {"l1": 0.0, "taylor": 0.006, "fpgm": -0.002, "bn_scale": 0.002, "hinge": -0.008, "fuzzy": 0.012}

DENSE_COST = {"flops": 81_134_080, "params": 269_722, "activations": 188_426}
DENSE_MS = 7.9
IMAGES = 40_000
VALIDATION = 5000

_WIDTHS = {"conv1": 16} | {f"layer{s}.{b}.conv1": 8 << s for s in (1, 2, 3) for b in range(3)}
_STREAMS = {"layer2.0.conv2": 32, "layer3.0.conv2": 64}
GROUPS = tuple(
    {"id": name, "size": size, "stage": int(name[5]) - 1 if name.startswith("layer") else 0, "frozen": None}
    for name, size in {**_WIDTHS, **_STREAMS}.items()
)
FROZEN = {"id": "fc", "size": 10, "stage": 2, "frozen": "reaches the output of the model (aten.addmm)"}

_ERRORS = (
    "OutOfMemoryError: CUDA out of memory. Tried to allocate {:.2f} GiB",
    "DivergedError: the loss is nan at step {:.0f}",
    "TimeoutError: the trial took longer than {:.0f} minutes",
    "TargetError: no widths within 1 % of flops {:.4f}",
)


def write_study(path: Path, count: int, *, seed: int = 3, finalists: int = 5, **config: Any) -> Study:
    """Write a study of so many trials to a new folder and read it back.

    Args:
        path: of the folder.
        count: trials, the two controls among them; at least 3.
        seed: of all that is drawn.
        finalists: members of the front that were trained again with three seeds, beside the dense control.
        config: replaces top keys of `study.yaml`.
    """
    folder = StudyFolder(path)
    folder.path.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump({**_config(), **config}, sort_keys=False))
    rng = np.random.default_rng(seed)
    outcomes = _outcomes(count, rng)
    proposals = [Proposal(id=one.id, recipe=one.recipe, control=one.control) for one in outcomes]
    folder.proposals.write_text("".join(f"{one.to_json()}\n" for one in proposals))
    folder.outcomes.write_text("".join(f"{one.to_json()}\n" for one in outcomes))
    study = load_study(path)
    again = _finalists([outcomes[0], *study.front[:: max(1, len(study.front) // max(finalists, 1))]], rng)
    if finalists:
        folder.finalists.write_text("".join(f"{one.to_json()}\n" for one in again))
    return load_study(path)


def _config() -> dict[str, Any]:
    splits = {"train": "train", "validation": "test[:5000]", "test": "test[5000:]"}
    return {
        "task": {
            "kind": "classification",
            "data": {"name": "made_up_images", "splits": splits},
            "model": {"name": "made_up_net"},
        },
        "space": {"method": {"choice": sorted(METHODS)}},
        "objectives": ["accuracy", "flops"],
        "constraints": {"latency_ms": 7.5},
        "latency": {"batch": 1},
        "resources": {"gpus_per_trial": 1.0},
        "dense": {"accuracy": 0.9262, **DENSE_COST, "images": VALIDATION},
        "groups": [dict(group) for group in (*GROUPS, FROZEN)],
        "runtime": {"device": "cpu", "precision": "fp32", "threads": 4},
        "versions": {"torch": "2.15.0"},
        "seed": 3,
    }


def _outcomes(count: int, rng: np.random.Generator) -> list[Outcome]:
    """The controls, then trials on eight workers, each free at another time."""
    clock = rng.uniform(5, 9, 8)
    found = [_control(0, "dense", 1.0, 0.929), _control(1, "random", 0.4983, _height(0.4983, -0.03))]
    parents: list[Outcome] = []
    for number in range(2, count):
        worker = int(clock.argmin())
        parent = parents[rng.integers(max(0, len(parents) - 20), len(parents))] if parents and number % 2 else None
        one = _trial(number, rng, parent, float(clock[worker]), worker)
        clock[worker] = one.finished + rng.uniform(0.1, 0.6)
        found.append(one)
        if one.completed and (one.flops_ratio or 0.0) > 0.35 and one.recipe.parent is None:
            parents.append(one)
    return found


def _height(flops: float, above: float) -> float:
    return 0.926 + above * (1 - flops) - 0.07 * (1 - flops) ** 3 - 0.5 * max(0.0, 0.25 - flops) ** 1.5


def _control(number: int, method: str, flops: float, accuracy: float) -> Outcome:
    recipe = Recipe(method=MethodChoice(name=method), target=Target(flops=None if method == "dense" else flops))
    return _completed(number, recipe, flops, accuracy, {"started": 3.0, "worker": "node-0", "control": True})


def _trial(number: int, rng: np.random.Generator, parent: Outcome | None, started: float, worker: int) -> Outcome:
    method = "random" if number % 50 == 0 else str(rng.choice(list(METHODS)))
    flops = float(rng.uniform(0.12, 0.9 if parent is None else (parent.flops_ratio or 1.0)))
    lr = float(10 ** rng.uniform(-2.5, -0.8))
    recipe = _recipe(method, flops, lr, rng, None if parent is None else parent.id)
    above = METHODS.get(method, -0.03) - 0.012 * abs(np.log10(lr) + 1.6) - float(abs(rng.normal(0, 0.012)))
    accuracy = _height(flops, above) + (0.0 if parent is None else 0.004)
    fields = {"started": started, "worker": f"node-{worker % 2}"}
    end = rng.random()
    if end < 0.05 or (method == "hinge" and end < 0.3):
        kind = 0 if end >= 0.05 else int(rng.choice(4, p=(0.55, 0.25, 0.12, 0.08)))
        error = _ERRORS[kind].format(rng.uniform(0.1, 40))
        return Outcome(id=number, recipe=recipe, status="failed", error=error, finished=started + 4.0, **fields)
    done = _completed(number, recipe, flops, round(accuracy * VALIDATION) / VALIDATION, fields, rng)
    if (done.latency_ms or 0.0) > 7.5:
        error = f"{BROKEN}latency_ms {done.latency_ms:.3g} > 7.5"
        return _cut_short(done, 0, error)
    return _cut_short(done, 2, None) if 0.3 < end < 0.45 else done


def _recipe(method: str, flops: float, lr: float, rng: np.random.Generator, parent: int | None) -> Recipe:
    params: Mapping[str, Any] = {"images": 512} if method == "taylor" else {}
    if rng.random() < 0.5:
        allocation = Allocation(name="features", depth=round(float(rng.normal()), 3), stream=round(rng.random(), 3))
    else:
        allocation = Allocation(name="global", normalise=str(rng.choice(["mean", "max"])))
    training = Training(
        images=IMAGES, lr=lr, batch_size=int(rng.choice([64, 128, 256])), rungs=(0.0, 0.1, 0.3, 1.0), ema=0.99
    )
    return Recipe(
        method=MethodChoice(name=method, params=params),
        weights="trained" if parent is None else "front",
        parent=parent,
        target=Target(flops=round(flops, 4)),
        allocation=allocation,
        training=training,
    )


def _completed(
    number: int,
    recipe: Recipe,
    flops: float,
    accuracy: float,
    fields: Mapping[str, Any],
    rng: np.random.Generator | None = None,
) -> Outcome:
    noise = rng or np.random.default_rng(0)
    shares, heights = recipe.training.rungs or (1.0,), (0.55, 0.9, 0.96, 1.0)
    if len(shares) != len(heights):
        shares, heights = (0.0, 1.0), (0.7, 1.0)
    rungs = tuple(
        Rung(
            share=share,
            images=round(share * recipe.training.images),
            metric=accuracy * at * (1 if share == 1 else 1 - abs(float(noise.normal(0, 0.02 * (1 - at) + 0.003)))),
            seconds=4 + 50 * share,
        )
        for share, at in zip(shares, heights, strict=True)
    )
    widths = {
        str(group["id"]): max(1, round(int(group["size"]) * min(1.0, flops**0.5 * noise.uniform(0.8, 1.2))))
        for group in GROUPS
        if flops < 1
    }
    latency = 0.35 + 0.65 * flops + noise.normal(0, 0.02)
    return Outcome(
        id=number,
        recipe=recipe,
        status="completed",
        metric=accuracy,
        flops_ratio=flops,
        params_ratio=flops**1.3,
        activations_ratio=flops**0.6,
        latency_ratio=latency,
        latency_ms=DENSE_MS * latency,
        latency_low=latency - 0.01,
        latency_high=latency + 0.012,
        rungs=rungs,
        widths=widths,
        finished=fields["started"] + 60.0,
        seconds={"prepare": 1.0, "cut": 1.5, "latency": 1.0, "finetune": 48.0, "evaluate": 6.0},
        **fields,
    )


def _cut_short(done: Outcome, rungs: int, error: str | None) -> Outcome:
    kept = done.rungs[:rungs]
    finished = done.started + (kept[-1].seconds if kept else 5.0)
    values = {**vars(done), "status": "stopped", "metric": None, "rungs": kept, "error": error}
    return Outcome(**{**values, "finished": finished, "seconds": {"prepare": 1.0, "cut": 1.5, "finetune": 5.0}})


def _finalists(members: Sequence[Outcome], rng: np.random.Generator) -> list[Outcome]:
    """Three seeds of each, half a point better than the search was; tests lie half a point below that."""
    runs = []
    for member in members:
        for turn in range(3):
            metric = float((member.metric or 0.0) + 0.004 + rng.normal(0, 0.002))
            training = Training(images=5 * IMAGES, rungs=(1.0,))
            recipe = Recipe(
                **{**vars(member.recipe), "training": training, "seed": turn, "parent": None, "weights": "trained"}
            )
            values = {**vars(member), "id": len(runs), "recipe": recipe, "metric": metric, "member": member.id}
            runs.append(Outcome(**{**values, "test_metric": metric - 0.005}))
    return runs
