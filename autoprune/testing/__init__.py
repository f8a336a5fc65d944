"""What other packages test their own tasks with; needs pytest."""

from autoprune.testing.task_contract import TaskContract

__all__ = ["TaskContract"]
