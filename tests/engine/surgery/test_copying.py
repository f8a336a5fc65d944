"""A copy of a module tree is the one that `copy.deepcopy` makes, whatever hangs on the modules."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from autoprune.engine.surgery.copying import copy_module, select
from autoprune.engine.surgery.tensors import copy_with, named_tensors


class Odd(nn.Module):
    """What a module may hold besides its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 7, 3, bias=False)
        self.again = self.first
        self.listed = [nn.Linear(7, 11), (1, [2])]
        self.plain = torch.arange(3.0)
        self.options = {"kernel": (3, 3), "parts": [self.first], "nested": {"a": {1, 2}}}
        self.also = self.options
        self.around = [self]
        self.call = self.forward
        self.norm = nn.BatchNorm2d(7)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.again(x))


class Own(nn.Linear):
    """A module that copies in its own way."""

    def __deepcopy__(self, memo: dict[int, object]) -> Own:
        return Own(self.in_features, self.out_features + 1)


MODELS = {
    "conv": lambda: nn.Conv2d(3, 7, 3),
    "odd": Odd,
    "own": lambda: nn.Sequential(Own(3, 7)),
    "recurrent": lambda: nn.LSTM(3, 7),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 7))),
    "frozen": lambda: nn.Linear(3, 7).requires_grad_(False).eval(),
}


def described(value: object, seen: dict[int, int]) -> object:
    """The value as nested plain data; objects that occur twice are numbered, so that sharing shows."""
    if isinstance(value, (int, float, str, type(None), type, torch.dtype)):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    return (type(value).__name__, [described(part, seen) for part in parts(value)])


def parts(value: object) -> list[object]:
    """What a value consists of."""
    if isinstance(value, Tensor):
        return [str(value.tolist()), value.requires_grad]
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set)):
        return list(value)
    if isinstance(value, weakref.ref):
        return [value()]
    if hasattr(value, "__self__"):
        return [value.__name__, value.__self__]
    return [vars(value)] if hasattr(value, "__dict__") else [repr(value)]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_copy_that_python_makes(name: str) -> None:
    model = MODELS[name]()

    torch.manual_seed(0)
    expected = described(copy.deepcopy(model), {})
    torch.manual_seed(0)
    assert described(copy_module(model, {}), {}) == expected


def test_nothing_is_shared_with_the_original_and_all_that_was_shared_still_is() -> None:
    model = Odd()
    new = copy_module(model, {})

    assert new.first is new.again is new.options["parts"][0]
    assert new.options is new.also
    assert new.around[0] is new
    assert new.call.__self__ is new
    assert {id(t) for t in (*new.parameters(), *new.buffers(), new.plain)}.isdisjoint(
        {id(t) for t in (*model.parameters(), *model.buffers(), model.plain)}
    )
    new.options["nested"]["a"].add(3)
    new.listed[1][1].append(5)
    assert model.options["nested"]["a"] == {1, 2}
    assert model.listed[1] == (1, [2])


def test_hooks_go_along_and_removing_one_leaves_the_others() -> None:
    model = nn.Sequential(nn.Linear(3, 7))
    handle = model[0].register_forward_hook(lambda _module, _args, out: out + 1)
    new = copy_module(model, {})
    handle.remove()
    x = torch.ones(1, 3)

    assert torch.allclose(new(x), model(x) + 1)


class Pyramid:
    """No module; it keeps what a pass has computed."""

    def __init__(self, levels: list[Tensor]) -> None:
        self.levels, self.around = levels, [self]


def test_what_a_pass_with_gradients_has_left_in_plain_objects_is_copied_without_them() -> None:
    model = nn.Conv2d(3, 7, 1)
    level = model(torch.rand(1, 3, 2, 2))
    model.pyramid, model.last = Pyramid([level]), (level, 3)
    copied = copy_module(model, {})

    assert copied.pyramid.levels[0] is copied.last[0]
    assert not copied.last[0].requires_grad
    assert torch.equal(copied.last[0], level)
    assert copied.pyramid.around[0] is copied.pyramid


def test_a_compiled_module_is_copied_without_what_was_compiled() -> None:
    model = nn.Linear(3, 7)
    model.compile(backend="eager")

    assert copy_module(model, {})._compiled_call_impl is None


def test_replaced_tensors_take_their_places_wherever_they_are_shared() -> None:
    model = Odd()
    model.tied = model.norm.weight
    new = copy_with(model, lambda _name, tensor: tensor + 1)

    assert new.tied is new.norm.weight
    assert torch.equal(new.norm.weight, torch.full((7,), 2.0))
    assert [name for name, _ in named_tensors(new)] == [name for name, _ in named_tensors(model)]


SHAPES = {
    "small": (7, 11, 3, 3),
    "vector": (13,),
    "rows in blocks": (1100, 1300),
    "rows in blocks, kernels": (700, 500, 3, 3),
    "large": (2100, 2300),
    "one long row": (2, 700_000),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_part_of_a_tensor_is_what_selecting_by_index_gives(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensor = torch.randint(-99, 99, shape).to(dtype)
    kept = [torch.randperm(size)[: size // 2 + 1].sort().values for size in shape[:2]]
    for dims in {(0,), (len(kept) - 1,), tuple(range(len(kept)))}:
        expected = tensor
        for dim in dims:
            expected = expected.index_select(dim, kept[dim])
        part = select(tensor, [(dim, kept[dim]) for dim in dims])

        assert torch.equal(part, expected)
        assert part.stride() == expected.stride()
        assert part.untyped_storage().nbytes() == part.nbytes  # nothing of the old tensor hangs on it


def test_parts_along_later_dimensions_and_of_other_layouts() -> None:
    tensor = torch.randn(900, 800, 3, 3).to(memory_format=torch.channels_last)
    rows, columns, taps = torch.arange(0, 900, 2), torch.arange(1, 800, 3), torch.tensor([0, 2])

    assert torch.equal(select(tensor, [(0, rows), (1, columns)]), tensor[rows][:, columns])
    assert torch.equal(select(tensor, [(1, columns), (2, taps)]), tensor[:, columns][:, :, taps])
    assert torch.equal(select(tensor, [(0, rows), (1, columns), (3, taps)]), tensor[rows][:, columns][..., taps])
