"""Dense networks that users hand over as objects: a function that builds one, or a network with its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from autoprune.errors import InputError, ModelError, first_line
from autoprune.tasks.base import Task
from autoprune.tasks.dense_model import Facts
from autoprune.tasks.own_network import as_network


class Network(Protocol):
    """Where a dense network comes from; `Given` and `FromFile` are some."""

    @property
    def where(self) -> str:
        """What errors name."""

    def build(self, seed: int) -> nn.Module:
        """A new network with weights drawn with this seed, in eval mode, on the CPU."""

    def trained(self, task: Task, facts: Facts) -> nn.Module:
        """A new network with its trained weights; see `DenseModel.trained`."""

    def weights_remark(self, model: nn.Module) -> str:
        """See `DenseModel.weights_remark`."""


@dataclass(frozen=True, eq=False)
class Given:
    """A function that returns the dense network with its trained weights, or that network itself.

    A network itself is copied. Where weights are drawn anew, its layers do that by `reset_parameters`.
    """

    source: nn.Module | Callable[[], object]
    where: str = "model"

    def build(self, seed: int) -> nn.Module:
        """See `Network.build`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if isinstance(self.source, nn.Module):
                return _drawn_anew(as_network(copy.deepcopy(self.source), self.where))
            return as_network(self._made(), self.where)

    def trained(self, _task: Task, _facts: Facts) -> nn.Module:
        """See `Network.trained`."""
        return as_network(copy.deepcopy(self.source), self.where) if self._is_given else self.build(0)

    def weights_remark(self, _model: nn.Module) -> str:
        """Nothing: the weights come from the user's own code."""
        return ""

    @property
    def _is_given(self) -> bool:
        return isinstance(self.source, nn.Module)

    def _made(self) -> object:
        assert not isinstance(self.source, nn.Module)
        try:
            return self.source()
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"building it failed: {reason}", where=self.where) from error


def _drawn_anew(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return model


def check_source(source: object, where: str) -> nn.Module | Callable[[], object]:
    """The source of a network if it is one; raises `InputError` otherwise."""
    if isinstance(source, nn.Module) or callable(source):
        return source
    allowed = "a function that returns the dense model, or the model itself"
    raise InputError(f"a {type(source).__name__} is no model", where=where, allowed=allowed)
