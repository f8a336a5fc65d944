"""The labelled pass runs what the model runs, in train mode too, and leaves the model as it was."""

from __future__ import annotations

from contextvars import ContextVar

import pytest
import torch
from nets import Chain, Residual, image
from torch import Tensor, nn

from autoprune.engine.graph import InputSpec
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.forward import input_specs, meta_copy, run_labelled
from autoprune.engine.tracing.labelled_run import GroupingMode
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ModelError


class Auxiliary(nn.Module):
    """A head that runs in train mode only, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7)
        self.idle, self.head = nn.Linear(7, 5), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.norm(self.stem(x)).mean((2, 3))
        return (self.head(x), self.idle(x)) if self.training else self.head(x)


def test_what_runs_in_train_mode_only_is_cut_with_the_rest() -> None:
    net = Auxiliary()
    graph = trace(net, image(batch=1))
    cut = prune(net.train(), graph, Keep.of({"stem": [0, 3]}))

    assert "idle" in graph.by_id["stem"].layers
    assert cut.idle.in_features == 2
    assert [(2, 5), (2, 5)] == [tuple(out.shape) for out in cut(image())]


def test_the_run_says_in_its_mode_that_the_model_had_to_train_and_a_cut_copy_must_train_too() -> None:
    specs = tuple(input_specs(image()))

    assert run_labelled(meta_copy(Chain()), specs, GroupingMode()).mode == GroupingMode()
    settled = run_labelled(meta_copy(Auxiliary()), specs, GroupingMode()).mode
    assert settled == GroupingMode(trains=True)

    class Untrainable(Auxiliary):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            assert not self.training
            return super().forward(x)

    assert not run_labelled(meta_copy(Untrainable()), specs, GroupingMode()).mode.trains
    with pytest.raises(AssertionError):
        run_labelled(meta_copy(Untrainable()), specs, settled)


def test_tracing_leaves_the_model_as_it_was() -> None:
    net = Residual().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    trace(net, image())

    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_forward_pass_that_fails_is_a_model_error_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"Chain: the forward pass fails: .*") as caught:
        trace(Chain(), torch.zeros(2, 4, 9, 9))

    assert "\n" not in str(caught.value)


def test_inputs_by_place_in_lists_and_by_name() -> None:
    a, b = torch.zeros(2, 3), torch.zeros(5, dtype=torch.int64)

    assert list(input_specs([a, [b, a]])) == [
        InputSpec((2, 3), "float32"),
        InputSpec((5,), "int64", place=1, listed=True),
        InputSpec((2, 3), "float32", place=1, listed=True),
    ]
    assert list(input_specs({"mask": b})) == [InputSpec((5,), "int64", name="mask")]
    with pytest.raises(ModelError, match="expected a tensor as example input, found int"):
        list(input_specs([a, 7]))


COLLECTED: ContextVar[list[Tensor] | None] = ContextVar("collected", default=None)


class Collects(nn.Module):
    """Its layers hand their outputs over in a context variable, which nobody empties after a failed pass."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1)
        self.heads = nn.ModuleList([nn.Conv2d(7, 5, 1), nn.Conv2d(11, 5, 1)])

    def forward(self, x):
        if COLLECTED.get() is None:
            COLLECTED.set([])
        stem = self.stem(x)
        COLLECTED.get().append(stem)
        inner = self.inner(stem)
        COLLECTED.get().append(inner.view(len(x), 11, *x.shape[2:]))
        found = sum(head(y) for head, y in zip(self.heads, COLLECTED.get(), strict=False))
        COLLECTED.set(None)
        return found


def test_a_failed_pass_leaves_nothing_for_the_next_one():
    graph = trace(Collects(), torch.rand(1, 3, 5, 5))
    assert COLLECTED.get() is None
    assert [group.id for group in graph.prunable] == ["stem"]


class HooksItself(nn.Module):
    """Hooks its layers up in its first pass, to collect what they put out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1)])
        self.heads = nn.ModuleList([nn.Conv2d(7, 5, 1), nn.Conv2d(11, 5, 1)])
        self.found: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "hooked"):
            self.hooked = [
                layer.register_forward_hook(lambda *call: self.found.append(call[2])) for layer in self.layers
            ]
        self.found = []
        for layer in self.layers:
            x = layer(x)
        return sum(head(y) for head, y in zip(self.heads, self.found, strict=True))


def test_a_model_that_hooks_up_its_layers_does_so_in_every_pass_anew() -> None:
    model = HooksItself()
    graph = trace(model, torch.rand(1, 3, 5, 5))
    assert {group.id: group.size for group in graph.prunable} == {"layers.0": 7, "layers.1": 11}
    assert not any(layer._forward_hooks for layer in model.layers)
