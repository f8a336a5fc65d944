"""A GPU that fails a small computation is broken; one that is full is not. The GPU is a fake."""

from __future__ import annotations

import pytest
import torch

from autoprune.training.gpu_faults import gpu_fault


@pytest.mark.parametrize(
    ("raised", "fault"),
    [
        (None, ""),
        (torch.OutOfMemoryError("CUDA out of memory"), ""),
        (
            RuntimeError("CUDA error: unspecified launch failure\nCompile with ..."),
            "CUDA error: unspecified launch failure",
        ),
    ],
)
def test_a_gpu_is_broken_if_it_computes_nothing_any_more(monkeypatch, raised, fault) -> None:
    ones = torch.ones

    def on_gpu(*shape, device):
        assert device == "cuda"
        if raised is not None:
            raise raised
        return ones(*shape)

    monkeypatch.setattr(torch, "ones", on_gpu)

    assert gpu_fault() == fault
