"""Tables of times by width, measured here: what they hold, and that wide layers take longer."""

from __future__ import annotations

import pytest

from autoprune.study.constraints import Latency
from autoprune.timing import width_times
from autoprune.training.runtime import Runtime

LAYERS = (("spatial", 14, 3), ("pointwise", 9, 1), ("depthwise", 14, 3))


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_a_curve_for_each_layer_says_its_size_and_rises(runtime: str) -> None:
    """Of 256 channels a convolution has 256 times the multiplications of 16, a depthwise one 16 times."""
    latency = Latency(runtime=runtime, batch=2, threads=1)
    curves = list(width_times.measure_curves(latency, Runtime(threads=1), widths=(16, 256), layers=LAYERS))

    assert [(curve.kind, curve.positions, curve.area) for curve in curves] == [
        ("spatial", 196, 9),
        ("pointwise", 81, 1),
        ("depthwise", 196, 9),
    ]
    assert {tuple(curve.widths) for curve in curves} == {(16, 256)}
    for curve in curves[:2]:
        assert curve.us["256"] > 4 * curve.us["16"] > 0


def test_the_widths_that_are_measured_tell_blocks_apart() -> None:
    assert {8, 12, 16, 24, 32, 64, 96, 128} <= set(width_times.WIDTHS)
    assert {kind for kind, _, _ in width_times.LAYERS} == {"spatial", "pointwise", "depthwise"}
