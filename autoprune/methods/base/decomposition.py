"""The readers of a layer pair as a product of two matrices: what they need of the channels that they read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.methods.base.layer_pairs import LayerPair

#: The ridge of the least squares, as a share of the mean power of a kept channel.
RIDGE = 1e-4


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Q and R of all readers of a pair side by side: readers' weights as rows per unit are about Q @ R; float64, CPU.

    Fields: `mix` Q (units, d); `loadings` R (d, columns); `power` E[y_i^2] (units,).
    """

    mix: Tensor
    loadings: Tensor
    power: Tensor

    @classmethod
    def of(cls, model: nn.Module, pair: LayerPair, moment: Tensor, eps: float, basis: str) -> Decomposition:
        """Q = M X and R = X^T, with X the leading right singular vectors of M or of E[y y^T]^(1/2) M.

        Args:
            model: that has the pair.
            pair: whose readers are decomposed.
            moment: E[y y^T] of what they read, see `layer_pairs.second_moments`.
            eps: share of the energy of the readers that is left out.
            basis: energy of `responses` to the images, or of `weights` as they are.
        """
        matrix = readers_matrix(model, pair)
        _, values, right = torch.linalg.svd(weighed_by_responses(matrix, moment, basis), full_matrices=False)
        loadings = right[: capacity(values, eps)]
        return cls(matrix @ loadings.T, loadings, moment.diagonal())

    @property
    def rank(self) -> int:
        """d."""
        return self.mix.shape[1]

    def scores(self) -> np.ndarray:
        """||row i of Q||_2 sqrt(E[y_i^2])."""
        return (self.mix.norm(dim=1) * self.power.clamp_min(0).sqrt()).numpy()


def spectrum(model: nn.Module, pair: LayerPair, moment: Tensor, basis: str) -> Tensor:
    """The singular values that say how much of the readers a rank leaves out, descending."""
    return torch.linalg.svdvals(weighed_by_responses(readers_matrix(model, pair), moment, basis))


def readers_matrix(model: nn.Module, pair: LayerPair) -> Tensor:
    """M: the readers' weights side by side, (units, columns), float64, on the CPU."""
    return torch.cat([r.rows(model.get_parameter(r.weight).detach()).double().cpu() for r in pair.readers], 1)


def weighed_by_responses(matrix: Tensor, moment: Tensor, basis: str) -> Tensor:
    """The matrix that has the singular values that count: E[y y^T]^(1/2) M, or M if the basis is `weights`."""
    return root(lifted(moment)) @ matrix if basis == "responses" else matrix


def lifted(moment: Tensor) -> Tensor:
    """E[y y^T] plus a ridge: what the images do not show counts for little, not for nothing."""
    ridge = RIDGE * moment.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return moment + ridge * torch.eye(len(moment), dtype=moment.dtype)


def root(moment: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(moment)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def capacity(values: Tensor, eps: float) -> int:
    """The smallest rank, at least 1, that leaves out no more than `eps` of the energy; singular values descend."""
    energy = values.square()
    left_out = energy.flip(0).cumsum(0).flip(0)  # by ranks 0, 1, ...
    return max(1, int((left_out > eps * energy.sum()).sum()))
