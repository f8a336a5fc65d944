"""A model that leaves a file for every Ray node on which a worker builds it, in the folder $NODE_MARKS."""

from __future__ import annotations

import os
from pathlib import Path

import ray
from torch import nn

from autoprune.tasks.zoo import digits_net


def build() -> nn.Module:
    """`digits_net`, for ten digits of 8 x 8."""
    if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        Path(os.environ["NODE_MARKS"], ray.get_runtime_context().get_node_id()).touch()
    return digits_net((1, 8, 8), 10)
