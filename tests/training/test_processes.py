"""What several processes share; `tests/contract/test_stages_of_two_processes.py` runs two of them."""

import torch
from torch import distributed, nn

from autoprune.recipe import Training
from autoprune.training.fit import fit
from autoprune.training.processes import ALONE, Processes
from autoprune.training.runtime import Runtime


def test_a_process_alone_asks_nobody(monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda _: 1 / 0)
    model = nn.Linear(3, 1)
    model(torch.ones(1, 3)).sum().backward()
    ALONE.average_gradients(model)
    ALONE.add_up(total := torch.tensor(7.0))

    assert Processes.current() is ALONE
    assert ALONE.leads
    assert [1.0, 1.0, 1.0] == model.weight.grad[0].tolist()
    assert 7.0 == total.item()


def test_gradients_become_the_mean_over_all_processes(monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.add_(2.0))  # of the two others together
    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    model(torch.tensor([[1.0, 4.0, 7.0]])).sum().backward()
    Processes(rank=1, count=3).average_gradients(model)

    assert [1.0, 2.0, 3.0] == model.weight.grad[0].tolist()
    assert model.bias.grad is None


def test_only_the_first_process_writes_the_checkpoint(digits, small, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    for rank in (1, 0):
        processes, file = Processes(rank=rank, count=2), tmp_path / "stage.pt"
        training = Training(batch_size=64)
        fit(small, digits, training, Runtime(), images=64, seed=0, checkpoint=file, keep_last=True, processes=processes)
        assert file.exists() == (rank == 0)
