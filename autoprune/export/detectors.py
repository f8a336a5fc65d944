"""Detectors as ONNX: one image of any size in, its boxes, scores and labels out.

How many boxes there are depends on the image. torch.export refuses code that decides by such a number (torchvision's
`batched_nms` does), so there is no exported program, and ONNX is written by torch's older exporter, which records what
one image does: torchvision's detectors are made for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ExportError, first_line
from autoprune.files import file_trouble
from autoprune.timing.muted import exporters_muted

INPUT, OUTPUTS = "image", ("boxes", "scores", "labels")

NO_PROGRAM = "torch.export records no detector: how many boxes it finds depends on the image"

#: Share of the detections that a file need not find: where scores tie, suppression keeps one of two boxes.
TIED = 0.02

#: Scores so near to the lowest that was kept fall out, or come in, by rounding.
BORDER = 1e-3

Found = dict[str, Tensor]
Detector = Callable[[list[Tensor]], list[Found]]


def takes_images(example: tuple[Any, ...]) -> bool:
    """Whether a model takes a list of images, as torchvision's detectors do; see `Task.example`."""
    return len(example) == 1 and isinstance(example[0], list)


def write_onnx(model: nn.Module, example: tuple[list[Tensor]], path: Path) -> None:
    """Write the detector for one image, (C, height, width).

    Raises:
        ExportError: torch cannot, or the detector finds nothing that a file could be held to.
    """
    with torch.inference_mode():
        if not any(len(model([image])[0]["scores"]) for image in _compared_images(example)):
            reason = "the detector finds nothing in its example image, so that a file could not be compared with it"
            raise ExportError(reason, where=path.name)
    try:
        with exporters_muted(), torch.inference_mode():
            torch.onnx.export(
                _OneImage(model).eval(),
                (example[0][0],),
                str(path),
                dynamo=False,
                opset_version=17,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_axes={INPUT: {1: "height", 2: "width"}, **{name: {0: "found"} for name in OUTPUTS}},
            )
    except Exception as error:  # the exporter raises many unrelated types
        path.unlink(missing_ok=True)
        if file_trouble(error) is not None:
            raise
        raise ExportError(f"torch.onnx: {first_line(error, 200)}", where=path.name) from error


def onnx_detector(session: Any) -> Detector:
    """An onnxruntime session of such a file, called as the model is."""

    def find(images: list[Tensor]) -> list[Found]:
        found = [session.run(list(OUTPUTS), {INPUT: image.contiguous().numpy()}) for image in images]
        return [dict(zip(OUTPUTS, map(torch.from_numpy, values), strict=True)) for values in found]

    return find


def worst_error(run: Detector, model: Detector, example: tuple[list[Tensor]]) -> float:
    """Largest difference of a file's detections from the model's, on three images, one of which has another size.

    See `detections_apart`.
    """
    with torch.inference_mode():
        pairs = [(run([image])[0], model([image])[0], max(image.shape)) for image in _compared_images(example)]
    return max(detections_apart(found, expected, side) for found, expected, side in pairs)


def _compared_images(example: tuple[list[Tensor]]) -> list[Tensor]:
    """The example, a darker one that is shifted, and the upper three quarters of it."""
    image = example[0][0]
    return [image, image.roll(3, dims=-1) * 0.8, image[:, : max(1, 3 * image.shape[1] // 4)]]


def detections_apart(found: Found, expected: Found, side: int) -> float:
    """How far detections are from those expected, in scores and in corners as shares of an image's longer side.

    Their order does not count. Each that is expected, but for the share `TIED` that fits worst, is compared with the
    nearest that was found of its label, and the other way round; those at the `BORDER` of being kept are not missed.
    """
    ranked = [one["scores"].float().sort(descending=True).values for one in (found, expected)]
    common = min(map(len, ranked))
    missed = map(_missing(side), (expected, found), (found, expected))
    apart = [(ranked[0][:common] - ranked[1][:common]).abs(), *missed]
    worst = torch.stack([errors.max() if len(errors) else torch.zeros(()) for errors in apart]).max()
    return float(worst) if torch.isfinite(worst) else float("inf")


def _missing(side: int) -> Callable[[Found, Found], Tensor]:
    """A function of wanted and given: how far each detection that is wanted is from the nearest given one."""

    def errors(wanted: Found, given: Found) -> Tensor:
        scores = wanted["scores"].float()
        needed = scores > (scores.min() if len(scores) else 0) + BORDER
        if not needed.any():
            return scores.new_zeros(0)
        corners = torch.cdist(wanted["boxes"].float()[needed], given["boxes"].float(), float("inf")) / side
        apart = torch.maximum(corners, (scores[needed][:, None] - given["scores"].float()).abs())
        other = wanted["labels"][needed][:, None] != given["labels"]
        nearest = torch.cat([apart.masked_fill(other, 1.0), apart.new_ones(len(apart), 1)], 1).min(1).values
        return nearest.sort().values[: len(nearest) - int(TIED * len(nearest))]

    return errors


class _OneImage(nn.Module):
    """A detector of one image, whose results are tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.model([image])
        return tuple(found[name] for name in OUTPUTS)
