"""Which settings mattered, once cost is taken out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from autoprune.analysis.report.importance import importance
from autoprune.analysis.report.settings import settings_of


def study_of(make_study: Any, build: SimpleNamespace, count: int, of_lr: float) -> Any:
    """Trials whose accuracy follows from FLOPs and, as far as `of_lr` says, from the learning rate."""
    rng = np.random.default_rng(5)
    outcomes = []
    for number in range(count):
        flops, lr = float(rng.uniform(0.2, 0.9)), float(rng.choice([0.01, 0.03, 0.1]))
        accuracy = 0.7 + 0.2 * flops + of_lr * (lr == 0.03) + float(rng.normal(0, 0.01))
        recipe = build.recipe("l1", round(flops, 4), lr=lr, momentum=float(rng.choice([0.8, 0.9])))
        outcomes.append(build.completed(number, flops, accuracy, recipe=recipe))
    return make_study(outcomes)


def test_what_matters_at_equal_cost_comes_first(make_study: Any, build: SimpleNamespace) -> None:
    study = study_of(make_study, build, 150, 0.03)
    found = importance(study, [settings_of(one.recipe) for one in study.outcomes])

    assert found[0].name == "lr"
    assert (found[0].best, found[0].trials) == ("0.03", 150)
    assert found[0].share > 0.4
    assert {one.name: one.share for one in found}["momentum"] < 0.02


def test_cost_alone_is_no_importance(make_study: Any, build: SimpleNamespace) -> None:
    """Accuracy follows from FLOPs alone here, and FLOPs are what is taken out."""
    study = study_of(make_study, build, 150, 0.0)
    found = importance(study, [settings_of(one.recipe) for one in study.outcomes])

    assert max(one.share for one in found) < 0.05
    assert not any(one.name.startswith("target.") for one in found)


def test_too_few_trials_say_nothing(make_study: Any, build: SimpleNamespace) -> None:
    study = study_of(make_study, build, 19, 0.03)

    assert importance(study, [settings_of(one.recipe) for one in study.outcomes]) == []
