"""Times the models of a front where trials run, when none runs any more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from autoprune.engine.surgery import artifact
from autoprune.errors import AutopruneError
from autoprune.files import fill, read_files
from autoprune.search.running.executor import Executor
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.task_evaluator import OpenLoaded, OpenTask
from autoprune.study import pareto
from autoprune.study.config import StudyConfig
from autoprune.study.constraints import Latency
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.front_timings import NOT_KEPT, FrontTiming
from autoprune.study.log import append_line
from autoprune.timing.passes import resolved
from autoprune.trial.shared import SharedState

#: Bytes of models that are sent to a process at once; Ray's store has 128 MiB on a machine of its own.
AT_ONCE = 48 * 2**20


@dataclass(frozen=True, kw_only=True)
class TimeModels:
    """Times models in a process that trials could run in.

    Fields:
        open_evaluator: loads the task there.
        latency: how a pass runs.
        models: number of the trial -> the files of its model.
    """

    open_evaluator: OpenTask | OpenLoaded
    latency: Latency
    models: Mapping[int, Mapping[str, bytes]]

    def __call__(self) -> list[FrontTiming]:
        """One for each model; one that cannot be timed says why."""
        shared = self.open_evaluator(StudyClock.at(0.0), None).shared
        return _on_one_scale([self._time(number, files, shared) for number, files in self.models.items()])

    def _time(self, number: int, files: Mapping[str, bytes], shared: SharedState) -> FrontTiming:
        with tempfile.TemporaryDirectory(prefix="autoprune-timed-") as folder:
            fill(Path(folder), files)
            try:
                chosen = resolved(self.latency, shared.runtime.device)
                found = shared.timer.time(artifact.load(folder, shared.task.build), chosen)
            except AutopruneError as error:
                return FrontTiming(trial=number, error=str(error))
        how = f"{chosen.runtime}, {chosen.dtype}, batch {chosen.batch}, {shared.runtime.device}"
        return FrontTiming(trial=number, how=how, **vars(found))


def _on_one_scale(timings: Sequence[FrontTiming]) -> list[FrontTiming]:
    """The same with milliseconds in proportion to the ratios: the dense model had others beside each of them."""
    dense = [timing.ms / timing.ratio for timing in timings if timing.ratio]
    return [replace(timing, ms=median(dense) * timing.ratio) if timing.ratio else timing for timing in timings]


def time_front(
    executor: Executor, folder: StudyFolder, config: StudyConfig, open_evaluator: OpenTask | OpenLoaded
) -> None:
    """Time the members of the study's front that were not timed at the end of an earlier run, and note it.

    Those too that trials beside them made look no faster than others. Where latency is an objective, their times may
    bring others onto the front, which are timed then as well.
    """
    while members := _not_timed(folder):
        _time_members(executor, folder, config, open_evaluator, members)


def _not_timed(folder: StudyFolder) -> list[int]:
    study = load_study(folder.path)
    members = pareto.front(study.outcomes, study.tradeoff, unsure=True)
    return [member.id for member in members if member.id not in study.timings]


def _time_members(
    executor: Executor,
    folder: StudyFolder,
    config: StudyConfig,
    open_evaluator: OpenTask | OpenLoaded,
    members: Sequence[int],
) -> None:
    for number in members:
        if not (folder.models / str(number)).is_dir():
            append_line(folder.timings, FrontTiming(trial=number, error=NOT_KEPT).to_json())
    for numbers in _batches(folder, members):
        models = {number: read_files(folder.models / str(number)) for number in numbers}
        try:
            timed = executor.call(TimeModels(open_evaluator=open_evaluator, latency=config.latency, models=models))
        except AutopruneError as error:  # what the search has found is safe, and more than its times
            timed = [FrontTiming(trial=number, error=str(error)) for number in numbers]
        for timing in timed:
            append_line(folder.timings, timing.to_json())


def _batches(folder: StudyFolder, numbers: Iterable[int]) -> Iterator[list[int]]:
    """Trials whose models were kept, as many together as may travel at once; a larger one goes alone."""
    batch: list[int] = []
    size = 0
    for number in numbers:
        if not (folder.models / str(number)).is_dir():
            continue
        own = sum(file.stat().st_size for file in (folder.models / str(number)).iterdir())
        if batch and size + own > AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += own
    if batch:
        yield batch
