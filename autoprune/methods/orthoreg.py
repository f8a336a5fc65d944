"""OrthoReg: filters are trained to be orthonormal, so that the importance of several is the sum of theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from autoprune.errors import InputError
from autoprune.methods.base.method import Context, Scores, Selection, Stage, per_group
from autoprune.methods.base.staged import Staged
from autoprune.methods.base.units import in_scope, is_depthwise
from autoprune.methods.taylor import loss_change_without
from autoprune.recipe import Allocation, Target, Training
from autoprune.schema import within
from autoprune.training.batch_structure import images_in


@dataclass(frozen=True, kw_only=True)
class OrthoReg(Staged):
    """Squared first-order change of the mean loss, after training with a penalty on filters that are not orthonormal.

    The loss gains strength * sum over layers of w * ||G - I||_1 (sum of absolute entries). G is the Gram matrix of a
    convolution's filters, or of its inputs if these are fewer, w is proportional to the square root of its side and
    sums to 1. There is no weight decay while the penalty is on. A unit scores (sum of weight * gradient)^2 over its
    filters, normalisation excluded, with the gradient of the mean loss; filters that are coupled go together, so theirs
    are added before they are squared.

    With several rounds the model is cut after each; a round after the first begins with plain training. We deviate
    from the authors' code in three ways. It cuts the same share of *filters* over the rounds, here the share of the
    cost follows its schedule. Its ResNets keep the streams between blocks, which here is `scope` faithful. Its learning
    rate falls in steps and starts anew with every penalty: the recipe's schedule would leave nothing for a penalty at
    the end of a stage, so with several rounds the rate is constant.

    Early-Bird tickets are a recipe with `weights: scratch`, one round and 25 / 165 as `share`.

    Fields:
        strength: weight of the penalty in the loss; the authors' code has 1e-2, for MobileNet 1e-3.
        share: share of the training images spent before the last cut.
        rounds: cuts.
        recover: share of a round after the first that is plain training, with the recipe's weight decay.
        images: training images the gradient is averaged over.
        scope: which groups are pruned: `faithful` = channels that one layer alone makes, `coupled` = all.
    """

    name: ClassVar[str] = "orthoreg"
    source: ClassVar[str] = (
        "Lubana et al., OrthoReg: Robust Network Pruning Using Orthonormality Regularization, arXiv 2009.05014"
    )
    summary: ClassVar[str] = "squared change of the loss when a filter goes, after training filters to be orthonormal"
    stage_aims: ClassVar[bool] = False

    share: float = field(default=0.4, metadata=within(0.05, 0.95, search=(0.1, 0.8)))
    strength: float = field(default=1e-2, metadata=within(1e-5, 1e-1, log=True))
    rounds: int = field(default=1, metadata=within(1, 5))
    recover: float = field(default=0.75, metadata=within(0, 0.95, search=(0.5, 0.9)))
    images: int = field(default=1024, metadata=within(128, 20_000, log=True, search=(1024, 20_000)))

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """As many as there are rounds, equally long."""
        return (self.share / self.rounds,) * self.rounds

    def left_after(self, ratio: float, cut: int) -> float:
        """n f / (n f + j (1 - f)) after cut j of n, f the ratio after the last: 1 / left grows by the same each time.

        Cut j takes the share p / (j p + n (1 - p)) of what is left, p = 1 - f: the authors' schedule.
        """
        kept = self.rounds * ratio
        return kept / (kept + cut * (1 - ratio))

    def stage_training(self, training: Training) -> Training:
        """No weight decay; the learning rate is constant if there are several rounds."""
        schedule = training.schedule if self.rounds == 1 else "constant"
        return replace(super().stage_training(training), weight_decay=0.0, schedule=schedule)

    def sparsify(self, context: Context, stage: Stage) -> Orthonormality:
        """The penalty; after plain training, if the model has been cut before.

        Raises:
            InputError: the model has no convolutions.
        """
        if not _stack_convolutions(context.model):
            raise InputError("method 'orthoreg' needs convolutions", where="method")
        plain = int(self.recover * stage.steps) if stage.round else 0
        return Orthonormality(self.strength, plain=plain, weight_decay=stage.weight_decay)

    def score(self, context: Context) -> Scores:
        """s(u) = (sum over the unit's filters and their biases of weight * gradient of the mean loss)^2."""
        graph = context.graph
        slots = [slot for slot in graph.slots if slot.role in ("out", "bias")]
        seen = 0
        context.model.zero_grad(set_to_none=True)
        for batch in context.batches(self.images):
            count = images_in(batch)
            (context.loss(context.model, batch) * count).backward()
            seen += count
        change = loss_change_without(context.model, graph, slots) / seen
        context.model.zero_grad(set_to_none=True)
        scores = per_group(graph, change**2)
        return {group.id: scores[group.id] for group in in_scope(context.model, graph, self.scope)}

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """By the allocation; notes say how orthogonal the filters were before the cut.

        `off_orthogonality` and `diagonal_share`: see the functions of these names.
        """
        with torch.no_grad():
            notes = {
                "off_orthogonality": float(off_orthogonality(context.model)),
                "diagonal_share": float(diagonal_share(context.model)),
            }
        return replace(super().select(context, scores, target, allocation), notes=notes)


class Orthonormality:
    """The gradient of strength * `off_orthogonality`, after a time without.

    It has no state: its gradients depend on the step and the weights alone.

    Args:
        strength: weight of the penalty in the loss.
        plain: first steps of the stage, without the penalty and with weight decay.
        weight_decay: of those steps, for all parameters, as the optimiser would do it.
    """

    def __init__(self, strength: float, *, plain: int = 0, weight_decay: float = 0.0) -> None:
        self.strength, self.plain, self.weight_decay = strength, plain, weight_decay

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Gradient += weight decay * weight, or += the gradient of the penalty."""
        if step >= self.plain:
            add_penalty_gradient(model, self.strength)
        elif self.weight_decay:
            trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
            gradients = [parameter.grad for parameter in trained]
            torch._foreach_add_(gradients, [parameter.detach() for parameter in trained], alpha=self.weight_decay)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Nothing: the optimiser's step has used the gradient."""

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def off_orthogonality(model: nn.Module) -> Tensor:
    """sum over the convolutions of w * sum |G - I|, a scalar that can be differentiated; 0 = all are orthonormal.

    w = sqrt(d) / sum of sqrt(d), d the side of G. A bias is one more column of the filters. Filters of a grouped
    convolution that see different channels are orthogonal whatever their weights are: G has one block per group.
    Depthwise filters, of which there is one per group, are compared all the same, as the authors do.
    """
    stacks = _stack_convolutions(model)
    return torch.stack([stack.share * _gram_minus_identity(stack.filters()).abs().sum() for stack in stacks]).sum()


def diagonal_share(model: nn.Module) -> Tensor:
    """sum |diagonal of G| / sum |G| over the convolutions, a scalar in (0, 1]; 1 = all filters are orthogonal."""
    grams = [_gram_matrix(stack.filters()) for stack in _stack_convolutions(model)]
    return sum(_gram_diagonal(g).abs().sum() for g in grams) / torch.stack([g.abs().sum() for g in grams]).sum()


@torch.no_grad()
def add_penalty_gradient(model: nn.Module, strength: float) -> None:
    """Gradient += that of strength * `off_orthogonality`: d sum |W W^T - I| / dW = 2 sign(W W^T - I) W."""
    for stack in _stack_convolutions(model):
        filters = stack.filters()
        sign = _gram_minus_identity(filters).sign_()
        pulled = torch.bmm(sign, filters) if _is_wide(filters) else torch.bmm(filters, sign)
        stack.add(pulled.mul_(2 * strength * stack.share))


@dataclass(frozen=True, eq=False)
class _Stack:
    """Convolutions whose filters are matrices of one shape; `share` is the w of each.

    They are handled in one go: the 57 layers of a ResNet-56 have few shapes.
    """

    layers: tuple[_ConvNd, ...]
    share: float

    def filters(self) -> Tensor:
        """(layers * blocks, filters, entries)."""
        return torch.cat([_filter_matrix(layer) for layer in self.layers])

    def add(self, matrices: Tensor) -> None:
        """Gradients += matrices in the order of `filters`."""
        for layer, matrix in zip(self.layers, matrices.chunk(len(self.layers)), strict=True):
            if layer.bias is not None and layer.bias.grad is not None:
                layer.bias.grad.add_(matrix[..., -1].flatten())
            if layer.weight.grad is not None:
                entries = matrix if layer.bias is None else matrix[..., :-1]
                layer.weight.grad.add_(_as_weight(layer, entries))


def _stack_convolutions(model: nn.Module) -> list[_Stack]:
    """All convolutions of the model, a shared weight once."""
    layers = {id(m.weight): m for m in model.modules() if isinstance(m, _ConvNd)}.values()
    alike: dict[tuple[int, int, int], list[_ConvNd]] = {}
    for layer in layers:
        alike.setdefault(_matrix_shape(layer), []).append(layer)
    total = sum(len(same) * _gram_side(shape) ** 0.5 for shape, same in alike.items())
    return [_Stack(tuple(same), _gram_side(shape) ** 0.5 / total) for shape, same in alike.items()]


def _matrix_shape(layer: _ConvNd) -> tuple[int, int, int]:
    """Blocks, filters of a block, entries of a filter."""
    blocks = 1 if is_depthwise(layer) else layer.groups
    inputs = layer.in_channels // layer.groups
    return blocks, layer.out_channels // blocks, inputs * math.prod(layer.kernel_size) + (layer.bias is not None)


def _gram_side(shape: tuple[int, int, int]) -> int:
    """Side of the Gram matrix, all blocks."""
    return shape[0] * min(shape[1:])


def _filter_matrix(layer: _ConvNd) -> Tensor:
    """Weights and bias, shape `_matrix_shape`."""
    blocks, filters, _ = _matrix_shape(layer)
    weight = layer.weight
    if layer.transposed:  # (inputs, outputs per group, *kernel)
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2)
    weight = weight.reshape(blocks, filters, -1)
    return weight if layer.bias is None else torch.cat([weight, layer.bias.view(blocks, filters, 1)], 2)


def _as_weight(layer: _ConvNd, matrix: Tensor) -> Tensor:
    """The inverse of `_filter_matrix`, bias left out."""
    if not layer.transposed:
        return matrix.reshape(layer.weight.shape)
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    return matrix.reshape(layer.groups, outputs, inputs, -1).transpose(1, 2).reshape(layer.weight.shape)


def _is_wide(filters: Tensor) -> bool:
    return filters.shape[1] <= filters.shape[2]


def _gram_matrix(filters: Tensor) -> Tensor:
    """Of the smaller side, (blocks, side, side)."""
    return torch.bmm(filters, filters.mT) if _is_wide(filters) else torch.bmm(filters.mT, filters)


def _gram_minus_identity(filters: Tensor) -> Tensor:
    """G - I."""
    gram = _gram_matrix(filters)
    _gram_diagonal(gram).sub_(1)
    return gram


def _gram_diagonal(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=1, dim2=2)
