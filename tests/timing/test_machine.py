"""The name of a machine is that of its kind."""

from __future__ import annotations

import pytest
import torch

from autoprune.timing.machine import machine_name, processor_name


def test_a_cpu_has_the_name_of_its_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_name("cpu") == processor_name() != ""

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card of {device}")
    assert machine_name("cuda:1") == "card of cuda:1"
