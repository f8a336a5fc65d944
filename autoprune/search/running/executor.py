"""Executor: the seam between a search and the place where its trials run, be it this process or Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from autoprune.search.running.evaluator import OpenEvaluator

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher

T = TypeVar("T")


class Executor(ABC):
    """Runs trials in one place, which is open inside the executor's `with` block."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Open the place; one that takes seconds opens in the background, see `wait_until_ready`."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the place."""

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Wait until trials can run.

        Raises:
            InputError: the place does not open, or a trial does not fit into it.
        """

    @abstractmethod
    def run(self, dispatcher: Dispatcher, open_evaluator: OpenEvaluator) -> None:
        """Run trials until the dispatcher hands out no more.

        Args:
            dispatcher: hands out trial segments and takes in their outcomes.
            open_evaluator: is called once in each process that runs trials.
        """

    @abstractmethod
    def call(self, job: Callable[[], T]) -> T:
        """What a job gives where trials run, in one process with what a process of a trial has; while no trial runs.

        Args:
            job: can be pickled, its result as well.

        Raises:
            StudyError: the process has died.
        """

    def once_per_node(self, value: T) -> Callable[[], T]:
        """A small thing that gives the value wherever trials run, and can be sent there; it waits until that is ready.

        Args:
            value: large, and comes to each node once; nobody may write to its arrays.
        """
        return lambda: value
