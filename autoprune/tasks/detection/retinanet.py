"""A small RetinaNet with a feature pyramid, for images of some 64 pixels; torchvision's in all but its backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork

from autoprune.errors import ModelError
from autoprune.tasks.zoo import BasicBlock


class PyramidBackbone(nn.Module):
    """Residual stages at a quarter, an eighth, ... of the size of an image, and a feature pyramid on top of them.

    Args:
        channels: of an image.
        widths: of the stages.
        pyramid: channels of each map of the pyramid.
    """

    def __init__(self, channels: int, widths: Sequence[int], pyramid: int) -> None:
        super().__init__()
        stem = nn.Conv2d(channels, widths[0], 3, 2, 1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        pairs = pairwise((widths[0], *widths))
        self.stages = nn.ModuleList(BasicBlock(c_in, c_out, 2, option="B") for c_in, c_out in pairs)
        self.pyramid = FeaturePyramidNetwork(list(widths), pyramid, norm_layer=nn.BatchNorm2d)
        self.out_channels = pyramid  # where torchvision's heads look for it

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, channels, H, W) -> maps (N, pyramid, H / 4, W / 4), (N, pyramid, H / 8, W / 8), ... by name."""
        x, maps = self.stem(x), OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            maps[str(number)] = x
        found: dict[str, Tensor] = self.pyramid(maps)
        return found


def small_retinanet(
    shape: Sequence[int],
    classes: int,
    *,
    widths: Sequence[int] = (32, 64, 128),
    pyramid: int = 32,
    depth: int = 2,
    anchors: Sequence[float] = (12.0, 18.0, 26.0),
    ratios: Sequence[float] = (1.0, 1.5, 2.5),
    scale: float = 1.0,
    score_thresh: float = 0.05,
    nms_thresh: float = 0.5,
    detections_per_img: int = 100,
) -> RetinaNet:
    """The network for images of `shape` (C, H, W); others are scaled to that.

    Args:
        classes: the background counts as one.
        widths, pyramid: see `PyramidBackbone`.
        depth: 3x3 convolutions of each head before its last, 0 to 4; torchvision's has 4.
        anchors: side of the square anchors of each stage's map, in pixels.
        ratios: height to width of the anchors at each place.
        scale: of the images before anything else; anchors are in pixels of the scaled images.
        score_thresh, nms_thresh, detections_per_img: of torchvision's RetinaNet.

    Raises:
        ModelError: there is not one anchor per stage.
    """
    if not widths or len(anchors) != len(widths):
        found = f"{len(anchors)} anchors for {len(widths)} stages"
        raise ModelError(found, where="small_retinanet", allowed="one per stage, and at least one stage")
    generator = AnchorGenerator(tuple((side,) for side in anchors), (tuple(ratios),) * len(anchors))
    return RetinaNet(
        PyramidBackbone(shape[0], widths, pyramid),
        classes,
        anchor_generator=generator,
        head=_shallow_head(pyramid, generator.num_anchors_per_location()[0], classes, depth),
        image_mean=[0.5] * shape[0],
        image_std=[0.25] * shape[0],
        min_size=round(scale * min(shape[1:])),
        max_size=round(scale * max(shape[1:])),
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
    )


def _shallow_head(pyramid: int, anchors: int, classes: int, depth: int) -> RetinaNetHead:
    """torchvision's head without its last convolutions but the one that gives the outputs."""
    if not 0 <= depth <= 4:
        raise ModelError(f"a head of depth {depth}", where="small_retinanet", allowed="0 to 4")
    head = RetinaNetHead(pyramid, anchors, classes)
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[:depth]
    return head
