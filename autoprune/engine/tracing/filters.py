"""Which parameters hold the filters of layers, and what is said of filters that no rule has met as such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from autoprune.engine.labels.flow import Flow
from autoprune.engine.tracing.labelled_run import LabelSlot

UNKNOWN = "its weight is computed or used in a way that cannot be followed"


def kernel_names(modules: Mapping[str, nn.Module]) -> set[str]:
    """Names of the kernels of convolutions and of what they are computed from (weight norm, spectral norm)."""
    return {name for path, module in modules.items() if isinstance(module, _ConvNd) for name in _matrices(path, module)}


def freeze_unknown_filters(
    flow: Flow, modules: Mapping[str, nn.Module], read: Mapping[str, bool], slots: Sequence[LabelSlot]
) -> None:
    """Filters of layers that are read, but not as filters, must stay, under the layer's name and for a reason.

    Without that they would be in no group, and nothing would say why their layer is not pruned.
    """
    met = [labels.ravel() for labels, role in flow.evidence.roles if role == "out"]
    known = np.zeros(flow.labels.count, dtype=bool)
    known[np.concatenate([*met, np.zeros(0, dtype=np.int64)])] = True
    by_place = {(slot.tensor, slot.dim): slot for slot in slots}
    for path, module in modules.items():
        if isinstance(module, (_ConvNd, nn.Linear)):
            transposed = isinstance(module, _ConvNd) and module.transposed
            own = [by_place.get((name, int(transposed))) for name in _matrices(path, module) if read.get(name)]
            filters = [np.arange(slot.first, slot.first + slot.size) for slot in own if slot is not None]
            if filters and not any(known[labels].any() for labels in filters):
                flow.note_role(filters[0], "out")
                flow.ties.freeze(filters[0], f"{UNKNOWN} in {path}" if path else UNKNOWN)


def _matrices(path: str, module: _ConvNd | nn.Linear) -> Iterator[str]:
    """Names of the parameters that have as many dimensions as the layer's weight."""
    dims = 2 + len(module.kernel_size) if isinstance(module, _ConvNd) else 2
    held: Iterator[tuple[str, Tensor | None]] = (
        module.named_parameters() if is_parametrized(module) else iter(module._parameters.items())
    )
    return (f"{path}.{name}".lstrip(".") for name, p in held if p is not None and p.dim() == dims)
