"""The model card says what is known of a model, and nothing else."""

from __future__ import annotations

import pytest
from export_info import info

from autoprune.export.model_card import int8_loss, model_card


def test_the_card_names_the_users_own_factory() -> None:
    model = {"factory": "nets:build", "arguments": {"depth": 5}}
    record = {**info(task={"model": model}), "input": [3, 9, 9], "relative_error": {}, "files": {}, "versions": {}}

    card = model_card(record)
    assert "from nets import build  # where Python finds the module: here, or PYTHONPATH\n" in card
    assert 'model = ap.load(".", model=lambda: build(depth=5))' in card


def test_a_card_without_a_study_is_short_and_sound() -> None:
    card = model_card({"input": [3, 9, 9], "relative_error": {}, "files": {}, "versions": {"torch": "2"}})

    assert "None" not in card.replace("session.run(None, ", "")
    assert "Recipe" not in card


def test_the_card_of_a_finalist_names_both_splits_and_the_seeds() -> None:
    record = {**info(), "input": [3, 9, 9], "relative_error": {}, "files": {}, "versions": {}}
    own = {"method": "l1", "flops_ratio": 0.47, "seeds": 3, "validation": 0.93, "validation_std": 0.0141}
    dense = {"method": "dense", "flops_ratio": 1.0, "seeds": 1, "validation": 0.95, "validation_std": None}
    rows = [{**own, "test": 0.905, "test_std": 0.0071}, {**dense, "test": 0.94, "test_std": None}]
    card = model_card({**record, "outcome": {**record["outcome"], "test_accuracy": 0.8983}, "finalists": rows})

    assert "| accuracy (test) |  | 89.83 % |" in card
    assert "| l1 at 47.0% of the FLOPs | 3 | 93.00 % ± 1.41 % | 90.50 % ± 0.71 % |" in card
    assert "| dense at 100.0% of the FLOPs | 1 | 95.00 % | 94.00 % |" in card
    assert "The accuracy on the test split was read once" in card
    assert "Score the model on images that took no part" not in card
    assert "Score the model on images that took no part" in model_card(record)
    assert "(test)" not in model_card(record)


def test_the_card_says_how_long_a_pass_takes_and_where() -> None:
    record = {"input": [3, 9, 9], "relative_error": {}, "files": {}, "versions": {"torch": "2"}}
    recipe = {"method": {"name": "l1"}}
    outcome = {"recipe": recipe, "latency_ms": 3.0, "latency_ratio": 0.25}
    card = model_card({**record, "outcome": outcome, "timed": {"how": "eager, float32, batch 7, cuda"}})

    assert "| ms of a forward pass, eager, float32, batch 7, cuda | 12.00 | 3.00 (25.0%) |" in card
    assert "no faster than the dense model" not in card
    assert "forward pass" not in model_card({**record, "outcome": {"recipe": recipe}})


@pytest.mark.parametrize(
    ("costs", "warns"),
    [
        ({"latency_ratio": 1.08, "flops_ratio": 0.5}, True),
        ({"latency_ratio": 0.97, "latency_high": 1.02, "flops_ratio": 0.5}, True),
        ({"latency_ratio": 0.97, "latency_high": 0.99, "flops_ratio": 0.5}, False),
        ({"latency_ratio": 1.0, "flops_ratio": 1.0}, False),
        ({"flops_ratio": 0.5}, False),
    ],
)
def test_the_card_warns_where_flops_fell_and_time_did_not(costs: dict[str, float], warns: bool) -> None:
    dense = {"flops": 1000, "params": 10, "activations": 10}
    outcome = {"recipe": {"method": {"name": "l1"}}, "latency_ms": 3.0, "accuracy": 0.5, **costs}
    record = {"input": [3, 9, 9], "relative_error": {}, "files": {}, "versions": {"torch": "2"}, "dense": dense}
    card = model_card({**record, "outcome": outcome, "timed": {"how": "eager, batch 1, cpu"}})

    assert ("**It may be no faster than the dense model:**" in card) == warns


def test_the_card_says_how_the_trial_runs_again() -> None:
    record = {**info(), "input": [3, 9, 9], "relative_error": {}, "files": {}, "versions": {}}
    again = {**record["outcome"], "id": 2, "member": 17}

    assert "```sh\nautoprune replay 'my runs/c10' --trial 41\n```" in model_card({**record, "study": "my runs/c10"})
    assert "replay runs/c10 --trial 17" in model_card({**record, "study": "runs/c10", "outcome": again})
    assert "replay" not in model_card(record)


@pytest.mark.parametrize(("int8", "says"), [(0.93, ""), (0.901, ""), (0.87, "int8 is -4.0 points off the others: ")])
def test_what_eight_bits_cost_is_said_where_it_is_much(int8: float, says: str) -> None:
    files = {"artefact": ["model.safetensors"], "int8": ["model.int8.onnx"]}
    record = {"input": [3, 9, 9], "relative_error": {"artefact": 0.0, "int8": 0.1}, "files": files, "versions": {}}
    record |= {"scores": {"artefact": 0.91, "int8": int8}, "metric": {"unit": "%"}}

    assert int8_loss(record).startswith(says)
    assert bool(int8_loss(record)) == bool(says)
    assert ("int8 is -4.0 points off the others" in model_card(record)) == bool(says)
    assert int8_loss({**record, "scores": {}}) == ""
