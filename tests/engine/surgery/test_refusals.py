"""Models that cannot be cut are refused in one line that says what to hand in instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import Chain, image
from torch import nn
from torch.nn.utils import prune as masks

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ModelError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*quantization.*:DeprecationWarning", "ignore::UserWarning:torch.ao"),
]


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 3)).eval()


def with_a_script_inside() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), torch.jit.script(small()))


def masked() -> nn.Module:
    net = Chain()
    masks.l1_unstructured(net.head, "weight", 0.3)
    return net


def exported(module: nn.Module | None = None) -> object:
    return torch.export.export(module or small(), (image(),))


def quantised(*, fused: bool) -> nn.Module:
    """Weights in 8 bits, as `convert` leaves them after calibration; fused, the ReLU is part of the layer before it."""
    quantisation = pytest.importorskip("torch.ao.quantization")
    net = nn.Sequential(quantisation.QuantStub(), *small().children(), quantisation.DeQuantStub()).eval()
    net.qconfig = quantisation.get_default_qconfig("x86")
    net = quantisation.prepare(quantisation.fuse_modules(net, [["1", "2"]]) if fused else net)
    net(image())
    return quantisation.convert(net)


def quantised_as_it_runs() -> nn.Module:
    quantisation = pytest.importorskip("torch.ao.quantization")
    return quantisation.quantize_dynamic(Chain().eval(), {nn.Linear}, dtype=torch.qint8)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "script": (lambda: torch.jit.script(small()), r"^RecursiveScriptModule: a torch.jit script.*the torch.nn.Module"),
    "trace": (lambda: torch.jit.trace(small(), image()), r"^TopLevelTracedModule: a torch.jit script"),
    "script inside": (with_a_script_inside, r"^Sequential.1: a torch.jit script"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyConv2d(7, 3)),
        r"^Sequential.0: a lazy module.*run once on an example input$",
    ),
    "masked": (masked, r"^Chain.head: a weight is masked by torch.nn.utils.prune;.*prune.remove\(module, name\)"),
    "quantised": (
        lambda: quantised(fused=False),
        r"^Sequential.0: a quantised layer, whose weights are packed; allowed: .* before torch.ao.*convert$",
    ),
    "quantised and fused": (lambda: quantised(fused=True), r"^Sequential.0: a quantised layer"),
    "quantised as it runs": (quantised_as_it_runs, r"^Chain.head: a quantised layer"),
    "program": (exported, r"^model: .*ExportedProgram is no module; allowed:.* the one that was exported$"),
    "exported": (lambda: exported().module(), r"^GraphModule: an exported program.*export the pruned model$"),
    "unflattened": (
        lambda: torch.export.unflatten(exported(Chain().eval())),
        r"^UnflattenedModule: an exported program",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_is_refused_with_what_to_do(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        trace(make(), image())


def test_a_script_of_the_traced_model_is_not_returned_as_if_it_were_cut() -> None:
    net = small()
    graph = trace(net, image())

    with pytest.raises(ModelError, match=r"torch\.jit script"):
        prune(torch.jit.script(net), graph, Keep.of({"0": range(3)}))


def test_a_graph_module_that_calls_modules_is_traced_like_what_it_was_made_from() -> None:
    graph = trace(torch.fx.symbolic_trace(small()), image())

    assert {group.id: group.size for group in graph.prunable} == {"0": 7}
