"""A sparsify stage in several processes; in a module of its own, which a spawned process can import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nets import Residual, randomised
from regularisers import build, context, stage
from torch import distributed, nn
from torch.nn import functional as F

from autoprune.training.processes import Processes
from autoprune.training.protocols import Regulariser, listening


def stages(rank: int, folder: Path, world: int, names: Sequence[str], steps: int) -> None:
    """One process of `world`: the stage of every method, with the gradients of all and with its own alone.

    What they ended with goes to `folder`/`rank`.json.
    """
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    found = {how: {name: _stage(name, rank, steps, how) for name in names} for how in ("together", "alone")}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


def _stage(name: str, rank: int, steps: int, how: str) -> dict[str, Any]:
    """Loss of the first batch, state of the regulariser and what is kept at the end."""
    net = randomised(Residual(stream=23, inner=31)).train()
    method, begin = build(name), context(net)
    begins = stage(method, steps, lr=0.3)  # so high that norms change places in a few steps
    regulariser = method.sparsify(begin, begins)
    optimizer = torch.optim.SGD(net.parameters(), lr=begins.training.lr, momentum=begins.training.momentum)
    with listening(regulariser, net):
        losses = _train(net, regulariser, optimizer, rank, steps, how)
    if how == "together":
        _send_statistics(net)
    end = replace(begin, model=net.eval(), regulariser=regulariser)
    keep = method.select(end, method.score(end), begins.target, begins.allocation).keep
    return {"loss": losses[0], "state": regulariser.state_dict(), "kept": keep.kept}


def _train(
    net: nn.Module, regulariser: Regulariser, optimizer: torch.optim.Optimizer, rank: int, steps: int, how: str
) -> list[float]:
    """The loss of every step."""
    random = torch.Generator().manual_seed(rank)
    losses = []
    for step in range(steps):
        images, labels = torch.randn(8, 3, 9, 9, generator=random), torch.randint(5, (8,), generator=random)
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        if how == "together":
            Processes.current().average_gradients(net)
        regulariser.before_step(net, step, steps)
        optimizer.step()
        regulariser.after_step(net, step, steps)
        losses.append(loss.item())
    return losses


def _send_statistics(net: nn.Module) -> None:
    """Running statistics of the first process to all: they are of its own images, and scores may look at them."""
    for buffer in net.buffers():
        distributed.broadcast(buffer, 0)
