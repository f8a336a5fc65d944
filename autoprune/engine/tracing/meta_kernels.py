"""What an operation returns on meta tensors, in microseconds where torch's own shape function is slow.

torch derives the shapes of many operations in Python, through its decompositions: 0.5 ms for a batch norm, 0.8 ms for
a ReLU6, 0.1 ms for an addition, three quarters of a traced forward pass. For the most frequent ones the shape is said
here. A shortcut answers only plain cases (one floating dtype, shapes that fit each other) and leaves everything else,
wrong shapes and their errors first of all, to torch. The strides are torch's, but for those of dimensions of size 1,
along which nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

Shortcut = Callable[..., Any]

aten = torch.ops.aten


def meta_call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`func(*args, **kwargs)` for meta tensors: the same shapes, strides, dtypes and aliases, the same errors."""
    shortcut = None if kwargs else SHORTCUTS.get(func)
    out = None if shortcut is None else shortcut(*args)
    return func(*args, **kwargs) if out is None else out


def _is_floating(tensor: object) -> TypeGuard[Tensor]:
    return isinstance(tensor, Tensor) and tensor.is_meta and tensor.is_floating_point()


def _is_plain(tensor: object) -> bool:
    return _is_floating(tensor) and tensor.is_contiguous()


def _new_like(x: Tensor) -> Tensor:
    """What an operation entry by entry returns: laid out as its input is, without gaps."""
    return _new_meta(x, x.shape) if x.is_contiguous() else torch.empty_like(x)


def _new_meta(like: Tensor, shape: Sequence[int] | int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)  # `new_empty` takes 4 us on meta tensors, this 1


def _unary_meta(x: Tensor, *numbers: object) -> Tensor | None:
    return _new_like(x) if _is_floating(x) and not any(type(number) is complex for number in numbers) else None


def _clamp_meta(x: Tensor, *limits: object) -> Tensor | None:
    return _unary_meta(x, *limits) if any(limit is not None for limit in limits) else None


def _unary_in_place_meta(x: Tensor, *_numbers: object) -> Tensor | None:
    return x if _is_plain(x) else None


def _binary_meta(x: Tensor, y: object, *_numbers: object) -> Tensor | None:
    if not isinstance(y, Tensor):
        return _unary_meta(x, y)
    if not (_is_floating(x) and _is_floating(y)) or x.dtype != y.dtype:
        return None
    if _spreads_over(y, x) and (x.is_contiguous() or 0 not in x.stride()):  # else `y` has its say in the layout
        return _new_like(x)
    if not (_is_plain(x) and _is_plain(y)) or x.dim() != y.dim():
        return None
    pairs = list(zip(x.shape, y.shape, strict=True))
    return _new_meta(x, [max(pair) for pair in pairs]) if all(a == b or 1 in (a, b) for a, b in pairs) else None


def _spreads_over(y: Tensor, x: Tensor) -> bool:
    """Whether broadcasting the two gives the shape of `x`."""
    own = x.shape[max(0, x.dim() - y.dim()) :]
    return y.dim() == len(own) and all(b in (1, a) for a, b in zip(own, y.shape, strict=True))


def _masked_fill_meta(x: Tensor, mask: Tensor, _number: object) -> Tensor | None:
    fits = _is_plain(x) and mask.is_meta and mask.dtype == torch.bool and _spreads_over(mask, x)
    return _new_meta(x, x.shape) if fits else None


def _binary_in_place_meta(x: Tensor, y: object, *_numbers: object) -> Tensor | None:
    if type(y) is int and x.is_meta:  # what batch norms count in train mode
        return x
    fits = (
        _is_plain(y) and x.dtype == y.dtype and x.shape == y.shape if isinstance(y, Tensor) else type(y) is not complex
    )
    return x if fits and _is_plain(x) else None


def _batch_norm_meta(x: Tensor, *rest: Any) -> tuple[Tensor, ...] | None:
    *vectors, _training, _, _ = rest
    channels = x.shape[1:2]
    if not _is_plain(x) or any(v is not None and v.shape != channels for v in vectors):
        return None
    return _new_meta(x, x.shape), _new_meta(x, channels), _new_meta(x, channels)


def _layer_norm_meta(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, _eps: float
) -> tuple[Tensor, ...] | None:
    rest = x.dim() - len(shape)
    own = x.shape[rest:]
    if (
        not _is_floating(x)
        or tuple(own) != tuple(shape)
        or any(v is not None and v.shape != own for v in (weight, bias))
    ):
        return None
    statistics = [*x.shape[:rest], *(1 for _ in shape)]
    return _new_meta(x, x.shape), _new_meta(x, statistics), _new_meta(x, statistics)


def _convolution_meta(x: Tensor, weight: Tensor, bias: Tensor | None, *numbers: Any) -> Tensor | None:
    strides, paddings, dilations, transposed, _, groups = numbers
    spatial = x.dim() - 2
    plain = not transposed and _is_plain(x) and weight.dtype == x.dtype and weight.dim() == x.dim() >= 3
    if not plain or not all(len(numbers) == spatial for numbers in (strides, paddings, dilations)):
        return None
    filters, inputs, *kernel = weight.shape
    sizes = [
        (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for size, taps, stride, padding, dilation in zip(x.shape[2:], kernel, strides, paddings, dilations, strict=True)
    ]
    fits = inputs * groups == x.shape[1] and filters % groups == 0 and (bias is None or bias.shape == (filters,))
    return _new_meta(x, [x.shape[0], filters, *sizes]) if fits and min(sizes) > 0 else None


def _addmm_meta(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    shape = (x.shape[0], weight.shape[1])
    fits = x.shape[1] == weight.shape[0] and bias.shape == shape[1:] and bias.dtype == x.dtype == weight.dtype
    return _new_meta(x, shape) if fits and _is_plain(x) else None


def _cat_meta(parts: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = parts[0]
    shape = list(first.shape)
    if not shape or not all(
        _is_plain(part) and part.dtype == first.dtype and part.dim() == len(shape) for part in parts
    ):
        return None
    dim %= len(shape)
    around = [(*part.shape[:dim], *part.shape[dim + 1 :]) for part in parts]
    shape[dim] = sum(part.shape[dim] for part in parts)
    return _new_meta(first, shape) if all(other == around[0] for other in around) else None


def _mean_meta(x: Tensor, dims: Sequence[int] | None, keep: bool = False) -> Tensor | None:
    return _reduced(x, dims, keep) if _is_plain(x) else None


def _vector_norm_meta(
    x: Tensor, _order: float = 2, dims: Sequence[int] | None = None, keep: bool = False
) -> Tensor | None:
    return _reduced(x, dims, keep) if _is_floating(x) and x.numel() else None


def _reduced(x: Tensor, dims: Sequence[int] | None, keep: bool) -> Tensor | None:
    if not dims or not all(-x.dim() <= dim < x.dim() for dim in dims):
        return None
    gone = {dim % x.dim() for dim in dims}
    return _new_meta(x, [1 if d in gone else n for d, n in enumerate(x.shape) if keep or d not in gone])


def _softmax_meta(x: Tensor, dim: int, other_dtype: object = None) -> Tensor | None:
    fits = _is_floating(x) and not other_dtype and -x.dim() <= dim < x.dim()
    return _new_meta(x, x.shape) if fits else None


def _roll_meta(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor | None:
    fits = _is_floating(x) and len(shifts) == len(dims) > 0 and all(-x.dim() <= dim < x.dim() for dim in dims)
    return _new_meta(x, x.shape) if fits else None


def _bmm_meta(x: Tensor, y: Tensor) -> Tensor | None:
    fits = x.dim() == y.dim() == 3 and x.shape[0] == y.shape[0] and x.shape[2] == y.shape[1] and x.dtype == y.dtype
    return _new_meta(x, [*x.shape[:2], y.shape[2]]) if fits and _is_floating(x) and _is_floating(y) else None


def _grid_sampler_meta(x: Tensor, grid: Tensor, *_numbers: object) -> Tensor | None:
    """65 ms by torch's decomposition; RAFT calls it 48 times a pass."""
    fits = x.dim() == grid.dim() == 4 and x.shape[0] == grid.shape[0] and grid.shape[3] == 2 and x.numel()
    plain = _is_plain(x) and _is_plain(grid) and x.dtype == grid.dtype
    return _new_meta(x, [*x.shape[:2], *grid.shape[1:3]]) if fits and plain else None


def _resized_meta(x: Tensor, size: Sequence[int], *_numbers: object) -> Tensor | None:
    fits = x.dim() == 4 and len(size) == 2 and min(*size, *x.shape) > 0
    return _new_meta(x, [*x.shape[:2], *size]) if fits and _is_plain(x) else None


SHORTCUTS: dict[Any, Shortcut] = {
    aten.grid_sampler_2d.default: _grid_sampler_meta,
    **dict.fromkeys([aten.upsample_bilinear2d.default, aten.upsample_nearest2d.default], _resized_meta),
    aten.native_batch_norm.default: _batch_norm_meta,
    aten.native_layer_norm.default: _layer_norm_meta,
    aten.convolution.default: _convolution_meta,
    aten.addmm.default: _addmm_meta,
    aten.cat.default: _cat_meta,
    aten.mean.dim: _mean_meta,
    aten.linalg_vector_norm.default: _vector_norm_meta,
    **dict.fromkeys([aten._softmax.default, aten._safe_softmax.default], _softmax_meta),
    aten.roll.default: _roll_meta,
    aten.clamp.default: _clamp_meta,
    aten.bmm.default: _bmm_meta,
    aten.masked_fill.Scalar: _masked_fill_meta,
    **dict.fromkeys(
        [
            aten.relu.default, aten.hardtanh.default, aten.hardswish.default, aten.hardsigmoid.default,
            aten.silu.default, aten.sigmoid.default, aten.gelu.default, aten.tanh.default, aten.leaky_relu.default,
            aten.elu.default, aten.mish.default, aten.softplus.default, aten.mul.Scalar, aten.exp.default,
            aten.clamp_min.default,
        ],
        _unary_meta,
    ),
    **dict.fromkeys(
        [
            aten.relu_.default, aten.hardtanh_.default, aten.hardswish_.default, aten.hardsigmoid_.default,
            aten.silu_.default, aten.sigmoid_.default, aten.leaky_relu_.default, aten.elu_.default, aten.mish_.default,
        ],
        _unary_in_place_meta,
    ),
    **dict.fromkeys([aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor], _binary_meta),
    **dict.fromkeys([aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor], _binary_in_place_meta),
}  # fmt: skip
