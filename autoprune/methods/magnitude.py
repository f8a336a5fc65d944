"""Data-free scores: norms of filters, distance to the geometric median, and chance."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from autoprune.methods.base.method import Context, Method, Scores, sum_over_slots


@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """Independent uniform scores: the control that every criterion has to beat."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "control"
    summary: ClassVar[str] = "uniform random scores, a function of the seed"

    def score(self, context: Context) -> Scores:
        """Scores from a generator seeded by (recipe seed, group id): adding a group leaves the others' scores alone."""
        return {
            group.id: np.random.default_rng([context.seed, zlib.crc32(group.id.encode())]).random(group.size)
            for group in context.graph.prunable
        }


@dataclass(frozen=True, kw_only=True)
class L1(Method):
    """Sum of absolute filter weights, added up over all filters that a unit couples."""

    name: ClassVar[str] = "l1"
    source: ClassVar[str] = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1"
    summary: ClassVar[str] = "sum of absolute filter weights"

    def score(self, context: Context) -> Scores:
        """s(u) = sum over the unit's filters f of ||f||_1."""
        return sum_over_slots(context.model, context.graph, ("out",), lambda filters: filters.abs().sum(1))


@dataclass(frozen=True, kw_only=True)
class L2(Method):
    """Euclidean filter norm, added up over all filters that a unit couples."""

    name: ClassVar[str] = "l2"
    source: ClassVar[str] = "He et al., Soft Filter Pruning, IJCAI 2018, equation 3 with p = 2"
    summary: ClassVar[str] = "Euclidean norm of filters"

    def score(self, context: Context) -> Scores:
        """s(u) = sum over the unit's filters f of ||f||_2."""
        return sum_over_slots(context.model, context.graph, ("out",), lambda filters: filters.norm(dim=1))


@dataclass(frozen=True, kw_only=True)
class FPGM(Method):
    """Filters close to the geometric median of their layer are replaceable by the others."""

    name: ClassVar[str] = "fpgm"
    source: ClassVar[str] = "He et al., Filter Pruning via Geometric Median, CVPR 2019, equations 4 to 8"
    summary: ClassVar[str] = "sum of distances to all other filters of the layer"

    def score(self, context: Context) -> Scores:
        """s(u) = sum over the unit's filters f of sum over the filters g of the same layer of ||f - g||_2."""
        return sum_over_slots(context.model, context.graph, ("out",), _sum_of_distances)


def _sum_of_distances(filters: Tensor) -> Tensor:
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
