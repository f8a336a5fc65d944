"""Searches of tasks that were given in Python: what the folder says of them, and who has to give them again."""

import pytest
from commands import Capture, fails
from user_tasks import SPEC, Drawn, Net, evaluate, loss, test_data, train_loader, val_loader

import autoprune as ap
from autoprune.errors import InputError, StudyError

SPACE = {
    "space": {
        "method": {"choice": {"l1": {}, "taylor": {"images": 32}}},
        "target": {"flops": {"float": [0.3, 0.8]}},
        "training": {"images": 80, "batch_size": 8, "lr": 0.01},
    },
    "controls": False,
    "resources": {"workers": 1, "cpus_per_trial": 1},
}


def given(**changes):
    parts = {"model": Net, "train": train_loader(), "validation": val_loader(), "loss": loss, "metric": evaluate}
    return ap.Task(**{**parts, **changes})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "study"
    return ap.search(SPACE, out=out, trials=2, in_process=True, task=given())


def test_the_folder_says_that_the_task_was_given_in_python(study):
    assert "python" == study.config["task"]["kind"]
    assert given().spec == study.config["task"]
    assert ["completed"] * 2 == [outcome.status for outcome in study.outcomes]


def test_the_same_search_from_a_mapping_gives_the_same_numbers(study, tmp_path):
    again = ap.search({**SPACE, "task": SPEC}, out=tmp_path / "study", trials=2, in_process=True)

    assert [outcome.recipe for outcome in study.outcomes] == [outcome.recipe for outcome in again.outcomes]
    assert [outcome.widths for outcome in study.outcomes] == [outcome.widths for outcome in again.outcomes]


def test_whoever_goes_on_gives_the_task_again(study, capsys: Capture):
    folder = study.folder.path
    message = r"task: the task of this study was given in Python; allowed: the same task as an argument"

    for act in (ap.resume, ap.finish):
        with pytest.raises(InputError, match=message):
            act(folder, in_process=True, **({"trials": 3} if act is ap.resume else {}))
    with pytest.raises(InputError, match=message):
        ap.replay(folder, 0)
    assert "given in Python" in fails(capsys, "replay", str(folder), "--trial", "0")
    assert study.outcomes[1].widths == ap.replay(folder, 1, task=given()).widths
    assert 3 == len(ap.resume(folder, trials=3, in_process=True, task=given()).outcomes)


def test_another_task_is_refused(study):
    with pytest.raises(InputError, match="the study was begun with another task"):
        ap.resume(study.folder.path, trials=4, in_process=True, task=given(loss="CrossEntropyLoss"))


def test_finalists_need_a_test_split(study):
    with pytest.raises(InputError, match="the task has no test split"):
        ap.finish(study.folder.path, in_process=True, seeds=1, images=40, most=1, task=given())
    done = ap.finish(study.folder.path, in_process=True, seeds=1, images=40, most=1, task=given(test=test_data))

    assert all(0 <= outcome.test_accuracy <= 1 for outcome in done.finalists)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": lambda model, loader: float("nan")}, "it is nan; allowed: a finite number"),
        ({"metric": lambda model, loader: 7.0}, "7"),
        ({"metric": lambda model, loader: 1 / 0}, "failed: ZeroDivisionError"),
        ({"validation": Drawn(broken=22)}, r"item 22 of the validation data \(/photos/22.png\): OSError"),
    ],
)
def test_what_only_all_images_show_is_known_before_the_first_trial(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        ap.search(SPACE, out=tmp_path / "study", trials=2, in_process=True, task=given(**changes))

    assert "\n" not in str(caught.value)
    assert [] == list(tmp_path.iterdir())


def test_a_training_image_that_raises_is_the_outcome_of_a_trial(tmp_path):
    with pytest.raises(StudyError, match=r"none of 1 trials completed.*item 17 of the train data.*17.png"):
        ap.search(SPACE, out=tmp_path / "study", trials=1, in_process=True, task=given(train=Drawn(broken=17)))
    (failed,) = ap.load_study(tmp_path / "study").outcomes

    assert "failed" == failed.status
    assert "item 17 of the train data (/photos/17.png): OSError: image file is truncated" == failed.error


@pytest.mark.parametrize(
    ("training", "message"),
    [({"accumulate": 9}, "9 passes for a batch of 8"), ({"distill": 0.5}, "no distance to a teacher for loss")],
)
def test_what_the_task_cannot_do_is_known_before_the_first_trial(tmp_path, training, message):
    space = {**SPACE, "space": {**SPACE["space"], "training": {**SPACE["space"]["training"], **training}}}
    with pytest.raises(InputError, match=message):
        ap.search(space, out=tmp_path / "study", trials=2, in_process=True, task=given())


def test_a_method_that_hears_a_whole_step_is_not_searched_with_steps_in_parts(tmp_path):
    own = {**SPACE["space"], "method": {"name": "group_fisher"}}
    space = {**SPACE, "space": {**own, "training": {**own["training"], "accumulate": 2}}}
    with pytest.raises(InputError, match=r"accumulate: group_fisher hears a step's batch in one pass"):
        ap.search(space, out=tmp_path / "study", trials=2, in_process=True, task=given())


def test_a_wrong_task_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="the loss is a tensor"):
        ap.search(
            SPACE, out=tmp_path / "study", trials=2, in_process=True, task=given(loss=lambda outputs, targets: outputs)
        )

    assert [] == list(tmp_path.iterdir())
