"""Fake quantisers of quantisation-aware training: entry by entry, with scales per tensor or per channel."""

from __future__ import annotations

from torch import Tensor

from autoprune.engine.labels.blocks import Block
from autoprune.engine.labels.flow import Call, Flow
from autoprune.engine.rules.registry import register


@register("_fused_moving_avg_obs_fq_helper", "fused_moving_avg_obs_fake_quant")
def observe_and_quantise(flow: Flow, call: Call) -> None:
    """Ranges are observed, scales follow from them, entries are rounded: ranges and scales belong to the channels."""
    per_channel = call.arg(11, "per_row_fake_quant", False)
    _quantise(flow, call, list(call.args[3:7]) if per_channel else [], call.args[10])


@register("fake_quantize_per_channel_affine_cachemask", "fake_quantize_per_channel_affine")
def quantise_channels(flow: Flow, call: Call) -> None:
    """Entries are rounded by scales and zero points per channel."""
    _quantise(flow, call, list(call.args[1:3]), call.args[3])


@register(
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_tensor_affine",
)  # fmt: skip
def quantise_tensor(flow: Flow, call: Call) -> None:
    """Entries are rounded by one scale for all."""
    _quantise(flow, call, [], 0)


def _quantise(flow: Flow, call: Call, vectors: list[Tensor], axis: int) -> None:
    source = call.args[0]
    own: list[Block] = [((axis % source.dim(),), labels) for vector in vectors for _, labels in flow.get(vector)]
    merged = flow.merge([*flow.get(source), *own], source.shape, "quantised by fixed scales")
    for out in call.out if isinstance(call.out, (tuple, list)) else [call.out]:
        flow.set(out, merged)
