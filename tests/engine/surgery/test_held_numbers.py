"""Numbers in attributes of modules, and in partial functions that are attributes."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from autoprune.engine.surgery.held_numbers import held_numbers, hold_numbers


def padded(planes: int, x: Tensor, *, stride: int) -> Tensor:
    return x[:planes] * stride


def holder() -> nn.Module:
    module = nn.Module()
    module.width, module.sizes, module.name, module.flag = 7, [3, 11], "block", True
    module.shortcut = partial(padded, 13, stride=2)
    return module


def test_numbers_are_found_under_names_that_say_where_they_are() -> None:
    assert dict(held_numbers(holder())) == {
        "width": (7,), "sizes": (3, 11), "shortcut.0": (13,), "shortcut.stride": (2,)
    }  # fmt: skip


def test_a_partial_function_is_replaced_and_the_one_that_others_hold_is_as_it_was() -> None:
    module = holder()
    before = module.shortcut
    hold_numbers(module, "shortcut.0", [5])
    hold_numbers(module, "shortcut.stride", [3])

    assert (module.shortcut.args, module.shortcut.keywords) == ((5,), {"stride": 3})
    assert module.shortcut.func is padded
    assert (before.args, before.keywords) == ((13,), {"stride": 2})


def test_several_numbers_stay_in_what_holds_them() -> None:
    module = holder()
    hold_numbers(module, "sizes", [2, 5])
    hold_numbers(module, "width", [4])

    assert (module.sizes, module.width) == ([2, 5], 4)
