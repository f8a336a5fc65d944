"""The documented address of `register`: a rule for an operation of your own, see `engine/rules`."""

from autoprune.engine.rules import Call, Flow, register

__all__ = ["Call", "Flow", "register"]
