"""What other packages test their own tasks and trackers with; needs pytest."""

from autoprune.testing.task_contract import TaskContract
from autoprune.testing.tracker_contract import TrackerContract

__all__ = ["TaskContract", "TrackerContract"]
