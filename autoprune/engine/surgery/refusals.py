"""Models that cannot be cut whatever their channels do, and what their owner can do about it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.export.unflatten import InterpreterModule, UnflattenedModule
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod

from autoprune.errors import ModelError


def check_can_be_cut(model: object) -> None:
    """Refuse models whose weights are out of Python's reach, do not exist yet or are masked by someone else.

    Raises:
        ModelError: says which module it is and what to hand in instead.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"{_kind(model)} is no module", where="model", allowed=f"a torch.nn.Module{_origin(model)}")
    for path, module in model.named_modules():
        for applies, what, allowed in _REFUSALS:
            if applies(module):
                where = f"{type(model).__name__}.{path}" if path else type(model).__name__
                raise ModelError(what, where=where, allowed=allowed)


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _origin(thing: object) -> str:
    return ", the one that was exported" if isinstance(thing, torch.export.ExportedProgram) else ""


def _is_script(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _is_exported(module: nn.Module) -> bool:
    return isinstance(module, (UnflattenedModule, InterpreterModule)) or (
        isinstance(module, torch.fx.GraphModule)
        and any(isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes)
    )


def _is_unmaterialised(module: nn.Module) -> bool:
    return any(is_lazy(tensor) for held in (module._parameters, module._buffers) for tensor in held.values())


def _is_masked(module: nn.Module) -> bool:
    return any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values())


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))


#: Whether a module is refused, what it is, and what is allowed instead.
_REFUSALS: tuple[tuple[Callable[[nn.Module], bool], str, str], ...] = (
    (
        _is_script,
        "a torch.jit script or trace, whose weights cannot be cut",
        "the torch.nn.Module that it was made from; script the pruned model",
    ),
    (
        _is_exported,
        "an exported program, into which all sizes are written",
        "the torch.nn.Module that it was exported from; export the pruned model",
    ),
    (
        _is_unmaterialised,
        "a lazy module that has no weights yet",
        "a model that has been run once on an example input",
    ),
    (
        _is_masked,
        "a weight is masked by torch.nn.utils.prune",
        "a model after torch.nn.utils.prune.remove(module, name), which makes the masks permanent",
    ),
    (
        _is_quantised,
        "a quantised layer, whose weights are packed",
        "the model before torch.ao.quantization.convert",
    ),
)
