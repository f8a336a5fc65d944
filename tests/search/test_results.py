"""A study in Python: tables, the model for a loss or a cost, the model itself, a short name."""

from __future__ import annotations

from pathlib import Path

import pytest
import rmse_study
import torch
from commands import DIGITS_DATA, OUTCOMES, UNTRAINED, write_finished, write_study

import autoprune as ap
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.errors import InputError


def test_tables_have_a_row_per_trial_and_per_member(tmp_path: Path) -> None:
    study = ap.load_study(write_study(tmp_path / "study", OUTCOMES))

    assert study.trials()["id"].tolist() == [3, 5, 7, 9]
    assert study.front()[["id", "method", "accuracy", "flops_ratio"]].to_numpy().tolist() == [
        [3, "l1", 0.71, 0.31],
        [5, "taylor", 0.89, 0.47],
        [7, "l1", 0.95, 0.73],
    ]
    assert "recipe.training.lr" in study.front()


def test_members_that_were_trained_again_have_the_numbers_of_then(tmp_path: Path) -> None:
    study = ap.load_study(write_finished(tmp_path / "study"))
    columns = ["id", "accuracy", "test_accuracy", "trained_again"]

    assert study.front()[columns].fillna(-1).to_numpy().tolist() == [
        [3, 0.71, -1, False],
        [5, 0.94, 0.90, True],
        [7, 0.95, -1, False],
    ]
    assert study.front(searched=True)["accuracy"].tolist() == [0.71, 0.89, 0.95]
    assert len(study.finalists) == 4


def test_tables_of_a_study_without_trials_are_empty(tmp_path: Path) -> None:
    study = ap.load_study(write_study(tmp_path / "study"))

    assert (len(study.trials()), len(study.front())) == (0, 0)
    assert repr(study) == f"<study '{tmp_path}/study': 0 trials, no front>"


@pytest.mark.parametrize(
    ("limits", "trial"),
    [
        ({}, 5),
        ({"max_flops": 0.5}, 5),
        ({"max_params": 0.4}, 3),
        ({"within": 8}, 5),
        ({"metric": 0.9}, 7),
        ({"max_latency": 0.2}, 3),
        ({"within": 26, "max_latency_ms": 5}, 5),
    ],
)
def test_the_best_for_a_loss_or_a_cost(limits: dict[str, float], trial: int, tmp_path: Path) -> None:
    assert ap.load_study(write_study(tmp_path / "study", OUTCOMES)).best(**limits).id == trial


def test_what_cannot_be_the_best(tmp_path: Path) -> None:
    study = ap.load_study(write_study(tmp_path / "study", OUTCOMES))

    with pytest.raises(InputError, match="best: within and metric say the same; allowed: one of them"):
        study.best(within=1, metric=0.9)
    with pytest.raises(InputError, match=r"no model on the front has flops_ratio <= 0\.1; the nearest is trial 3"):
        study.best(max_flops=0.1)


def test_its_name_is_short(tmp_path: Path) -> None:
    study = ap.load_study(write_study(tmp_path / "study", OUTCOMES))
    heights = ap.load_study(rmse_study.write(tmp_path / "heights").path)

    front = "3 on the front, knee: accuracy 89.00 % at 47.0% flops"
    assert repr(study) == f"<study '{tmp_path}/study': 4 trials, {front}>"
    assert "knee: rmse 2.1 cm at 40.0% flops>" in repr(heights)


def test_the_model_of_a_trial(tmp_path: Path) -> None:
    study = ap.load_study(write_study(tmp_path / "study", OUTCOMES))
    task = ap.load_task({"kind": "classification", "data": DIGITS_DATA, "model": UNTRAINED})
    dense = task.model()
    graph = ap.trace(dense, task.example())
    keep = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    pruned = prune(dense, graph, keep).eval()
    artifact.save(study.folder.models / "5", pruned, graph, keep)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7))

    for trial in (5, study.best(max_flops=0.5)):
        assert torch.equal(study.load(trial)(images), pruned(images))
    with pytest.raises(InputError, match="the model of trial 3 was not kept"):
        study.load(3)
    with pytest.raises(InputError, match="there is no ended trial 4"):
        study.load(4)
