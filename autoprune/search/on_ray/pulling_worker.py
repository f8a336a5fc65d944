"""A worker that stays: it takes trial segments from a queue, one after the other, until there are no more."""

from __future__ import annotations

import time
from typing import Any

import ray

from autoprune.search.on_ray.settings import NOTICE_SECONDS, PUT_BACK
from autoprune.search.on_ray.worker import TrialWorker


class PullingWorker(TrialWorker):
    """Runs segments as `TrialWorker` does; Tune hears of it when it has ended, and if it dies."""

    def setup(self, config: dict[str, Any], segments: Any, **given: Any) -> None:
        """Open the evaluator; `segments` is the queue."""
        self.name, self.segments = config["worker"], segments
        super().setup(config, **given)

    def wait_for_others(self) -> None:
        """Do not wait: no other worker takes this one's place."""

    def step(self) -> dict[str, Any]:
        """Run what the queue has, and tell it what came out with the question for more."""
        result: dict[str, Any] | None = None
        while (taken := ray.get(self.segments.next.remote(self.name, result))) is not None:
            self.request = taken
            result = super().step()
            if PUT_BACK in result:
                ray.get(self.segments.tell.remote(self.name, result))
                time.sleep(10 * NOTICE_SECONDS)  # this process ends itself before
        return {"done": True}
