"""Recipes in words."""

from __future__ import annotations

import pytest

from autoprune.analysis.report.recipe_words import recipe_sentence
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training

TRAINED = "Trained on 700 images (batches of 32, learning rate 0.05, cosine)."
AND_HALF = " and 50 % of the parameters,"
RANKING = "in one ranking of all layers (scores divided by their mean)."
FEATURES = "by what layers are like (depth +1.2, stream -0.5)."
TRAINING = Training(images=700, batch_size=32, lr=0.05)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            {"method": MethodChoice(name="l1"), "target": Target(flops=0.25, params=0.5)},
            f"From the dense model, channels chosen by l1 are removed down to 25 % of the FLOPs{AND_HALF} {RANKING}",
        ),
        (
            {"method": MethodChoice(name="bn_scale", params={"penalty": 0.001}), "weights": "front", "parent": 17}
            | {"allocation": Allocation(name="features", depth=1.25, stream=-0.5)},
            f"From the model of trial 17, channels chosen by bn_scale (penalty 0.001) are removed, {FEATURES}",
        ),
        (
            {"method": MethodChoice(name="random"), "weights": "scratch", "allocation": Allocation(name="uniform")},
            "From fresh weights, channels drawn at random are removed, the same share of every layer.",
        ),
        (
            {"method": MethodChoice(name="l2"), "allocation": Allocation(name="ratios", ratios={"stage0": 0.5})},
            "From the dense model, channels chosen by l2 are removed, by a share for every part: stage0 0.5.",
        ),
        (
            {"method": MethodChoice(name="l1"), "allocation": Allocation(per="latency")},
            f"From the dense model, channels chosen by l1 are removed, {RANKING[:-2]} and by the time saved).",
        ),
        ({"method": MethodChoice(name="dense")}, "The dense model, not pruned."),
    ],
)
def test_sentences(recipe: dict[str, object], expected: str) -> None:
    assert recipe_sentence(Recipe(training=TRAINING, **recipe)) == f"{expected} {TRAINED}"  # type: ignore[arg-type]


def test_what_training_has_besides_is_said() -> None:
    training = Training(images=7, ema=0.99, label_smoothing=0.1)

    assert "cosine, ema 0.99, label smoothing 0.1)" in recipe_sentence(
        Recipe(method=MethodChoice(name="l1"), training=training)
    )
