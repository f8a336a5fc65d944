"""Operations along some dimensions by place or order: entries there must stay, those along all others follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor

from autoprune.engine.labels.blocks import renumber
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.elementwise import combine
from autoprune.engine.rules.registry import RULES, Rule, register

_FromCall = Callable[[Call], Any]


def _given(place: int, name: str = "dim", default: Any = None) -> _FromCall:
    return lambda call: call.arg(place, name, default)


def _fixed(*dims: int) -> _FromCall:
    return lambda _call: dims


#: Operation -> the dimensions along which it works, as a number, several, or None for all.
_ALONG: dict[str, _FromCall] = {
    **dict.fromkeys(["cummax", "cummin", "_logcumsumexp", "logcumsumexp", "argmax", "argmin", "index_fill"], _given(1)),
    **dict.fromkeys(["_fft_r2c", "_fft_c2r", "_fft_c2c"], _given(1)),
    "kthvalue": _given(2, "dim", -1),
    "rot90": _given(2, "dims", (0, 1)),
    "view_as_complex": _fixed(-1),
    **dict.fromkeys(["tril", "triu"], _fixed(-2, -1)),
    **dict.fromkeys(
        ["linalg_inv_ex", "linalg_cholesky_ex", "linalg_matrix_exp", "linalg_qr", "linalg_lu_factor_ex", "linalg_pinv"],
        _fixed(-2, -1),
    ),
    **dict.fromkeys(["_linalg_svd", "_linalg_eigh", "_linalg_det", "_linalg_slogdet"], _fixed(-2, -1)),
}


def _rule_along(dims_of: _FromCall) -> Rule:
    return lambda flow, call: carry_others(flow, call, listed_dims(dims_of(call), call.args[0]))


def listed_dims(given: int | Sequence[int] | None, tensor: Tensor) -> set[int]:
    """Dimension numbers as arguments give them -> non-negative; nothing given means all."""
    listed = [given] if isinstance(given, int) else given or range(tensor.dim())
    return {d % max(tensor.dim(), 1) for d in listed}


def carry_others(flow: Flow, call: Call, dims: Collection[int]) -> None:
    """Labels along these dimensions must stay, those along all others go on to every output.

    An output with fewer dimensions lacks `dims`; if it lacks others, it has no labels and the channels must stay.
    """
    source, carried = call.args[0], []
    for block in flow.get(source):
        if set(block[0]) & set(dims):
            flow.freeze(block[1], f"{call.name} over the channels")
        else:
            carried.append(block)
    for tensor in call.tensors[1:]:
        flow.freeze_all(flow.get(tensor), f"no rule for the second tensor of {call.name!r}")
    left = [dim for dim in range(source.dim()) if dim not in dims]
    for out in call.outputs:
        if isinstance(out, Tensor) and out.dim() in (source.dim(), len(left)):
            shrunk = out.dim() < source.dim()
            flow.set(out, renumber(carried, {dim: i for i, dim in enumerate(left)}) if shrunk else carried)


RULES.update({name: _rule_along(dims_of) for name, dims_of in _ALONG.items()})


@register("view_as_real")
def view_as_real(flow: Flow, call: Call) -> None:
    """(…) complex -> (…, 2)."""
    flow.set(call.out, flow.get(call.args[0]))


@register("diagonal")
def diagonal(flow: Flow, call: Call) -> None:
    """Two dimensions become one at the end."""
    source = call.args[0]
    pair = {call.arg(place, name, default) % source.dim() for place, name, default in ((2, "dim1", 0), (3, "dim2", 1))}
    along = [labels for dims, labels in flow.get(source) if set(dims) <= pair and len(dims) == 1]
    square = len(along) == 2 and len(along[0]) == len(along[1]) and not call.arg(1, "offset", 0)
    left = [dim for dim in range(source.dim()) if dim not in pair]
    blocks = [block for block in flow.get(source) if not set(block[0]) & pair]
    kept = renumber(blocks, {dim: place for place, dim in enumerate(left)})
    if square:  # what each channel has to do with itself
        flow.tie(along[0], along[1], "diagonal with fixed entries")
        flow.set(call.out, [*kept, ((len(left),), along[0])])
    else:
        carry_others(flow, call, pair)
        flow.set(call.out, kept)


@register("diag_embed")
def diag_embed(flow: Flow, call: Call) -> None:
    """The last dimension becomes the diagonal of two, the others keep their order."""
    source, out = call.args[0], call.out
    pair = {call.arg(place, name, default) % out.dim() for place, name, default in ((2, "dim1", -2), (3, "dim2", -1))}
    last = source.dim() - 1
    carry_others(flow, call, {last})
    places = [dim for dim in range(out.dim()) if dim not in pair]
    flow.set(out, renumber([b for b in flow.get(source) if last not in b[0]], dict(enumerate(places))))


@register("linalg_cross")
def cross_product(flow: Flow, call: Call) -> None:
    """Entry by entry but for one dimension, the three coordinates."""
    for tensor in call.args[:2]:
        dim = call.arg(2, "dim", -1) % tensor.dim()
        flow.freeze_all([block for block in flow.get(tensor) if dim in block[0]], "coordinates of a cross product")
    combine(flow, call.out, call.tensors, "meets a tensor of fixed size at 'cross'")


@register("affine_grid_generator")
def numbers_with_a_meaning(flow: Flow, call: Call) -> None:
    """Every entry has a meaning of its own: the numbers of a transform."""
    flow.freeze_all(flow.get(call.args[0]), f"every entry has a meaning of its own in {call.name!r}")
