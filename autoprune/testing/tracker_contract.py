"""What every tracker owes, as a class of tests: a package that brings one subclasses it in a test of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.study.folder import StudyFolder
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome, Rung
from autoprune.study.tracker import TrackedStudy, Tracker
from autoprune.study.tradeoff import Tradeoff

RECIPE = Recipe(
    method=MethodChoice(name="bn_scale", params={"penalty": 1e-4}),
    target=Target(flops=0.47),
    training=Training(images=1100, rungs=(0.0, 0.5, 1.0)),
    seed=7,
)
RUNGS = tuple(
    Rung(share=share, images=images, metric=value, seconds=share)
    for share, images, value in ((0.0, 0, 3.5), (0.5, 550, 2.25), (1.0, 1100, 1.75))
)
COMPLETED = Outcome(
    id=3,
    recipe=RECIPE,
    status="completed",
    metric=1.75,
    flops_ratio=0.46875,
    params_ratio=0.53125,
    latency_ms=2.5,
    rungs=RUNGS,
    started=11.0,
    finished=17.0,
    worker="node3:4711:gpu0",
)
STOPPED = replace(COMPLETED, id=5, status="stopped", metric=None, rungs=RUNGS[:2], latency_ms=None)
FAILED = Outcome(id=7, recipe=RECIPE, status="failed", error="ValueError: a bad\nshape", started=13.0, finished=13.5)
FINALIST = replace(
    COMPLETED, id=0, member=3, rungs=(*RUNGS[:2], replace(RUNGS[2], metric=1.625)), metric=1.625, test_metric=1.875
)
#: Every kind of outcome that a search has.
OUTCOMES = (COMPLETED, STOPPED, FAILED, FINALIST)
#: What is to be found of each: the last value of every number.
NUMBERS = {
    "trial-3": {"rmse@5": 1.75, "flops_ratio": 0.46875, "params_ratio": 0.53125, "latency_ms": 2.5, "duration": 6.0},
    "trial-5": {"flops_ratio": 0.46875, "params_ratio": 0.53125, "duration": 6.0},
    "trial-7": {"duration": 0.5},
    "finalist-3-seed-7": {"rmse@5": 1.625, "test_rmse@5": 1.875, "flops_ratio": 0.46875, "duration": 6.0},
}
METRIC = MetricSpec(name="rmse@5", direction="minimize", best=0.0, worst=None, scale=2.5)


class TrackerContract(ABC):
    """Tests of a tracker that writes into the study folder, such as one whose package has a backend of files."""

    @abstractmethod
    def tracker(self) -> Tracker:
        """The tracker, with a backend that needs no network."""

    @abstractmethod
    def numbers(self, folder: Path, run: str) -> Mapping[str, float]:
        """What the backend holds of a run in a study folder: the last value of each number, by the names of `NUMBERS`.

        Raises:
            KeyError: it has no such run.
        """

    @abstractmethod
    def rungs(self, folder: Path, run: str) -> Mapping[int, float]:
        """The metric at every rung of a run, by training images."""

    @abstractmethod
    def parameters(self, folder: Path, run: str) -> Mapping[str, object]:
        """The hyper-parameters of a run, as values or as text."""

    @pytest.fixture
    def study(self, tmp_path: Path) -> TrackedStudy:
        """A study that has just begun, in a folder of a name with a space."""
        folder = StudyFolder(tmp_path / "my study")
        folder.path.mkdir()
        return TrackedStudy(folder=folder, tradeoff=Tradeoff(metric=METRIC, costs=("flops",)), known=(), origin=1.7e9)

    @pytest.fixture
    def told(self, study: TrackedStudy) -> Path:
        """The folder of a study whose tracker has heard of every kind of outcome."""
        hear(self.tracker(), study, *OUTCOMES)
        return study.folder.path

    @pytest.mark.parametrize("run", NUMBERS)
    def test_it_holds_what_came_of_every_trial(self, told: Path, run: str) -> None:
        """Metric, costs and duration; what is not known is not made up."""
        found = self.numbers(told, run)

        assert {name: found.get(name) for name in NUMBERS[run]} == pytest.approx(NUMBERS[run])

    @pytest.mark.parametrize(("run", "rungs"), [("trial-3", RUNGS), ("trial-5", RUNGS[:2]), ("trial-7", ())])
    def test_it_holds_the_metric_at_every_rung(self, told: Path, run: str, rungs: tuple[Rung, ...]) -> None:
        """In its own unit, by training images."""
        assert dict(self.rungs(told, run)) == pytest.approx({rung.images: rung.metric for rung in rungs})

    @pytest.mark.parametrize("run", NUMBERS)
    def test_it_holds_the_recipe(self, told: Path, run: str) -> None:
        """Flat, with the names of the logs."""
        found = {name: str(value) for name, value in self.parameters(told, run).items()}

        assert (found["method.name"], found["target.flops"]) == ("bn_scale", "0.47")
        assert float(found["training.images"]) == 1100

    def test_nothing_is_written_outside_the_study_folder(self, told: Path) -> None:
        """Beside the folder nothing appears."""
        assert [path.name for path in told.parent.iterdir()] == [told.name]

    def test_a_search_that_goes_on_adds_to_it(self, told: Path, study: TrackedStudy) -> None:
        """A second driver opens it anew; what the first one told of stays."""
        hear(self.tracker(), replace(study, known=OUTCOMES), replace(COMPLETED, id=11))

        assert self.numbers(told, "trial-11")["flops_ratio"] == pytest.approx(0.46875)
        assert self.numbers(told, "trial-3")["flops_ratio"] == pytest.approx(0.46875)

    def test_a_search_without_outcomes_leaves_none(self, study: TrackedStudy) -> None:
        """Opened and closed, nothing else."""
        hear(self.tracker(), study)

        with pytest.raises(KeyError):
            self.numbers(study.folder.path, "trial-3")


def hear(tracker: Tracker, study: TrackedStudy, *outcomes: Outcome) -> None:
    """Tell a tracker of outcomes in a thread that is not the main one, as a search does."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            opened = tracker.open(study)
            for outcome in outcomes:
                opened.record(outcome)
            opened.close()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
