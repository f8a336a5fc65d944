"""Batch norms of several processes: each normalises by the moments of the batch that all have together."""

import pytest
import ranks
import torch
from torch import nn

from autoprune.training.processes import ALONE, Processes
from autoprune.training.shared_norms import shared_norms


class Normed(nn.Module):
    """Batch norms of maps and of rows, one without weights and one without running statistics."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7, momentum=0.3), nn.BatchNorm2d(7, affine=False)
        )
        self.rows = nn.Sequential(nn.Linear(7, 5, bias=False), nn.BatchNorm1d(5, track_running_stats=False))

    def forward(self, x):
        return self.rows(self.maps(x).mean((2, 3)))


def normed(processes: Processes, precision: str) -> dict:
    """Outputs, gradients and running statistics of a training pass over eleven images, as lists."""
    torch.manual_seed(7)
    net, images, weights = Normed().train(), torch.randn(11, 3, 9, 9), torch.randn(11, 5)
    own = processes.part_of(images).clone().requires_grad_()
    with shared_norms(processes), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        outputs = net(own)
    (outputs.float() * processes.part_of(weights)).sum().backward()
    processes.add_up_all([parameter.grad for parameter in net.parameters()])
    return {
        "outputs": torch.cat(processes.gather(outputs.detach().float().flatten())).tolist(),
        "inputs": torch.cat(processes.gather(own.grad.flatten())).tolist(),
        **{name: parameter.grad.flatten().tolist() for name, parameter in net.named_parameters()},
        **{name: buffer.float().flatten().tolist() for name, buffer in net.named_buffers()},
    }


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-4), ("bf16", 0.03)])
def test_batch_norms_normalise_by_the_batch_of_all_processes(tmp_path, precision, close):
    """Two processes, five and six images: each has outputs and gradients as in a batch of eleven."""
    alone = normed(ALONE, precision)
    for found in ranks.in_processes(2, tmp_path, normed, precision):
        assert found.keys() == alone.keys()
        for name in alone:
            largest = max(map(abs, alone[name]), default=0.0)
            assert found[name] == pytest.approx(alone[name], abs=close * largest + 1e-5), name
