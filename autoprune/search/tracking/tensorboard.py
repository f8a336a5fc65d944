"""TensorBoard: a folder of events per trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome
from autoprune.study.tracker import TrackedStudy, Tracker, attributes, final_numbers, hyper_parameters, run_name


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Tracker):
    """Writes into `tensorboard/` of the study: the metric at every rung by images, and the table of hyper-parameters.

    Fields:
        folder: another folder, such as one that holds several studies; trials lie in a folder of the study's name.
    """

    package: ClassVar[str] = "tensorboard"
    extra: ClassVar[str] = "tensorboard"

    folder: str | None = None

    def open(self, study: TrackedStudy) -> EventFolders:
        """See `Tracker.open`."""
        own = study.folder.path / "tensorboard" if self.folder is None else Path(self.folder) / study.name
        return EventFolders(own, study.tradeoff.metric)


class EventFolders:
    """The folder of a study's events."""

    def __init__(self, folder: Path, metric: MetricSpec) -> None:
        self._folder, self._metric = folder, metric

    def record(self, outcome: Outcome) -> None:
        """See `TrackerRun.record`."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        with SummaryWriter(str(self._folder / run_name(outcome))) as writer:
            for rung in outcome.rungs:
                writer.add_scalar(self._metric.name, rung.metric, rung.images)
            # One folder per trial holds both: `writer.add_hparams` would make a second one inside.
            numbers = {f"final/{name}": value for name, value in final_numbers(outcome, self._metric).items()}
            for summary in hparams(hyper_parameters(outcome), numbers):
                writer.file_writer.add_summary(summary)
            for name, value in numbers.items():
                writer.add_scalar(name, value)
            for name, text in attributes(outcome).items():
                writer.add_text(name, text)

    def close(self) -> None:
        """Every trial's events are written."""
