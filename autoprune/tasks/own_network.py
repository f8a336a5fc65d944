"""What a user hands in as a network: the module itself out of its wrappers, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from autoprune.errors import ModelError

NETWORK = "a torch.nn.Module"


def as_network(found: object, where: str) -> nn.Module:
    """The network in eval mode, on the CPU, its weights in float32, as trainings compute.

    Out of `DataParallel`, `DistributedDataParallel` and `torch.compile` comes the network that was put in: these run a
    network, and are not part of it.

    Raises:
        ModelError: it is none, its weights hold no numbers, or none of them can be trained.
    """
    model = found
    while (inner := _wrapped(model)) is not None:
        model = inner
    if not isinstance(model, nn.Module):
        what, allowed = _what_it_is(model)
        raise ModelError(f"the factory returns {what}", where=where, allowed=allowed)
    weights = list(model.parameters())
    if any(tensor.is_meta for tensor in (*weights, *model.buffers())):
        allowed = f"{NETWORK} with numbers in its weights: build it without torch.device('meta')"
        raise ModelError("the weights are on the device meta, which holds no numbers", where=where, allowed=allowed)
    if weights and not any(weight.requires_grad for weight in weights):
        allowed = "weights that are trained: requires_grad_(True)"
        raise ModelError("no weight of the network requires a gradient", where=where, allowed=allowed)
    return model.to("cpu").float().eval()


def _wrapped(model: object) -> nn.Module | None:
    """The network in a wrapper; `torch.compile`'s is known by its attribute, as its class takes seconds to import."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return model.module
    inner = getattr(model, "_orig_mod", None) if isinstance(model, nn.Module) else None
    return inner if isinstance(inner, nn.Module) else None


def _what_it_is(found: Any) -> tuple[str, str]:
    """What was handed in instead of a network, and what to hand in."""
    if found is None:
        return "None", f"{NETWORK}: does the function end with `return`?"
    if isinstance(found, type):
        return f"the class {found.__name__}", f"{NETWORK}, {found.__name__}() for instance"
    if isinstance(found, Mapping) and found and all(isinstance(tensor, Tensor) for tensor in found.values()):
        return "a state dict", f"{NETWORK}; its weights may come from a file by `checkpoint`"
    return f"a {type(found).__name__}", NETWORK
