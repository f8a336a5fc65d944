"""What a study notes of its model and its runtime holds when it goes on, and when a trial of it is run again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import autoprune as ap
from autoprune.errors import InputError, ModelError
from autoprune.search import prepare, resume, search
from autoprune.search.recorded_trial import run_again
from autoprune.search.study_yaml import stored_runtime
from autoprune.study.folder import Study
from autoprune.tasks import load_task
from autoprune.training.runtime import Runtime, choose_runtime

SMALL = [
    "task.model.train={images: 640, batch_size: 64, lr: 0.1}",
    "space.training.images=256",
    "space.target.flops={float: [0.3, 0.8]}",
    "budget={trials: 2}",
]
STUDY = Path(__file__).parents[1] / "data" / "study"


@pytest.fixture
def study() -> Study:
    return ap.load_study(STUDY).study


def test_a_runtime_that_could_compile_is_read(study: Study) -> None:
    recorded = yaml.safe_load((STUDY / "study.yaml").read_text())["runtime"]
    found = stored_runtime(study)

    assert "compile" in recorded
    assert (found.precision, found.threads, found.graphs) == (recorded["precision"], recorded["threads"], False)


def test_other_keys_that_it_does_not_know_are_refused(study: Study) -> None:
    study.config["runtime"] = {**study.config["runtime"], "precison": "fp32"}

    with pytest.raises(InputError, match="precison"):
        stored_runtime(study)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials, and beside it the data folder with its network."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_DATA", str(folder / "data"))
        search("digits_demo", out=folder / "study", overrides=SMALL, in_process=True)
    return folder


@pytest.fixture
def begun(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The same in folders of its own."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / "data"))
    return ap.load_study(tmp_path / "study").study


def test_a_network_that_was_trained_once_is_found_again_whatever_the_threads(begun: Study, tmp_path: Path) -> None:
    """Its name was made of sums, and these differ with the threads that add: another network was trained, unsaid."""
    for threads in (2, 3):
        with Runtime(threads=threads).limits():
            load_task(begun.config["task"]).model()

    assert len(list((tmp_path / "data" / "trained").iterdir())) == 1


def test_other_weights_are_refused_in_one_line(begun: Study, tmp_path: Path) -> None:
    (trained,) = (tmp_path / "data" / "trained").iterdir()
    trained.unlink()
    edited = begun.folder.config.read_text().replace("lr: 0.1\n", "lr: 0.05\n", 1)
    begun.folder.config.write_text(edited)
    study = ap.load_study(begun.folder.path).study

    with pytest.raises(ModelError, match="other weights than when the study began"):
        resume(begun.folder.path, trials=3, in_process=True)
    with pytest.raises(ModelError, match="other weights than when the study began"):
        run_again(study, study.outcomes[0], load_task(study.config["task"]))


def test_a_study_goes_on_as_it_has_computed(begun: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured anew, another memory format may be a little faster, and the record is no longer true."""
    asked: list[Runtime | None] = []

    def choose(*given: Any, known: Runtime | None = None) -> Runtime:
        asked.append(known)
        return choose_runtime(*given, known=known)

    monkeypatch.setattr(prepare, "choose_runtime", choose)
    resume(begun.folder.path, trials=3, in_process=True)

    assert asked == [stored_runtime(begun)]
