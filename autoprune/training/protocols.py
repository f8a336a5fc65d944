"""What training needs to know of a task, a split and a regulariser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class Labelled(Protocol):
    """A split as training sees it; `tasks.Split` is one."""

    def __len__(self) -> int:
        """Number of images."""

    def to(self, device: str) -> Labelled:
        """The same split, its images on `device` where they fit there."""

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (B, C, H, W) and labels (B,); see `tasks.Split.batches`."""


class Problem(Protocol):
    """A task as training sees it; `tasks.Task` is one."""

    @property
    def train(self) -> Labelled:
        """The images to train on."""

    @property
    def validation(self) -> Labelled:
        """The images on which rungs are measured."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch."""

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number of right answers in a batch."""


class Regulariser(Protocol):
    """What a sparsify stage does during training; methods with such a stage provide one."""

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called after the backward pass, before the optimiser's step."""

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called after the optimiser's step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold: tensors, numbers, text, lists and mappings of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@runtime_checkable
class Listener(Protocol):
    """A regulariser that needs the passes themselves: it hangs hooks on the model, and takes them off."""

    def listening(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Within it the passes of the model are heard; afterwards all hooks are gone, even if training has failed."""


def listening(regulariser: Regulariser | None, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """The context in which a model trains under this regulariser."""
    return regulariser.listening(model) if isinstance(regulariser, Listener) else contextlib.nullcontext()
