"""Whether the GPU of this process can still be used.

After some errors (an access outside its memory, a lost card, the end of a service that shares it) every later call of
a process fails: whatever runs there next would fail for what is none of its doing.
"""

from __future__ import annotations

from autoprune.errors import AutopruneError, first_line


class GpuFaultError(AutopruneError):
    """A GPU that could be used before cannot be used any more by this process."""


class UnusableGpuError(AutopruneError):
    """A GPU cannot be used from the start."""


def gpu_fault() -> str:
    """What is wrong with the current GPU, found by a small computation; empty if it works, though it may be full."""
    import torch  # not above: workers read how many threads it may have before it comes

    try:
        torch.ones(1, device="cuda").add(1).item()
    except torch.OutOfMemoryError:
        return ""
    except RuntimeError as error:
        return first_line(error)
    return ""
