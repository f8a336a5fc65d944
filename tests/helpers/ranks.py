"""A trial in several processes; in a module of its own, which a spawned process can import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed, nn

from autoprune.methods import METHODS
from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.tasks import load_task
from autoprune.training.fit import fit
from autoprune.training.processes import Processes
from autoprune.training.runtime import Runtime
from autoprune.trial import stages
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

TASK = {
    "data": {"name": "digits", "augment": ["crop"]},
    "model": {"name": "digits_net", "train": {"images": 6000, "lr": 0.05}},
}
#: Methods that train before they cut.
STAGED = tuple(name for name, kind in METHODS.items() if kind().stage_shares != (0.0,))


def in_processes(count: int, folder: Path, act: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `act(processes, *arguments)` gives in each of so many processes, in plain data."""
    torch.multiprocessing.spawn(_act, (count, folder, act, arguments), nprocs=count)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _act(rank: int, count: int, folder: Path, act: Callable[..., Any], arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    if count > 1:
        meeting = f"file://{folder / 'meeting'}"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    (folder / f"{rank}.json").write_text(json.dumps(act(Processes.current(), *arguments)))
    if count > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def trials(processes: Processes, names: Sequence[str], images: int, lr: float) -> dict[str, dict[str, Any]]:
    """Method -> what a trial ended with, and what every training in it ended with."""
    shared = SharedState.of(load_task(TASK), Runtime(channels_last=True), processes=processes)
    return {name: trial(shared, recipe(name, images, lr)) for name in names}


def deaf_trials(*arguments: Any) -> dict[str, dict[str, Any]]:
    """The same where every process takes its own gradients for those of all."""
    with mock.patch.object(Processes, "add_up_all"):
        return trials(*arguments)


def recipe(name: str, images: int, lr: float) -> Recipe:
    """Half of the images before the cut; batches are of 47, which are not dealt out evenly."""
    training = Training(images=images, batch_size=47, lr=lr, distill=0.3, ema=0.9, rungs=(0.0, 0.5, 1.0))
    params = {"share": 0.5} if "share" in METHODS[name].__dataclass_fields__ else {}
    choice = MethodChoice(name=name, params=params)
    return Recipe(method=choice, target=Target(flops=0.5), training=training, seed=3)


def trial(shared: SharedState, recipe: Recipe) -> dict[str, Any]:
    """Metrics, kept channels and error of a trial, and a digest and the weights' sum after every training."""
    ends: list[tuple[str, float]] = []
    with mock.patch.object(stages, "fit", partial(_fit_and_note, ends)):
        done = run(recipe, shared)
    return {
        "error": done.outcome.error,
        "rungs": [rung.metric for rung in done.outcome.rungs],
        "kept": done.keep.kept if done.keep else {},
        "ends": [digest for digest, _ in ends],
        "sums": [total for _, total in ends],
    }


def _fit_and_note(ends: list[tuple[str, float]], model: nn.Module, *arguments: Any, **named: Any) -> Any:
    log = fit(model, *arguments, **named)
    regulariser = named.get("regulariser")
    state = regulariser.state_dict() if regulariser is not None else {}
    total = sum(tensor.double().abs().sum().item() for tensor in model.state_dict().values())
    ends.append((digest_of({"model": model.state_dict(), "state": state, "loss": log.loss}), total))
    return log


def digest_of(state: Any) -> str:
    """Of tensors, numbers and text in lists and mappings, to the last bit."""
    digest = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            digest.update(item.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(item, Mapping):
            for name, inner in item.items():
                digest.update(str(name).encode())
                add(inner)
        elif isinstance(item, (list, tuple)):
            for inner in item:
                add(inner)
        else:
            digest.update(repr(item).encode())

    add(state)
    return digest.hexdigest()
