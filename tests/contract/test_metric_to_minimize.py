"""A search by RMSE, where smaller is better and no worst is known, from the dense model to the report."""

import json
import math

import pytest
import user_tasks
import yaml
from commands import Capture, fails, works
from reports import text_of
from torch.utils.data import TensorDataset
from user_tasks import Net

import autoprune as ap
from autoprune.errors import InputError, ModelError

SPACE = {
    "space": {
        "method": {"choice": {"l1": {}, "taylor": {"images": 32}}},
        "target": {"flops": {"float": [0.3, 0.8]}},
        "training": {"images": 80, "batch_size": 8, "lr": 0.01, "rungs": [0, 0.5, 1]},
    },
    "cascade": {"keep": 0.7},
    "finalists": {"share": 0.5, "seeds": 1, "images": 80, "most": 1},
    "constraints": {"metric": "<= 70"},
    "resources": {"workers": 1, "cpus_per_trial": 1},
    "sampler": {"warm_start": False},
}
RMSE = {"name": "MeanSquaredError", "squared": False, "called": "rmse", "unit": "mm"}


def split(count, seed):
    """Images with the number of their bright row, in steps of 7 mm."""
    return TensorDataset(user_tasks.images(count, seed), 7.0 * user_tasks.classes(count).float()[:, None])


def heights(metric=RMSE):
    parts = {"train": split(40, 0), "validation": split(30, 1), "test": split(20, 2), "loss": "SmoothL1Loss"}
    return ap.Task(model=lambda: Net(outputs=1), metric=metric, **parts)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("heights") / "study"
    return ap.search(SPACE, out=out, trials=5, in_process=True, task=heights())


def test_the_folder_says_what_the_metric_is_and_the_dense_model_has_half_of_all_height(study):
    plain = yaml.safe_load(study.folder.config.read_text())
    known = {"name": "rmse", "direction": "minimize", "best": 0.0, "worst": None, "unit": "mm"}

    assert plain["metric"] == {**known, "scale": plain["dense"]["rmse"]}
    assert (plain["objectives"], plain["constraints"]["metric"]) == (["rmse", "flops"], 70.0)
    assert study.metric.height(study.dense_metric) == 0.5


def test_logs_and_fronts_go_by_its_name_and_direction(study):
    lines = [json.loads(line) for line in study.folder.outcomes.read_text().splitlines()]
    completed = [outcome for outcome in study.outcomes if outcome.completed and outcome.id]

    assert len(lines) == 5
    assert all("rmse" in line and "accuracy" not in str(line) for line in lines)
    assert study.study.front[-1].metric == min(outcome.metric for outcome in completed)
    assert [run.test_metric for run in study.finalists] == [
        json.loads(line)["test_rmse"] for line in study.folder.finalists.read_text().splitlines()
    ]
    assert {outcome.status for outcome in study.outcomes if not outcome.control} <= {"completed", "stopped"}


def test_what_shows_it_says_so_and_needs_no_task(study, capsys: Capture):
    folder = str(study.folder.path)
    best = min(study.study.front, key=lambda member: member.metric)
    shown = f"{best.metric:.4g} mm"

    assert shown in works(capsys, "status", folder)
    works(capsys, "report", folder)
    assert "Validation rmse (mm, smaller is better)" in text_of(study.folder.report)
    assert study.folder.pareto.read_text().startswith("id,method,rmse,flops_ratio")
    assert "this study is of rmse; allowed: --metric VALUE" in fails(
        capsys, "export", folder, "--min-accuracy", "0.9", "--to", "out"
    )
    assert "no model on the front has rmse <= 0.001; the nearest is trial" in fails(
        capsys, "export", folder, "--metric", "0.001", "--searched", "--to", "out"
    )


def test_it_goes_on_with_the_scale_that_it_began_with(study):
    after = ap.resume(study.folder.path, trials=6, in_process=True, task=heights())

    assert after.metric == study.metric
    assert len(after.outcomes) == 6


@pytest.mark.parametrize(
    ("space", "metric", "kind", "message"),
    [
        ({"metric": {"name": "mae"}}, RMSE, InputError, "metric.name: the task says 'rmse' and the space file 'mae'"),
        ({"objectives": ["accuracy", "flops"]}, RMSE, InputError, "objectives: unknown metric 'accuracy'"),
        ({"constraints": {"metric": ">= 70"}}, RMSE, InputError, "of rmse smaller is better"),
        ({}, {**RMSE, "worst": 0.5}, ModelError, "the rmse of the dense model on the validation split is 1"),
    ],
)
def test_what_does_not_fit_the_task_leaves_no_folder(tmp_path, space, metric, kind, message):
    with pytest.raises(kind, match=message):
        ap.search({**SPACE, **space}, out=tmp_path / "study", trials=2, in_process=True, task=heights(metric))

    assert list(tmp_path.iterdir()) == []


def test_a_dense_model_without_a_number_ends_the_search(tmp_path):
    broken = {"function": lambda model, loader: math.nan, "direction": "minimize", "best": 0, "called": "rmse"}

    with pytest.raises(InputError) as caught:
        ap.search(SPACE, out=tmp_path / "study", trials=2, in_process=True, task=heights(broken))
    assert caught.value.exit_code == 2
    assert "nan" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
