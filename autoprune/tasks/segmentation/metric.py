"""What segmentation networks are judged by: mean IoU or mean Dice over all pixels of a split, by torchmetrics."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autoprune.study.metric import MetricSpec
from autoprune.tasks.metrics import alone_when_computed, merge_counted
from autoprune.tasks.segmentation.files import IGNORED
from autoprune.training.processes import Processes
from autoprune.training.protocols import Batch

METRICS = {"miou": MetricSpec(name="mIoU", unit="%"), "dice": MetricSpec(name="Dice", unit="%")}


class PixelMetric:
    """One of `METRICS`, mean over the classes that masks or outputs hold, each from its pixels in all images."""

    def __init__(self, name: str, classes: int) -> None:
        self._metric: Any = alone_when_computed(_BY_NAME[name](classes))

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Count the pixels of a batch: logits (N, classes, H, W) against its masks."""
        _images, masks = batch
        self._metric = self._metric.to(masks.device)
        self._metric.update(outputs.argmax(1), masks)

    def share(self, processes: Processes) -> None:
        """See `SharedMetric.share`."""
        merge_counted(self._metric, processes)

    def value(self) -> float:
        """The mean over the classes, in [0, 1]."""
        return float(self._metric.compute())


def _mean_iou(classes: int) -> Any:
    from torchmetrics.classification import MulticlassJaccardIndex  # takes seconds to import

    return MulticlassJaccardIndex(classes, ignore_index=IGNORED, validate_args=False)


def _mean_dice(classes: int) -> Any:
    """The F1 score of a class over all pixels is its Dice: both are 2 TP / (2 TP + FP + FN)."""
    from torchmetrics.classification import MulticlassF1Score

    return MulticlassF1Score(classes, ignore_index=IGNORED, validate_args=False)


_BY_NAME = {"miou": _mean_iou, "dice": _mean_dice}
