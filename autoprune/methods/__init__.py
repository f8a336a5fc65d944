"""Pruning methods: the registry. Adding one = a file, a line here, a line in the contract test.

A package of its own adds one by an entry point, in its pyproject.toml:

    [project.entry-points."autoprune.methods"]
    thinnest = "my_package:Thinnest"          # a subclass of autoprune.methods.Method with name = "thinnest"
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from autoprune.errors import InputError, check_name
from autoprune.methods.base.method import Context, Method, Note, Scores, Selection, Stage
from autoprune.methods.blend import Blend
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
from autoprune.recipe import MethodChoice
from autoprune.schema import read

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(Dense, Random, L1, L2, FPGM, BNScale, Taylor),
        *(SVD, Hinge),
        *(EPruner, Fuzzy),
        Blend,
        GroupFisher,
        *(L0HQS, GReg1, GReg2, OrthoReg, IncReg, SFP, ASFP, SRFP, ASRFP),
        *(LDRF, ChannelPruning),
    )
}

__all__ = ["METHODS", "Context", "Method", "Note", "Scores", "Selection", "Stage", "build", "find", "names"]


ENTRY_POINTS = "autoprune.methods"


def names() -> list[str]:
    """All methods, controls first, those of other packages last.

    Raises:
        InputError: an installed package announces a method that is none, or under a name that is taken.
    """
    _add_installed()
    return list(METHODS)


def find(name: str, where: str = "method") -> type[Method]:
    """The class of a method.

    Raises:
        InputError: unknown method; names what is allowed. As for `names`.
    """
    _add_installed()
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


@cache  # once in a process: not at import, since the packages import this module
def _add_installed() -> None:
    for point in entry_points(group=ENTRY_POINTS):
        method = _load_method(point)
        if METHODS.setdefault(point.name, method) is not method:
            where = _describe_entry_point(point)
            raise InputError("there is a method of that name already", where=where, allowed="another name")


def _load_method(point: EntryPoint) -> type[Method]:
    where = _describe_entry_point(point)
    try:
        method = point.load()
    except Exception as error:  # the package's code may raise anything
        raise InputError(f"cannot be loaded: {type(error).__name__}: {error}", where=where) from error
    if not (isinstance(method, type) and issubclass(method, Method) and method.name == point.name):
        allowed = f"a subclass of autoprune.methods.Method with name = {point.name!r}"
        raise InputError(f"{point.value} is no such method", where=where, allowed=allowed)
    return method


def _describe_entry_point(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an unknown package"
    return f"entry point {point.name!r} of {package}"
