"""The mode in which a network that returns its losses in training mode only is asked for them without being trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def asked_for_losses(model: nn.Module) -> Iterator[None]:
    """Within it the modules of a model that hold others are in training mode; layers stay as they are.

    Those that hold others decide what is returned: a detector, its heads, a classifier with auxiliary outputs. Layers,
    such as batch norms and dropout, compute and keep what they do in eval mode.
    """
    holders = [module for module in model.modules() if not module.training and next(module.children(), None)]
    for module in holders:
        module.training = True
    try:
        yield
    finally:
        for module in holders:
            module.training = False
