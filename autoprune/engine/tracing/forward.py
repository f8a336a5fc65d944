"""One forward pass of a model with integer labels beside the data; `trace` builds on it."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from operator import is_not
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.engine.graph import InputSpec, Ints
from autoprune.engine.labels.blocks import FIXED
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.labels.pass_state import PassState
from autoprune.engine.labels.tensor_labels import TensorLabels
from autoprune.engine.operations import operation_name
from autoprune.engine.rules import apply
from autoprune.engine.surgery.copying import copy_module
from autoprune.engine.surgery.held_numbers import held_numbers
from autoprune.engine.surgery.module_paths import paths_followed
from autoprune.engine.surgery.plain_operations import plain_operations
from autoprune.engine.surgery.tensors import example_inputs, tensors_of
from autoprune.engine.tracing.data_values import DataReader, DataValues
from autoprune.engine.tracing.filters import freeze_unknown_filters, kernel_names
from autoprune.engine.tracing.labelled_run import GroupingMode, LabelledRun, LabelSlot
from autoprune.engine.tracing.made_numbers import made_numbers_noted
from autoprune.engine.tracing.meta_kernels import meta_call
from autoprune.engine.tracing.outputs import output_tensors
from autoprune.errors import ModelError

Inputs = Tensor | Sequence[Tensor | Sequence[Tensor]] | Mapping[str, Tensor]


class BrokenPassError(Exception):
    """A forward pass that stopped.

    Fields:
        error: what stopped it.
        path: the module whose forward was running.
        labels: of what the operation worked with that failed, or, where the model's own code did, the one before it.
        run: what the pass had found until then.
    """

    def __init__(self, error: Exception, path: str, labels: Ints, run: LabelledRun) -> None:
        super().__init__(str(error))
        self.error, self.path, self.labels, self.run = error, path, labels, run


Modules = Mapping[str, nn.Module]

OUTPUT = "reaches the model's output"

_EMPTY = torch.ops.aten.empty.memory_format


#: What modules hold most; asking whether something is a tensor takes longer than looking its type up.
_NO_TENSORS = frozenset([bool, int, float, str, type(None), tuple, list, dict, set, OrderedDict])


def input_specs(inputs: Inputs) -> Iterator[InputSpec]:
    """Shapes and types of example inputs.

    Raises:
        ModelError: something among them is no tensor.
    """
    if isinstance(inputs, Mapping):
        yield from (_input_spec(tensor, name=name) for name, tensor in inputs.items())
        return
    for place, value in enumerate([inputs] if isinstance(inputs, Tensor) else inputs):
        listed = not isinstance(value, Tensor) and isinstance(value, Sequence)
        yield from (_input_spec(tensor, place=place, listed=listed) for tensor in (value if listed else [value]))


def _input_spec(tensor: object, **where: Any) -> InputSpec:
    if not isinstance(tensor, Tensor):
        raise ModelError(f"expected a tensor as example input, found {type(tensor).__name__}")
    return InputSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), **where)


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose tensors have shapes but no data, plain tensor attributes of modules included."""
    memo: dict[int, object] = {}
    modules = dict(model.named_modules())
    for module in modules.values():
        for value in vars(module).values():
            if type(value) not in _NO_TENSORS and isinstance(value, Tensor):
                memo[id(value)] = value.detach().to("meta")
    for _, tensor in tensors_of(modules):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    copied = copy_module(model, memo)
    return copied.eval() if any(module.training for module in modules.values()) else copied


def run_labelled(model: nn.Module, specs: tuple[InputSpec, ...], mode: GroupingMode) -> LabelledRun:
    """Every entry of every tensor dimension gets a label; a forward pass finds out which of them meet.

    The model is left as it is, in eval mode. Attention is run as the products it consists of: fused kernels would hide
    them, and differ from device to device.
    """
    modules = dict(model.named_modules())
    tensors = dict(tensors_of(modules))
    slots = tuple(_label_slots(tensors, kernel_names(modules)))
    labels = np.arange(slots[-1].first + slots[-1].size if slots else FIXED + 1)
    flow = _new_flow(labels, slots, tensors, mode)
    sizes = {name: tensor.numel() for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)}

    def found() -> LabelledRun:
        state = flow.state
        settled = replace(mode, by_offset=frozenset(state.by_offset), uneven=frozenset(state.uneven))
        held = partial(_numbers_held, modules)
        return LabelledRun(specs, slots, flow.labels.count, flow.ties, flow.evidence, settled, sizes, held)

    try:
        # in a context of its own: what code has collected in a context variable stays there when a pass fails
        read = copy_context().run(_run_forward, model, modules, specs, flow, mode.values)
    except Exception as error:
        raise BrokenPassError(
            error, flow.state.path, _labels_of(flow, tree_leaves(flow.state.arguments)), found()
        ) from error
    freeze_unknown_filters(flow, modules, {name: id(tensors[name]) in read for name in tensors}, slots)
    run = found()
    if all(id(tensors[name]) in read for name in sizes) or any(not tensor.is_meta for tensor in tensors.values()):
        return run
    training = _new_flow(flow.labels.representative.copy(), slots, tensors, run.mode)
    return _with_training(run, model, modules, training)


def _labels_of(flow: Flow, tensors: Iterable[object]) -> Ints:
    found = [labels.ravel() for tensor in tensors for _, labels in flow.get(tensor)]
    return np.unique(np.concatenate([*found, np.zeros(0, np.int64)]))


def _new_flow(
    representative: Ints, slots: Iterable[LabelSlot], tensors: Mapping[str, Tensor], mode: GroupingMode
) -> Flow:
    """A flow in which the model's tensors have their labels; `representative` of the labels known so far, (labels,)."""
    own = {id(tensor): tensor for tensor in tensors.values()}
    state = PassState(
        own,
        whole_groups=mode.whole_groups,
        by_offset=set(mode.by_offset),
        by_row=mode.by_row,
        uneven=set(mode.uneven),
    )
    flow = Flow(TensorLabels(representative), state)
    blocks: dict[str, list[Any]] = {}
    for slot in slots:
        blocks.setdefault(slot.tensor, []).append(((slot.dim,), np.arange(slot.first, slot.first + slot.size)))
    for name, labelled in blocks.items():
        flow.set(tensors[name], labelled)
    return flow


def _run_forward(
    model: nn.Module, modules: Modules, specs: tuple[InputSpec, ...], flow: Flow, values: DataValues | None = None
) -> set[int]:
    """One pass; returns the ids of the tensors that some operation has read."""
    device = next((tensor.device for tensor, _ in flow.labels.blocks.values()), torch.device("meta"))
    args, kwargs = example_inputs(specs, device)
    with (
        torch.no_grad(),
        _collector_paused(),
        plain_operations(),
        made_numbers_noted(flow),
        _left_as_it_was(modules),
        paths_followed(modules, partial(setattr, flow.state, "path")),
    ):
        labelling = _Labelling(flow, None if values is None else DataReader(values))
        with labelling:
            out = model(*args, **kwargs)
    flow.state.path = ""
    for tensor in output_tensors(out):
        flow.evidence.output_shapes.append(tuple(tensor.shape))
        flow.freeze_all(flow.get(tensor), OUTPUT)
        flow.freeze_all(*flow.state.positions.get(id(tensor), ((), "")))
    return labelling.read


def _with_training(run: LabelledRun, model: nn.Module, modules: Modules, training: Flow) -> LabelledRun:
    """The run with what a pass in train mode shows: of parameters that are idle in eval mode, those of auxiliary heads.

    Two images, as batch norm needs. A model that cannot train on its inputs alone keeps its idle parts as they are, and
    so does one that holds data: a pass in train mode would touch its statistics.
    """
    pairs = tuple(replace(spec, shape=(max(2, spec.shape[0]), *spec.shape[1:])) for spec in run.specs if spec.shape)
    try:
        _run_forward(model.train(), modules, pairs, training)
    except Exception:
        if run.mode.trains:  # the dense model did
            raise
        return run
    finally:
        model.eval()
    return replace(
        run,
        label_count=training.labels.count,
        ties=run.ties.joined(training.ties),
        evidence=run.evidence.joined(training.evidence),
        mode=replace(run.mode, by_offset=frozenset(training.state.by_offset), trains=True),
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No search for garbage during a pass, which makes little: one through all that torch has loaded takes 0.15 s."""
    was_running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_running:
            gc.enable()


class _Labelling(TorchDispatchMode):
    """Runs the rule of every operation; `read` collects the ids of all arguments."""

    def __init__(self, flow: Flow, reader: DataReader | None) -> None:
        super().__init__()
        self.flow, self.reader = flow, reader
        self.read: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to keep its compiler off a mode torch imports it, 2 s of every start; nothing compiles here."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.read.update(map(id, args))
        self.flow.state.arguments = args
        if self.reader is None:
            out = meta_call(func, args, kwargs or {})
        else:
            args, out = self.reader.call(func, args, kwargs or {})
        if func is _EMPTY and not out.numel():
            return out  # what batch norms leave for a backward pass, one each
        apply(self.flow, Call(operation_name(func), func, args, kwargs or {}, out))
        return out


def _label_slots(tensors: Mapping[str, Tensor], kernels: Container[str]) -> Iterator[LabelSlot]:
    """Labels for every dimension of size > 1 of every tensor; of a convolution's weight only for filters and inputs."""
    first = FIXED + 1
    for name, tensor in tensors.items():
        for dim, size in enumerate(tensor.shape[:2] if name in kernels else tensor.shape):
            if size > 1:
                yield LabelSlot(name, dim, first, size)
                first += size


def _numbers_held(modules: Modules) -> dict[str, dict[str, tuple[int, ...]]]:
    """Module -> attribute -> the numbers it holds, one above 1 or several; without those that weights repeat."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, module in modules.items():
        repeated = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
        for name, numbers in held_numbers(module):
            if max(numbers, default=0) > 1 and not (repeated and name.startswith(("in_", "out_"))):
                found.setdefault(path, {})[name] = numbers
    return found


@contextmanager
def _left_as_it_was(modules: Modules) -> Iterator[None]:
    """What the model's code keeps in its modules is gone afterwards: anchors of a detector, made in the first pass.

    So are hooks: transformers' models hook up their layers in the first pass and note it in an attribute. Without that
    note the second pass would hook them up once more, and collect every output twice.
    """
    before = [(vars(module), dict(vars(module)), _inner_dicts(vars(module))) for module in modules.values()]
    try:
        yield
    finally:
        for own, held, inner in before:
            if _changed(own, held):
                own.clear()
                own.update(held)
            for name, entries in inner.items():
                if _changed(own[name], entries):
                    own[name].clear()
                    own[name].update(entries)


def _inner_dicts(own: Mapping[str, Any]) -> dict[str, dict[Any, object]]:
    """A module's buffers and hooks."""
    return {name: dict(own[name]) for name in ("_buffers", "_forward_hooks", "_forward_pre_hooks")}


def _changed(now: Mapping[Any, object], before: Mapping[Any, object]) -> bool:
    if not now and not before:  # most are hooks, and most modules have none
        return False
    return now.keys() != before.keys() or any(map(is_not, now.values(), before.values()))
