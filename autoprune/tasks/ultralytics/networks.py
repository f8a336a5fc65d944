"""Ultralytics' detection networks: by the name of their YAML file, or as a checkpoint of theirs says."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ModelError, first_line
from autoprune.tasks.weight_files import find

Architecture = Mapping[str, Any]

#: Last modules of networks that find boxes and nothing else.
HEADS = ("Detect", "v10Detect")


class Detector(nn.Module):
    """A detection network of Ultralytics, called as torchvision's are but for its outputs in eval mode.

    In training mode detector(images, targets) gives its losses by name, means over the images; in eval mode
    detector(images) gives (N, 4 + classes, places) float32: centre, width and height in pixels, and scores, before
    non-maximum suppression. Images are (N, C, H, W) from 0 to 1, H and W multiples of the largest stride; labels of
    targets count from 0.

    Args:
        network: their DetectionModel; `args` holds the gains of its losses. Of a head that finds boxes both with and
            without non-maximum suppression the branch with it stays. It is changed.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        head: Any = network.model[-1]
        head.end2end = False
        head.fuse()  # drops the other branch, and merges no layers
        head.export = True  # one tensor in eval mode
        head.dynamic = True  # anchors anew in each pass: those it keeps are of another device or batch
        self.network = network

    def forward(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """See the class."""
        found = self.network(images)
        if targets is None:
            return found
        # made anew: the one that the network would keep holds tensors on its device, and copies would share it
        criterion: Any = self.network.init_criterion()  # type: ignore[operator]
        losses, names = criterion(found, _as_theirs(images, targets))
        return dict(zip(names, losses / len(images), strict=True))  # theirs are means times the number of images


def _as_theirs(images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The part of a batch that their losses read: boxes of all images in one tensor, as shares of the image."""
    from ultralytics.utils.ops import xyxy2xywhn

    height, width = images.shape[2:]
    counts = torch.tensor([len(target["labels"]) for target in targets], device=images.device)
    return {
        "batch_idx": torch.arange(len(images), device=images.device).repeat_interleave(counts),
        "cls": torch.cat([target["labels"] for target in targets])[:, None].float(),
        "bboxes": xyxy2xywhn(torch.cat([target["boxes"] for target in targets]), w=width, h=height),
    }


def read_architecture(name: str, where: str) -> Architecture:
    """What the YAML file of a network says: `yolov8n.yaml` comes with Ultralytics; others, and checkpoints, are files.

    Raises:
        ModelError: there is no such file, or it is of no detector.
    """
    from ultralytics.nn.tasks import yaml_model_load

    if name.endswith(".pt"):
        found: Architecture = load_checkpoint(name, where).yaml
    elif name.endswith((".yaml", ".yml")) and "://" not in name:
        try:
            found = yaml_model_load(name)
        except Exception as error:  # theirs have no common base, nor have YAML's and the system's
            raise ModelError(f"{name!r} cannot be read: {first_line(error)}", where=where) from error
    else:
        allowed = "the YAML file of an architecture, such as yolov8n.yaml, or a checkpoint, a file that ends in .pt"
        raise ModelError(f"{name!r} is no network", where=where, allowed=allowed)
    head = found["head"][-1][2]
    if head not in HEADS:
        raise ModelError(f"{name} ends in {head}", where=where, allowed=f"detectors: {', '.join(HEADS)}")
    return found


def build_network(
    architecture: Architecture, channels: int, classes: Sequence[str], settings: Any, where: str
) -> nn.Module:
    """A network with new weights, for `Detector`.

    Args:
        settings: theirs; the losses read their gains.

    Raises:
        ModelError: it cannot be built.
    """
    from ultralytics.nn.tasks import DetectionModel

    try:
        network: Any = DetectionModel(copy.deepcopy(dict(architecture)), channels, len(classes), verbose=False)
    except Exception as error:  # any constructor; the reason is the user's to read
        raise ModelError(f"the network cannot be built: {first_line(error)}", where=where) from error
    network.args, network.names = settings, dict(enumerate(classes))
    built: nn.Module = network
    return built


def load_checkpoint(path: str, where: str) -> Any:
    """The network of a checkpoint of Ultralytics, with its weights in float32.

    It is a pickle. Known classes alone are unpickled, but where $ULTRALYTICS_SAFE_LOAD says otherwise or torch is too
    old for it: then it runs what code is in it.

    Raises:
        ModelError: it is not there, or cannot be read.
    """
    from ultralytics.nn import tasks

    file = find(path, where)  # theirs would look for it in the network
    try:
        return tasks.load_checkpoint(file)[0]
    except Exception as error:  # theirs and pickle's have no common base
        raise ModelError(f"not a readable checkpoint of Ultralytics: {first_line(error)}", where=str(file)) from error


def fill(network: nn.Module, path: str, where: str) -> None:
    """Give a network the weights of a checkpoint; raises `ModelError` unless it has the same tensors."""
    try:
        network.load_state_dict(load_checkpoint(path, where).state_dict())
    except RuntimeError as error:
        what = f"{path} has other tensors: {str(error).splitlines()[1].strip()}"
        allowed = "a checkpoint of the data's classes, neither fused nor pruned"
        raise ModelError(what, where=where, allowed=allowed) from error
