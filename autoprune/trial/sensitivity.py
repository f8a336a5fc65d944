"""Which groups the loss misses: each one's weaker half is silenced, one group at a time, without training.

Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.2: sensitivity of single layers, by l1. They
plot accuracy over several ratios and choose per layer by hand. Here it is one number, the rise of the loss at one
ratio, which is finer on few images than an accuracy; and what is silenced are coupled channels: a residual stream
loses them in all layers that write to it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from autoprune.engine.graph import Floats, Group
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import silence
from autoprune.methods import Context
from autoprune.methods.magnitude import L1
from autoprune.training.batch_structure import images_in
from autoprune.training.protocols import Batch

#: Training images, as they are. Two draws of 512 order ResNet-20's groups alike (correlation of the feature: 0.99).
IMAGES = 512


def loss_rises(context: Context) -> dict[str, float]:
    """Prunable group id -> mean loss with the half of its units that has the smallest l1 silenced, minus that without.

    One pass over `IMAGES` images per group, and one more.
    """
    batches, scores = list(context.batches(IMAGES)), L1().score(context)
    whole = _mean_loss(context, context.model, batches)

    def rise(group: Group) -> float:
        silenced = silence(context.model, context.graph, _stronger_half(group, scores[group.id]))
        return _mean_loss(context, silenced, batches) - whole

    return {group.id: rise(group) for group in context.graph.prunable}


def _stronger_half(group: Group, scores: Floats) -> Keep:
    """What stays of one group."""
    order = np.argsort(scores, kind="stable")
    return Keep.of({group.id: order[group.size // 2 :].tolist()})


@torch.inference_mode()
def _mean_loss(context: Context, model: nn.Module, batches: Iterable[Batch]) -> float:
    """Mean over images; the model is in eval mode."""
    losses = [(context.loss(model, batch).item(), images_in(batch)) for batch in batches]
    return sum(loss * images for loss, images in losses) / sum(images for _, images in losses)
