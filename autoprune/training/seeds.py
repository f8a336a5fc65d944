"""Random streams that depend on numbers alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def random_stream(*words: int) -> torch.Generator:
    """A CPU generator whose stream depends on all the numbers; near numbers give unrelated streams."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1)


@contextlib.contextmanager
def drawing_from(stream: torch.Generator) -> Iterator[None]:
    """Within it torch's default generator on the CPU goes on with this stream; afterwards it is as it was."""
    before = torch.get_rng_state()
    torch.set_rng_state(stream.get_state())
    try:
        yield
    finally:
        stream.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


@contextlib.contextmanager
def seeded_randomness(seed: int, device: str) -> Iterator[None]:
    """Within it torch's default generators draw from this seed; afterwards they are as they were."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
