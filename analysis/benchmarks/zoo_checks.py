"""What the zoo benchmark compares and counts, one function each; a promise that does not hold raises `CheckError`.

FLOPs are compared with torch's `FlopCounterMode` on the rebuilt model. It counts fused attention kernels, on the CPU
too, as the two matrix products they replace, but knows nothing of the fast path that `nn.MultiheadAttention` and
`nn.TransformerEncoderLayer` take in eval mode, nor of oneDNN's recurrent layers, so both are switched off while it
counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from autoprune.engine.allocation.allocate import smallest
from autoprune.engine.cost import cost, flops_by_layer
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.plain_operations import plain_operations

Numbers = dict[str, Any]
#: Reasons for frozen groups that a row keeps, those that hold up most FLOPs first.
REASONS = 5


class CheckError(Exception):
    """A promise that does not hold; the message is the reason in the table, `numbers` are the findings."""

    def __init__(self, reason: str, **numbers: Any) -> None:
        super().__init__(reason)
        self.numbers = numbers


# ---- keeps -----------------------------------------------------------------------------------------------------------


def half(graph: ChannelGraph, seed: int) -> Keep:
    """A random half of the units of every prunable group; the odd one goes."""
    random = np.random.default_rng(seed)
    return Keep.of({g.id: random.choice(g.size, max(1, g.size // 2), replace=False).tolist() for g in graph.prunable})


def random_keep(graph: ChannelGraph, seed: int) -> Keep:
    """From two units to all of them, another number in every group.

    With one left, torch.einsum multiplies instead of calling a matrix product, and FlopCounterMode counts none of that.
    """
    random = np.random.default_rng(seed)
    counts = {group: int(random.integers(min(2, group.size), group.size + 1)) for group in graph.prunable}
    return Keep.of({g.id: random.choice(g.size, n, replace=False).tolist() for g, n in counts.items()})


# ---- outputs and gradients -------------------------------------------------------------------------------------------


def run(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The output without gradients."""
    with torch.no_grad():
        return model(*copied(inputs))


def copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs for one run: some models scale theirs in place (spandrel's RCAN), and would get other ones next."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a nested output."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def in_double(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs in float64."""
    return tree_map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) else leaf, inputs)


def difference(expected: Any, found: Any) -> float:
    """Largest |expected - found| over the largest |expected|, the worst of a nested output's tensors.

    Infinite where shapes differ or a number is not finite. Raises `CheckError` for an output without entries.
    """
    pairs = list(zip(tensors(expected), tensors(found), strict=True))
    if not any(a.numel() for a, _ in pairs):
        raise CheckError("vacuous: the output is empty")
    return max(_relative_difference(a, b) for a, b in pairs)


def _relative_difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    error = (a.double() - b.double()).abs().max() / a.double().abs().max().clamp_min(1e-30)
    return float(error) if torch.isfinite(error) else float("inf")


def finite(output: Any) -> None:
    """Raise `CheckError` unless every number of a nested output is finite."""
    if not all(torch.isfinite(t).all() for t in tensors(output)):
        raise CheckError("the output is not finite")


def gradients(model: nn.Module, inputs: tuple[Any, ...]) -> Numbers:
    """One backward pass: how many parameters it reaches. Raises `CheckError` if none, or with numbers not finite."""
    model.zero_grad(set_to_none=True)
    leaves = [t for t in tensors(model(*copied(inputs))) if t.requires_grad]
    torch.stack([leaf.float().pow(2).mean() for leaf in leaves]).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    found = [p.grad for p in trained if p.grad is not None]
    numbers = {"reached": len(found), "trained": len(trained)}
    model.zero_grad(set_to_none=True)
    if not all(torch.isfinite(grad).all() for grad in found):
        raise CheckError("gradients are not finite", **numbers)
    if not any(grad.any() for grad in found):
        raise CheckError("gradients reach no parameter", **numbers)
    return numbers


# ---- cost ------------------------------------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Counts the FLOPs of the block, attention and recurrent layers included: fused kernels count as none."""
    fused, *_ = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        with plain_operations(), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mkldnn.set_flags(_enabled=fused)


def agreement(graph: ChannelGraph, keep: Keep, model: nn.Module, inputs: tuple[Any, ...]) -> Numbers:
    """FLOPs and parameters by `cost` and by torch on the cut model. Raises `CheckError` if they differ."""
    said = cost(graph, keep)
    with counted() as counter:
        finite(run(model, inputs))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    numbers = {"flops": said.flops, "counted_flops": counter.get_total_flops(),
               "params": said.params, "counted_params": parameters}  # fmt: skip
    for name in ("flops", "params"):
        if numbers[name] != numbers[f"counted_{name}"]:
            raise CheckError(f"cost says {numbers[name]} {name}, torch counts {numbers[f'counted_{name}']}", **numbers)
    return numbers


def reach(graph: ChannelGraph, keep: Keep) -> Numbers:
    """FLOPs lost to a keep, the least that can stay, the share of operations that cannot shrink, frozen groups."""
    dense = cost(graph, Keep.all())
    widths = graph.widths.fixed + graph.widths.per_unit @ graph.sizes
    rigid = [op for op in graph.ops if not graph.widths.per_unit[list(op.dims)].any()]
    flops = sum(op.flops * float(widths[list(op.dims)].prod()) for op in rigid)
    return {
        "flops": dense.flops,
        "lost": 1 - cost(graph, keep).ratios(dense)["flops"],
        "smallest": smallest(graph).ratios(dense)["flops"],
        "rigid": flops / dense.flops if dense.flops else 0.0,
        "groups": len(graph.groups),
        "frozen": len(graph.groups) - len(graph.prunable),
        "reasons": _frozen_shares(graph),
    }


def _frozen_shares(graph: ChannelGraph) -> list[tuple[str, float]]:
    """(reason, share of the FLOPs in layers that groups frozen for it touch), the largest share first.

    Reasons that differ in numbers or in the layer only are one reason.
    """
    flops = flops_by_layer(graph, Keep.all())
    total = sum(flops.values()) or 1
    touched: dict[str, set[str]] = {}
    for group in graph.groups:
        if group.frozen is not None:
            reason = re.sub(r"\d+", "N", group.frozen.split(" in ", maxsplit=1)[0])
            touched.setdefault(reason, set()).update(group.layers)
    shares = [(reason, sum(flops.get(name, 0) for name in names) / total) for reason, names in touched.items()]
    return sorted(shares, key=lambda pair: -pair[1])[:REASONS]


# ---- attributes ------------------------------------------------------------------------------------------------------


def untrue(model: nn.Module) -> list[str]:
    """Sizes that torch's own modules state wrongly: their tensors have others."""
    return [
        f"{name}.{attribute} = {said}, its tensors: {so}"
        for name, module in model.named_modules()
        for attribute, said, so in _stated_sizes(module)
        if said != so
    ]


def _stated_sizes(module: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """(attributes, stated sizes, sizes of the tensors)."""
    weight = getattr(module, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    if isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = module.out_channels, module.in_channels
        first, second = (columns, rows) if module.transposed else (rows, columns)
        yield "channels", (first, second // module.groups), shape[:2]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        vector = module.running_mean if module.running_mean is not None else weight
        yield "num_features", module.num_features, module.num_features if vector is None else len(vector)
    elif isinstance(module, nn.MultiheadAttention):
        yield "embed_dim, num_heads", module.num_heads * module.head_dim, module.embed_dim
        if module.in_proj_weight is not None:
            yield "embed_dim", (3 * module.embed_dim, module.embed_dim), tuple(module.in_proj_weight.shape)
    elif shape:
        yield from _plain_sizes(module, shape)


_ATTRIBUTES: dict[type[nn.Module] | tuple[type[nn.Module], ...], tuple[str, ...]] = {
    nn.Linear: ("out_features", "in_features"),
    nn.GroupNorm: ("num_channels",),
    nn.PReLU: ("num_parameters",),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.Bilinear: ("out_features", "in1_features", "in2_features"),
}


def _plain_sizes(module: nn.Module, shape: tuple[int, ...]) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        yield "normalized_shape", tuple(module.normalized_shape), shape
    for kind, names in _ATTRIBUTES.items():
        if isinstance(module, kind):
            yield ", ".join(names), tuple(getattr(module, name) for name in names), shape
