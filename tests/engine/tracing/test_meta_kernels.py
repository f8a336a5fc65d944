"""Shortcuts on meta tensors say what torch says, or leave the answer to torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autoprune.engine.tracing.meta_kernels import SHORTCUTS, meta_call

aten = torch.ops.aten


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def norm(channels: int, *, training: bool = False, running: int | None = None) -> tuple[object, ...]:
    vectors = (empty(channels), empty(channels), empty(running or channels), empty(running or channels))
    return (empty(2, 7, 5, 5), *vectors, training, 0.1, 1e-5)


def convolution(
    x: tuple[int, ...], weight: tuple[int, ...], bias: int | None = None, **options: object
) -> tuple[object, ...]:
    spatial = len(x) - 2
    numbers = [
        options.get(name, (default,) * spatial) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    ]
    rest = (options.get("transposed", False), (0,) * spatial, options.get("groups", 1))
    return (empty(*x), empty(*weight), None if bias is None else empty(bias), *numbers, *rest)


SPECIAL = {
    aten.convolution.default: [
        convolution((2, 7, 9, 13), (11, 7, 3, 5)),
        convolution((2, 7, 9, 13), (11, 7, 3, 5), 11, stride=(2, 3), padding=(1, 2), dilation=(2, 1)),
        convolution((2, 14, 9, 9), (21, 2, 3, 3), groups=7),
        convolution((2, 7, 9), (11, 7, 3), stride=(2,)),
        convolution((1, 7, 5, 6, 7), (11, 7, 3, 3, 3), padding=(1, 0, 1)),
        convolution((2, 1, 9, 9), (7, 1, 3, 3)),
        convolution((2, 7, 1, 1), (11, 7, 1, 1)),
        convolution((2, 7, 9, 9), (7, 11, 3, 3), transposed=True, stride=(2, 2)),
        convolution((2, 7, 9, 9), (11, 7, 3, 3), 7),
        convolution((2, 7, 9, 9), (11, 5, 3, 3)),
        convolution((2, 7, 2, 2), (11, 7, 3, 3)),
        convolution((2, 14, 9, 9), (11, 2, 3, 3), groups=7),
    ],
    aten.native_batch_norm.default: [norm(7), norm(7, training=True), norm(11), norm(7, running=11)],
    aten.grid_sampler_2d.default: [
        (empty(2, 7, 5, 5), empty(2, 3, 4, 2), 0, 0, False),
        (empty(2, 7, 5, 5), empty(3, 3, 4, 2), 0, 0, False),
        (empty(2, 7, 5, 5), empty(2, 3, 4, 3), 0, 0, False),
        (empty(2, 7, 5, 5), empty(2, 3, 4, 2, dtype=torch.float64), 0, 0, False),
    ],
    aten.upsample_bilinear2d.default: [
        (empty(2, 7, 5, 5), [10, 3], False, None, None),
        (empty(2, 7, 5, 5), [0, 3], False, None, None),
        (empty(2, 7, 5), [3, 3], False, None, None),
        (empty(2, 5, 5, 7).permute(0, 3, 1, 2), [3, 3], True, None, None),
    ],
    aten.upsample_nearest2d.default: [
        (empty(2, 7, 5, 5), [10, 3]),
        (empty(2, 7, 5, 5), [10, 3], 2.0, None),
        (empty(2, 7, 5, 5), [0, 3]),
    ],
    aten.native_layer_norm.default: [
        (empty(2, 5, 7), [7], empty(7), empty(7), 1e-6),
        (empty(2, 5, 7), [5, 7], None, None, 1e-6),
        (empty(2, 5, 7), [11], empty(11), empty(11), 1e-6),
        (empty(5, 2, 7).transpose(0, 1), [7], empty(7), None, 1e-6),
    ],
    aten.addmm.default: [
        (empty(7), empty(2, 5), empty(5, 7)),
        (empty(7), empty(2, 5), empty(7, 5).t()),
        (empty(1, 7), empty(2, 5), empty(5, 7)),
        (empty(11), empty(2, 5), empty(5, 7)),
        (empty(7), empty(2, 5), empty(11, 7)),
    ],
    aten.cat.default: [
        ([empty(2, 7, 5), empty(2, 11, 5)], 1),
        ([empty(2, 7, 5), empty(2, 7, 5)], -1),
        ([empty(2, 7, 5)],),
        ([empty(2, 7, 5), empty(2, 11, 3)], 1),
        ([empty(2, 7), empty(2, 7, 5)], 1),
        ([empty(0), empty(2, 7)], 1),
        ([empty(2, 7), empty(2, 7, dtype=torch.float16)], 1),
    ],
    aten.mean.dim: [
        (empty(2, 7, 5, 5), [2, 3]),
        (empty(2, 7, 5, 5), [-1, -2], True),
        (empty(2, 7, 5, 5), [1], False),
        (empty(2, 7), None, True),
        (empty(2, 7), [2]),
    ],
    aten.linalg_vector_norm.default: [
        (empty(2, 7, 5, 5), 2.0, [-1], True),
        (empty(2, 7, 5, 5), 1, [1, 3]),
        (empty(2, 7, 5, 3).transpose(1, 2), 2.0, [-1], True),
        (empty(2, 5, 7, 3).permute(0, 3, 1, 2)[:, :2], 2.0, [1], False),
        (empty(2, 7), 2.0),
        (empty(2, 7),),
        (empty(2, 7), 2.0, [2]),
        (empty(0, 7), float("inf"), [0]),
    ],
    aten._softmax.default: [
        (empty(2, 7, 5), -1, False),
        (empty(2, 5, 7).transpose(1, 2), 1, False),
        (empty(2, 7, 5), 3, False),
        (empty(2, 7, dtype=torch.int64), 1, False),
    ],
    aten._safe_softmax.default: [
        (empty(2, 7, 5), -1),
        (empty(2, 5, 7).transpose(1, 2), 1),
        (empty(2, 7, 5), -1, torch.float64),
        (empty(2, 7, 5), 3),
    ],
    aten.roll.default: [
        (empty(2, 7, 5, 5), [-3, 2], [1, 2]),
        (empty(2, 5, 5, 7).permute(0, 3, 1, 2), [3], [-1]),
        (empty(2, 7), [3]),
        (empty(2, 7), [3, 1], [0]),
        (empty(2, 7), [3], [2]),
    ],
    aten.bmm.default: [
        (empty(2, 7, 5), empty(2, 5, 3)),
        (empty(2, 5, 7).transpose(1, 2), empty(2, 3, 5).transpose(1, 2)),
        (empty(2, 7, 5), empty(3, 5, 3)),
        (empty(2, 7, 5), empty(2, 7, 3)),
        (empty(2, 7, 5), empty(2, 5, 3, dtype=torch.float64)),
    ],
    aten.clamp.default: [
        (empty(2, 7, 5), None, 6),
        (empty(2, 5, 7).transpose(1, 2), -1.0, 1.0),
        (empty(2, 7, 5), 0.5),
        (empty(2, 7, 5),),
        (empty(2, 7, 5), None, None),
        (empty(2, 7, dtype=torch.int64), 0, 6),
    ],
    aten.masked_fill.Scalar: [
        (empty(2, 7, 5), empty(2, 7, 5, dtype=torch.bool), -100.0),
        (empty(2, 5, 7).transpose(1, 2), empty(7, 1, dtype=torch.bool), 0.0),
        (empty(2, 7, 5)[:, 1:4], empty(5, dtype=torch.bool), 0),
        (empty(7, 5), empty(2, 7, 5, dtype=torch.bool), 0.0),
        (empty(2, 7, 5), empty(2, 3, 5, dtype=torch.bool), 0.0),
        (empty(2, 7, 5), empty(2, 7, 5), 0.0),
    ],
}
NUMBERS = {"leaky_relu": (0.1,), "clamp_min": (1e-3,)}
PARTNERS = [
    (2, 7, 5, 5),
    (2, 7, 1, 1),
    (1, 7, 1, 1),
    (7, 5, 5),
    (7, 1, 1),
    (5,),
    (3, 2, 7, 5, 5),
    (2, 11, 5, 5),
    3.0,
    3.0j,
]


def cases(func: object) -> list[tuple[object, ...]]:
    """Arguments that fit, some that a shortcut leaves to torch, some that are wrong."""
    if func in SPECIAL:
        return SPECIAL[func]
    name = str(func).removeprefix("aten.")
    rest = NUMBERS.get(name, NUMBERS.get(name.split(".")[0].rstrip("_"), ()))
    inputs = [
        empty(2, 7, 5, 5),
        empty(2, 7, 1, 1),
        empty(2, 7, 5, 5).to(memory_format=torch.channels_last),
        empty(5, 7, 2, 5).transpose(0, 2),
        empty(2, 7, 9, 5)[:, :, 2:7],
        empty(2, 1, 5, 5).expand(2, 7, 5, 5),
        empty(5, 1, 2, 1).transpose(0, 2).expand(2, 7, 5, 5),
        empty(7),
        empty(2, 7, dtype=torch.int64),
    ]
    if name == "mul.Scalar":
        return [(x, number) for x in inputs for number in (2.0, 2.0j)]
    if not name.endswith(".Tensor"):
        return [(x, *rest) for x in inputs]
    partners = [(x, empty(*p) if isinstance(p, tuple) else p) for x in inputs for p in PARTNERS]
    partners += [(x, other) for x in inputs for other in (inputs[3], inputs[1].expand(2, 7, 5, 5))]
    return partners + [(x, empty(*x.shape, dtype=torch.float64)) for x in inputs]


def answer(call, func, args) -> object:
    try:
        out = call(func, args)
    except Exception as error:  # noqa: BLE001 - that it fails is the answer
        return type(error)
    tensors = [out] if isinstance(out, Tensor) else out
    return [(t.shape, strides_that_count(t), t.dtype, t.device, t is args[0]) for t in tensors]


def strides_that_count(tensor: Tensor) -> list[int]:
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@pytest.mark.parametrize("func", SHORTCUTS, ids=str)
def test_a_shortcut_answers_what_torch_answers(func) -> None:
    for args in cases(func):
        ours = answer(lambda func, args: meta_call(func, args, {}), func, args)

        assert ours == answer(lambda func, args: func(*args), func, args), args


@pytest.mark.parametrize("func", SHORTCUTS, ids=str)
def test_every_shortcut_is_taken_in_some_case_and_left_in_some(func) -> None:
    taken = [SHORTCUTS[func](*args) is not None for args in cases(func)]

    assert set(taken) == {True, False}
