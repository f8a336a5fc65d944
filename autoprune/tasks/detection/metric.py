"""Mean average precision by torchmetrics, counted by faster-coco-eval."""

from __future__ import annotations

import importlib.util
from typing import Any

from torch import Tensor

from autoprune.errors import InputError
from autoprune.study.metric import MetricSpec
from autoprune.tasks.metrics import alone_when_computed
from autoprune.training.batch_structure import moved
from autoprune.training.protocols import Batch

METRICS = {
    "map": MetricSpec(name="mAP", unit="%"),  # mean over IoU 0.50, 0.55, ..., 0.95, as COCO does
    "map_50": MetricSpec(name="mAP50", unit="%"),
    "map_75": MetricSpec(name="mAP75", unit="%"),
}


def require_counter(where: str) -> None:
    """Raise `InputError` unless the package of the `detection` extra is installed."""
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise InputError("faster-coco-eval not installed; run: pip install 'autoprune[detection]'", where=where)


class MeanAveragePrecision:
    """One of `METRICS`, from at most 100 detections per image, as COCO counts."""

    def __init__(self, name: str) -> None:
        from torchmetrics.detection import MeanAveragePrecision as Counter  # takes seconds to import

        self._name = name
        self._counter: Any = alone_when_computed(Counter(backend="faster_coco_eval"))
        self._counter.warn_on_many_detections = False  # more than 100 are COCO's own definition, not a surprise

    def update(self, outputs: list[dict[str, Tensor]], batch: Batch) -> None:
        """Note the detections of a batch and what was to be found."""
        _images, targets = batch
        found = [{name: one[name].float() if name != "labels" else one[name] for name in FOUND} for one in outputs]
        self._counter.update(moved(found, "cpu"), moved(targets, "cpu"))

    def value(self) -> float:
        """The metric in [0, 1]."""
        return max(0.0, float(self._counter.compute()[self._name]))


#: What a detector says of each object that it finds.
FOUND = ("boxes", "scores", "labels")
