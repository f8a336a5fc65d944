"""Object detection with Ultralytics' networks, data, augmentation and losses; their precision by torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import InputError, check_name, first_line
from autoprune.schema import expect_mapping, read, to_plain
from autoprune.tasks.dense_model import outputs_for_two_images, read_dense_model
from autoprune.tasks.detection.metric import FOUND, METRICS, require_counter
from autoprune.tasks.detection.task import BoxTask
from autoprune.tasks.ultralytics.data import LetterboxedImages, YoloDataSpec, load_data
from autoprune.tasks.ultralytics.library import require_ultralytics
from autoprune.tasks.ultralytics.networks import Architecture, Detector, build_network, fill, read_architecture
from autoprune.training.protocols import Batch, Forward

#: Their hyper-parameters that mean something here: of augmentation, and the gains of the losses.
HYPER_PARAMETERS = (
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr"),
    *("mosaic", "mixup", "cutmix", "box", "cls", "dfl"),
)

#: As their validation sifts boxes: least score, largest overlap, most boxes of an image.
SIFTING = {"conf_thres": 0.001, "iou_thres": 0.7, "max_det": 300, "multi_label": True}


@dataclass(frozen=True, kw_only=True)
class YoloDetection(BoxTask):
    """A detection network of Ultralytics, see `Detector`, and images with boxes; the label of the first class is 0.

    Fields:
        channels: of an image.
        architecture: what the network's YAML file says.
        settings: theirs, by name; the losses read their gains.
    """

    train: LetterboxedImages
    validation: LetterboxedImages
    test: LetterboxedImages | None
    images_per_pass: int = 16
    channels: int
    architecture: Architecture
    settings: Any

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        return self.dense.build(lambda: Detector(self._network()), seed)

    def model(self) -> nn.Module:
        """See `Task.model`."""
        outputs_for_two_images(self.build(), self.example(), self.dense.where)
        spec = self.dense.spec
        if spec.checkpoint or spec.train or not str(spec.name).endswith(".pt"):
            return self.dense.trained(self, lambda: [self.train.fingerprint(), vars(self.settings)])
        network = self._network()
        fill(network, str(spec.name), self.dense.where)
        return Detector(network).eval()

    def predict(self, model: Forward, batch: Batch) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels, image by image, after non-maximum suppression with `SIFTING`."""
        from ultralytics.utils.nms import non_max_suppression

        images, _targets = batch
        # after some seconds it would go on without the boxes of the images that are left
        found = non_max_suppression(model(images), nc=len(self.classes), max_time_img=math.inf, **SIFTING)
        return [dict(zip(FOUND, (one[:, :4], one[:, 4], one[:, 5].long()), strict=True)) for one in found]

    def example(self) -> tuple[Tensor]:
        """The first training image without augmentation, (1, C, size, size); see `Task.example`."""
        images, _targets = next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1))
        return (images,)

    def input_facts(self) -> dict[str, Any]:
        """Scale of the pixels, order of the channels and how images are fitted in; see `Task.input_facts`."""
        return {"scale": 255.0, "channels": "RGB", "letterboxed": True}

    def _network(self) -> nn.Module:
        return build_network(self.architecture, self.channels, self.classes, self.settings, self.dense.where)


def load(spec: Mapping[str, Any], where: str) -> YoloDetection:
    """Read a task of Ultralytics; see `load_task`.

    `model` has a name, the YAML file of an architecture, and `train` or a checkpoint as other tasks take it; or a
    checkpoint of theirs, a file that ends in .pt, alone. `hyp` has some of `HYPER_PARAMETERS`, by default as theirs but
    for `mosaic`, which is 0: they stop it some epochs before the end, as its images are none that a network will see,
    and a split does not know how far a training is.

    Raises:
        InputError: a key or value is wrong, or a package is missing. DataError: the data are missing or malformed.
        ModelError: there is no such network or checkpoint, or it is of no detector.
    """
    for key in spec:
        check_name(key, ("kind", "data", "model", "metric", "hyp"), kind="key", where=where)
    metric = check_name(spec.get("metric", "map"), METRICS, kind="metric", where=f"{where}.metric")
    require_ultralytics(where)
    require_counter(where)
    model = dict(expect_mapping(spec.get("model"), f"{where}.model"))
    for key in model:
        check_name(key, ("name", "checkpoint", "train"), kind="key", where=f"{where}.model")
    if "name" not in model and str(model.get("checkpoint")).endswith(".pt"):
        model["name"] = model.pop("checkpoint")
    dense = read_dense_model(model, f"{where}.model", read_architecture)
    data = read(YoloDataSpec, expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    settings = _read_settings(expect_mapping(spec.get("hyp", {}), f"{where}.hyp"), data.size, f"{where}.hyp")
    found = load_data(data, settings, f"{where}.data")
    return YoloDetection(
        spec=to_plain(spec),
        classes=found.classes,
        metric_name=metric,
        dense=dense,
        channels=found.channels,
        architecture=read_architecture(str(dense.spec.name), f"{where}.model"),
        settings=settings,
        **found.splits,  # type: ignore[arg-type]
    )


def _read_settings(given: Mapping[str, Any], size: int, where: str) -> Any:
    from ultralytics.cfg import get_cfg

    for name in given:
        check_name(name, HYPER_PARAMETERS, kind="hyper-parameter", where=where)
    try:
        settings = get_cfg(overrides={"imgsz": size, "mosaic": 0.0, **given})
    except (TypeError, ValueError) as error:
        raise InputError(first_line(error), where=where) from error
    settings.augmentations = []  # else images depend on whether albumentations is installed, and on its random numbers
    return settings
