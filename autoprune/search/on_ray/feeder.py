"""Feeder: keeps the segment queue filled from the dispatcher, and hands outcomes back to it, in a thread of its own.

So the sampler thinks while trials run, and Tune waits for neither.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from autoprune.errors import StudyError
from autoprune.search.on_ray.deaths import Attempts, Death
from autoprune.search.on_ray.segment_queue import Event, QueueNews
from autoprune.search.on_ray.settings import ATTEMPTS, PUT_BACK
from autoprune.search.running.dispatcher import OUT_OF_TIME
from autoprune.search.running.segments import TrialSegment
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher

#: Workers for each of which one segment is drawn ahead; with 64 workers and trials of 5 s, 4 are 0.3 s of work.
WORKERS_A_SEGMENT_AHEAD = 16

#: The sampler may think so long before what it has drawn is offered.
DRAWING_SECONDS = 0.1


class Feeder:
    """The driver's end of a segment queue. Only its own thread calls the dispatcher.

    Args:
        dispatcher: hands out trial segments and takes in their outcomes.
        segments: the queue, an actor.
        workers: how many there are at most, now.
    """

    def __init__(self, dispatcher: Dispatcher, segments: Any, workers: Callable[[], int]) -> None:
        self.dispatcher, self.segments, self.workers = dispatcher, segments, workers
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._offered: dict[int, TrialSegment] = {}  # in the queue or with a worker, by trial
        self._taken: dict[str, int] = {}  # worker -> trial
        self._attempts = Attempts()
        self._deaths_in_a_row = 0  # of workers that had none
        self._lost: queue.SimpleQueue[tuple[str, Death]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="segment_feeder", daemon=True)

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def report_death(self, worker: str, death: Death) -> None:
        """Say that the process of a worker has died; what it had is run by another one."""
        self._lost.put((worker, death))

    def stop(self) -> None:
        """Stop feeding, whatever still runs, and take in what has ended by now.

        Raises:
            Exception: whatever the dispatcher has raised.
        """
        self._stopping.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        if not self.dispatcher.interrupted:
            for segment in [*self._offered.values(), *self.dispatcher.returned]:
                self._end_lost(segment, "stopped", OUT_OF_TIME)

    def _feed(self) -> None:
        try:
            news = QueueNews(events=(), waiting=0, idle=0)
            while not (self._stopping.is_set() or self.ended.is_set()):
                news = self._turn(news)
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self.error = error
        self.ended.set()

    def _turn(self, before: QueueNews) -> QueueNews:
        """Offer what is wanted, and take in what has happened."""
        lost = list(_drained(self._lost))
        offered = [self._as_sent(segment) for segment in self._draw(self._wanted(before))]
        over = not self._offered and self.dispatcher.finished_handing_out()
        call = self.segments.exchange.remote(offered, [worker for worker, _ in lost], over=over)
        news: QueueNews = ray.get(call)
        for event in news.events:
            self._take_in(event)
        for worker, death in lost:
            self._requeue(worker, death)
        self.dispatcher.refresh()
        if self.dispatcher.should_stop_running():
            self._withdraw()
        if over:
            self.ended.set()
        return news

    def _wanted(self, news: QueueNews) -> int:
        """Segments that the queue should get: one for each idle worker, and some ahead."""
        ahead = math.ceil(self.workers() / WORKERS_A_SEGMENT_AHEAD)
        return max(0, news.idle + ahead - news.waiting)

    def _draw(self, wanted: int) -> Iterator[TrialSegment]:
        """Up to so many segments; fewer if the sampler takes its time."""
        end = time.monotonic() + DRAWING_SECONDS
        for _ in range(wanted):
            segment = self.dispatcher.next()
            if segment is None:
                return
            self._offered[segment.proposal.id] = segment
            yield segment
            if time.monotonic() > end:
                return

    def _as_sent(self, segment: TrialSegment) -> dict[str, Any]:
        stop_at = self.dispatcher.budget.limits.stop_at
        return {**segment.to_plain(), "until": stop_at, "number": segment.proposal.id}

    def _take_in(self, event: Event) -> None:
        if event.number is not None:
            self._taken[event.worker], self._deaths_in_a_row = event.number, 0
        if event.result is not None:
            self._end_segment(event.worker, event.result)

    def _end_segment(self, worker: str, result: Mapping[str, Any]) -> None:
        """Hand over the outcome of a segment; one whose worker was taken away has none, and goes on elsewhere."""
        segment = self._offered.pop(self._taken.pop(worker))
        if PUT_BACK in result:
            self.dispatcher.put_back(replace(segment, resumed=segment.resumed or result[PUT_BACK]))
            return
        self._attempts.end(segment.proposal.id)
        self.dispatcher.end_segment(Outcome.from_json(result["outcome"]))

    def _requeue(self, worker: str, death: Death) -> None:
        """Hand out again what a worker had that has died, or end the trial that has cost several workers their life.

        Raises:
            StudyError: no worker lives long enough to take a segment.
        """
        number = self._taken.pop(worker, None)
        if number is None:
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row >= ATTEMPTS * self.workers():
                what = f"{self._deaths_in_a_row} worker processes in a row died before they ran a trial"
                raise StudyError(f"{what}; the last: {death.reason}", where=str(self.dispatcher.folder.path))
            return
        segment = self._offered.pop(number)
        if error := self._attempts.count(number, death):
            self._end_lost(segment, "failed", error)
        else:
            self.dispatcher.put_back(segment)

    def _withdraw(self) -> None:
        """The time is over: what nobody has begun is not begun any more."""
        for number in ray.get(self.segments.withdraw.remote()):
            self._end_lost(self._offered[number], "stopped", OUT_OF_TIME)

    def _end_lost(self, segment: TrialSegment, status: str, error: str) -> None:
        self._offered.pop(segment.proposal.id, None)
        self.dispatcher.end_lost_trial(segment.proposal, status, error)


def _drained(events: queue.SimpleQueue[tuple[str, Death]]) -> Iterator[tuple[str, Death]]:
    """What lies in the queue now."""
    while not events.empty():
        yield events.get()
