"""How many ranks the readers of a layer need."""

from __future__ import annotations

import torch

from autoprune.methods.base.decomposition import capacity


def test_capacity_is_the_smallest_rank_that_leaves_out_no_more() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 1.0]).double()  # energies 9, 4, 1, 1 of 15

    assert [capacity(values, eps) for eps in (0.0, 0.9 / 15, 1.1 / 15, 2.1 / 15, 0.39, 0.41)] == [4, 4, 3, 2, 2, 1]
    assert capacity(torch.tensor([3.0, 0.0]), 0.0) == 1
