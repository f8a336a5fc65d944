"""Segment queue: an actor from which workers that stay take one trial segment after the other.

The driver keeps some segments in it, drawn before anybody asks for them, so that no worker waits for the sampler.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

#: The driver hears of nothing for so long at most; then it looks at the clock, and at who has gone.
EXCHANGE_SECONDS = 0.1

#: Calls that may run at once: every worker that waits has one, and nodes may join. Ray sets no limit of its own.
MOST_CALLS = 100_000


@dataclass(frozen=True, kw_only=True)
class Event:
    """A worker has taken a segment, or ended the one it had.

    Fields:
        worker: its name.
        number: of the trial that it took a segment of, else None.
        result: of the segment that it ended, as `TrialWorker.step` gives it, else None.
    """

    worker: str
    number: int | None = None
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class QueueNews:
    """What has happened since the driver's last call, oldest first, and what is left.

    Fields:
        waiting: segments in the queue.
        idle: workers that wait for one.
    """

    events: tuple[Event, ...]
    waiting: int
    idle: int


class SegmentQueue:
    """Holds segments until workers take them, and what these gave until the driver hears it."""

    def __init__(self) -> None:
        self._segments: deque[Mapping[str, Any]] = deque()
        self._events: list[Event] = []
        self._idle: set[str] = set()
        self._gone: set[str] = set()
        self._over = False
        self._changed, self._news = asyncio.Condition(), asyncio.Event()

    async def next(self, worker: str, result: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """The next segment for a worker, which waits for it; None = there will be no more.

        Args:
            result: of the segment that the worker had before.
        """
        if result is not None:
            await self.tell(worker, result)
        await self._wait_for_segment(worker)
        if worker in self._gone or not self._segments:
            return None
        segment = self._segments.popleft()
        self._note(Event(worker=worker, number=segment["number"]))
        return segment

    async def tell(self, worker: str, result: Mapping[str, Any]) -> None:
        """Take in what a segment gave, from a worker that takes no other one."""
        self._note(Event(worker=worker, result=result))

    async def exchange(
        self, offered: Sequence[Mapping[str, Any]], gone: Sequence[str], *, over: bool = False
    ) -> QueueNews:
        """Put segments into the queue, and wait a moment for news.

        Args:
            offered: as workers are sent them, each with the `number` of its trial.
            gone: workers whose process has died; what they waited for nobody gets.
            over: nothing more will come.
        """
        self._segments.extend(offered)
        self._gone.update(gone)
        self._over = self._over or over
        if offered or gone or over:
            async with self._changed:
                self._changed.notify_all()
        if not self._events and not over:
            await self._wait_for_news()
        events, self._events = tuple(self._events), []
        self._news.clear()
        return QueueNews(events=events, waiting=len(self._segments), idle=len(self._idle - self._gone))

    async def withdraw(self) -> list[int]:
        """Take the segments out that nobody has taken yet; the numbers of their trials."""
        numbers = [segment["number"] for segment in self._segments]
        self._segments.clear()
        return numbers

    async def _wait_for_segment(self, worker: str) -> None:
        self._idle.add(worker)
        self._news.set()
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._segments or self._over or worker in self._gone)
        finally:
            self._idle.discard(worker)

    def _note(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    async def _wait_for_news(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), EXCHANGE_SECONDS)
        except TimeoutError:
            return


def start_segment_queue() -> Any:
    """Start the queue on the node of this process; a handle to it, which workers can be sent."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": MOST_CALLS, "scheduling_strategy": here}
    return ray.remote(SegmentQueue).options(**options).remote()
