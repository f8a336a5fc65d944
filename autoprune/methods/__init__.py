"""Pruning methods: the registry. Adding one = a file, a line here, a line in the contract test."""

from __future__ import annotations

from dataclasses import fields

from autoprune.errors import check_name
from autoprune.methods.base import Context, Method, Note, Scores, Stage
from autoprune.methods.bn_scale import BNScale
from autoprune.methods.dense import Dense
from autoprune.methods.epruner import EPruner
from autoprune.methods.fuzzy import Fuzzy
from autoprune.methods.greg import GReg1, GReg2
from autoprune.methods.group_fisher import GroupFisher
from autoprune.methods.hinge import Hinge
from autoprune.methods.increg import IncReg
from autoprune.methods.l0_hqs import L0HQS
from autoprune.methods.ldrf import LDRF, ChannelPruning
from autoprune.methods.magnitude import FPGM, L1, L2, Random
from autoprune.methods.orthoreg import OrthoReg
from autoprune.methods.soft import ASFP, ASRFP, SFP, SRFP
from autoprune.methods.svd import SVD
from autoprune.methods.taylor import Taylor
from autoprune.reading import read
from autoprune.recipe import MethodChoice

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(Dense, Random, L1, L2, FPGM, BNScale, Taylor),
        *(SVD, Hinge),
        *(EPruner, Fuzzy),
        GroupFisher,
        *(L0HQS, GReg1, GReg2, OrthoReg, IncReg, SFP, ASFP, SRFP, ASRFP),
        *(LDRF, ChannelPruning),
    )
}

__all__ = ["METHODS", "Context", "Method", "Note", "Scores", "Stage", "build", "find", "names"]


def names() -> list[str]:
    """All methods, controls first."""
    return list(METHODS)


def find(name: str, where: str = "method") -> type[Method]:
    """The class of a method.

    Raises:
        InputError: unknown method; names what is allowed.
    """
    return METHODS[check_name(name, METHODS, kind="method", where=where)]


def build(choice: MethodChoice, where: str = "method") -> Method:
    """The method with its hyper-parameters.

    Raises:
        InputError: unknown method, unknown hyper-parameter, or a value out of its range; names what is allowed.
    """
    method = find(choice.name, where)
    for key in choice.params:
        check_name(
            key, [field.name for field in fields(method)], kind=f"hyper-parameter of {choice.name!r}", where=where
        )
    return read(method, dict(choice.params), where)
