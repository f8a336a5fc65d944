"""Distillation: a teacher whose outputs are cached, and the loss of image classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.training.captured import CaptureError, Replayed
from autoprune.training.protocols import Batch, TrainingTask
from autoprune.training.runtime import Runtime


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(logits / T)), mean over the batch (Hinton et al. 2015, section 2)."""
    student, teacher = (F.log_softmax(values.float() / temperature, 1) for values in (logits, taught))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class Teacher:
    """A model to distil from. It computes its outputs for every batch once: order and augmentation are functions of
    seed and step alone, so trials that share seed and batch size see the same batches, however many.

    Without this the dense ResNet-20's forward pass is 40 % of a step at half the FLOPs and more below.

    Args:
        model: in eval mode from here on; its outputs are never differentiated.
        memory: bytes of cached outputs; beyond, they are computed again.
    """

    def __init__(self, model: nn.Module, memory: int = 2**28) -> None:
        self.model, self.left = model.eval(), memory
        self._cached: dict[tuple[int, ...], Any] = {}
        self._graph: Replayed | None = None
        self._captures = True

    def outputs_for(self, batch: Batch, number: tuple[int, ...], task: TrainingTask, runtime: Runtime) -> Any:
        """What the teacher gives for `batch`, which `number` identifies among all batches of the task."""
        if number in self._cached:
            return self._cached[number]
        outputs = self._outputs(batch, task, runtime)
        size = sum(leaf.nbytes for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))
        if size <= self.left:
            self.left -= size
            self._cached[number] = outputs
        return outputs

    def _outputs(self, batch: Batch, task: TrainingTask, runtime: Runtime) -> Any:
        forward = runtime.forward_of(runtime.place(self.model))

        def predict(batch: Batch) -> Any:
            with torch.no_grad():
                return task.predict(forward, batch)

        graph = self._captured(predict, batch, runtime) if runtime.graphs and self._captures else None
        if graph is None or not graph.takes((batch,)):
            return predict(batch)
        return tree_map_only(Tensor, Tensor.clone, graph(batch))

    def _captured(self, predict: Callable[[Batch], Any], batch: Batch, runtime: Runtime) -> Replayed | None:
        """The graph of its first batch; None = it cannot be captured, which its student's training then says too."""
        if self._graph is None:
            try:
                self._graph = Replayed(predict, (batch,), runtime.device)
            except CaptureError:
                self._captures = False
        return self._graph
