"""`finish` with a real task, a search that ends with its finalists, and refusals."""

import sys
import threading
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import fakes
import pytest

from autoprune.engine.surgery import artifact
from autoprune.errors import InputError, SearchInterrupted
from autoprune.search import finish, lifecycle, resume, search
from autoprune.search.study_lock import lock
from autoprune.search.tracking import registry
from autoprune.study.finalists import by_member
from autoprune.study.metric import ACCURACY
from autoprune.study.tracker import Tracker, run_name
from autoprune.tasks import load_task

SMALL = [
    "task.model.train={images: 6400, batch_size: 64, lr: 0.1}",
    "space.method={choice: {l1: {}, bn_scale: {share: 0.3, penalty: 1e-4}}}",
    "space.training.images=256",
    "space.target.flops={float: [0.3, 0.8]}",
    "resources={workers: 1}",
    "sampler.startup=3",
]


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def notes(monkeypatch):
    """A tracker of another package, which fails at trial 1."""
    point = EntryPoint(name="notes", value=f"{__name__}:Notes", group=registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or SimpleNamespace(Notes=Notes))


@dataclass(frozen=True, kw_only=True)
class Notes(Tracker):
    """Writes the numbers of trials into a file of the study folder."""

    file: str = "heard"

    def open(self, study):
        return Noting(study.folder.path / self.file)


@dataclass
class Noting:
    file: Path

    def record(self, outcome):
        if run_name(outcome) == "trial-1":
            raise ConnectionError("gone")
        with self.file.open("a") as file:
            file.write(f"{outcome.id if outcome.member is None else 'finalist'} ")

    def close(self):
        with self.file.open("a") as file:
            file.write("end ")


@pytest.mark.slow
@pytest.mark.usefixtures("notes")
def test_trackers_hear_of_trials_and_finalists_and_their_failure_is_none_of_the_search(tmp_path):
    own = "trackers=[{name: notes, file: said}]"
    view = fakes.Notes()
    options = {"overrides": [*SMALL, own], "in_process": True, "view": view}
    study = search("digits_demo", out=tmp_path / "s", trials=4, **options)
    resume(tmp_path / "s", trials=5, in_process=True, view=view)
    finish(tmp_path / "s", seeds=1, images=64, most=1, in_process=True, view=view)

    assert [outcome.id for outcome in study.outcomes] == [0, 1, 2, 3]
    assert (tmp_path / "s" / "said").read_text() == "0 2 3 end 4 end finalist finalist end "
    assert any("had 256 images in the search and gets 64" in text for text in view.said)
    warnings = {warning for progress in view.seen for warning in progress.warnings}
    assert warnings == {"tracker notes: trial-1 is missing, and others may be: ConnectionError: gone"}


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    for options in ({"overrides": ["trackers=[tensorbord]"]}, {"trackers": ["tensorbord"]}):
        with pytest.raises(InputError, match=r"trackers\[0\].name: unknown tracker 'tensorbord' \(did you mean"):
            search("digits_demo", out=tmp_path / "s", in_process=True, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_a_front(tmp_path):
    fakes.run_here(fakes.open_session(tmp_path, fakes.study_config(trials=1)))

    with pytest.raises(InputError, match="the front is empty: nothing to train again"):
        finish(tmp_path, in_process=True)


def test_a_study_that_is_in_use(tmp_path):
    study = fakes.finished_study(tmp_path)
    with lock(study.folder), pytest.raises(InputError, match="a search is running in this folder"):
        finish(study.folder.path, in_process=True)


@pytest.mark.slow
def test_a_search_that_keeps_time_for_its_finalists_ends_with_them(tmp_path):
    """The first seed comes with the search, the second from `finish`; what was there stays."""
    wanted = "finalists={share: 0.5, seeds: 1, images: 640, most: 2}"
    searched = search("digits_demo", out=tmp_path / "s", overrides=[*SMALL, wanted], in_process=True, trials=5)
    study = finish(tmp_path / "s", seeds=2, in_process=True)
    found = by_member(study.finalists, ACCURACY)

    assert searched.finalists == study.finalists[: len(searched.finalists)]
    assert {one.images for one in found} == {640}
    assert {tuple(run.recipe.seed for run in one.runs) for one in found} == {(0, 1)}
    assert found[-1].dense
    assert all(run.flops_ratio == pytest.approx(run.recipe.target.flops, abs=0.01) for run in found[0].runs)
    assert finish(tmp_path / "s", seeds=2, in_process=True) == study
    _loads_with_its_accuracies(study, found[0])


def _loads_with_its_accuracies(study, one):
    """The kept model has both accuracies that were noted, each on its split."""
    from autoprune.training.evaluate import evaluate
    from autoprune.training.runtime import Runtime

    task = load_task(study.config["task"])
    model = artifact.load(study.folder.final_models / str(one.best.id), task.build)
    runtime = Runtime(device="cpu", precision="fp32", channels_last=False, threads=1)

    assert evaluate(model, task.validation, task, runtime) == pytest.approx(one.best.accuracy, abs=0.004)
    assert evaluate(model, task.test, task, runtime) == pytest.approx(one.best.test_accuracy, abs=0.004)
    assert task.test.fingerprint() != task.validation.fingerprint()


def test_ctrl_c_while_the_front_is_timed_keeps_all_and_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    said = []
    view = SimpleNamespace(update=lambda _: None, say=said.append, close=lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "time_front", interrupt)
        with pytest.raises(SearchInterrupted, match=r"all trials are kept; time it with `autoprune resume .*study`"):
            search("digits_demo", out=tmp_path / "study", overrides=SMALL, trials=4, in_process=True, view=view)
    study = resume(tmp_path / "study", in_process=True).study

    assert len(study.outcomes) == 4
    assert set(study.timings) == {member.id for member in study.front}
    assert said[-1] == "the trials have ended; the models of the front are timed"


def test_a_wait_before_the_first_trial_is_said_and_a_short_one_is_not(monkeypatch):
    said, heard = [], threading.Event()
    view = SimpleNamespace(say=lambda text: (said.append(text), heard.set()))
    with lifecycle._said_if_slow(view):
        pass
    monkeypatch.setattr(lifecycle, "SILENT_SECONDS", 0.0)
    with lifecycle._said_if_slow(view):
        assert heard.wait(30)
    with lifecycle._said_if_slow(None):
        pass

    assert said == [lifecycle.LOADING]
