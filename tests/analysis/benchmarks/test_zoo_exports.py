"""A cut model has to export where the dense one does; what neither does is said."""

from __future__ import annotations

from collections.abc import Callable

import nets
import pytest
import torch
from torch import Tensor, nn

from autoprune.analysis.benchmarks import zoo_exports
from autoprune.analysis.benchmarks.zoo_checks import CheckError
from autoprune.analysis.benchmarks.zoo_models import Entry

DENSE = Entry("nets", "Chain", "small", "nets:Chain")


class Pair(nn.Module):
    """Two inputs, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 1)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, list[Tensor]]:
        return {"both": [self.conv(x), self.conv(y).mean()]}


def failing_for(*modules: type[nn.Module]) -> Callable[[nn.Module], float]:
    def error_of(model: nn.Module) -> float:
        if isinstance(model, modules):
            raise TypeError("no such operation\nin a trace of many lines")
        return 1e-6

    return error_of


def test_any_inputs_and_outputs_are_exported_and_compared() -> None:
    inputs = (torch.randn(2, 3, 5, 5), torch.randn(2, 3, 7, 7))

    assert zoo_exports.program_error(Pair().eval(), inputs) < 1e-6


@pytest.mark.slow
def test_a_file_of_onnx_computes_what_the_model_does() -> None:
    inputs = (torch.randn(2, 3, 5, 5), torch.randn(2, 3, 7, 7))

    assert zoo_exports.onnx_error(Pair().eval(), inputs) < 1e-4


def test_what_only_the_cut_model_fails_at_is_a_failure() -> None:
    with pytest.raises(CheckError, match="the dense model exports, the cut one does not: TypeError: no such"):
        zoo_exports.as_dense(failing_for(Pair), Pair(), DENSE)


def test_what_the_dense_model_fails_at_too_is_said() -> None:
    found = zoo_exports.as_dense(failing_for(Pair, nets.Chain), Pair(), DENSE)

    assert found == {"not_dense": "TypeError: no such operation"}


def test_a_file_that_computes_something_else_is_a_failure() -> None:
    assert zoo_exports.as_dense(lambda _: 1e-5, Pair(), DENSE) == {"error": 1e-5}
    with pytest.raises(CheckError, match=r"differs by 1.0e-02, of the dense model by 1.0e-06"):
        zoo_exports.as_dense(lambda model: 1e-2 if isinstance(model, Pair) else 1e-6, Pair(), DENSE)


def test_a_file_that_is_wrong_of_the_dense_model_too_is_said() -> None:
    found = zoo_exports.as_dense(lambda _: 3e-2, Pair(), DENSE)

    assert found == {"not_dense": "what is exported of the dense model differs by 3.0e-02"}
