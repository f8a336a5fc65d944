"""What an export is told of its model."""

from __future__ import annotations

import json
from typing import Any

from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.outcome import Outcome


def info(**changes: Any) -> dict[str, Any]:
    """Trial 41 of a search, in plain data; `changes` replace top keys."""
    recipe = Recipe(method=MethodChoice(name="l1"), target=Target(flops=0.53))
    outcome = Outcome(id=41, recipe=recipe, status="completed", metric=0.9137, flops_ratio=0.5281, widths={"conv1": 12})
    task = {"data": {"splits": {"validation": "train[-500:]"}}, "model": {"name": "net"}}
    dense = {"accuracy": 0.9211, "flops": 1_234_567, "params": 8901}
    groups = [{"id": "conv1", "size": 13}]
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "scale": 255.0}
    plain = {"outcome": json.loads(outcome.to_json()), "task": task, "dense": dense, "groups": groups, "pixels": pixels}
    return {**plain, **changes}
