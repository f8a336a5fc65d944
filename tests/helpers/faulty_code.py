"""Data and networks as users hand them in by mistake, for `module:function` in space files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COUNT, CLASSES = 40, 10
NUMBERS = np.arange(COUNT) % CLASSES


def arrays(**changes: Any) -> dict[str, Any]:
    """Grey images of 8x8 with labels; `images` and `labels` replace those of both parts, other keys one array."""
    images = np.random.default_rng(7).integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)
    both = {"images": images, "labels": NUMBERS}
    both |= {key: item for key, item in changes.items() if key in both}
    made = {f"{part}_{key}": item for part in ("train", "test") for key, item in both.items()}
    return made | {key: item for key, item in changes.items() if key not in both}


def pixels(*shape: int, kind: str = "uint8") -> np.ndarray:
    """Images of a shape, counted through so that they differ."""
    return (np.arange(COUNT * int(np.prod(shape))).reshape(COUNT, *shape) % 251).astype(kind)


def _with_nan() -> np.ndarray:
    images = pixels(8, 8, 1, kind="float32")
    images[3, 2, 2] = np.nan
    return images


MADE: Mapping[str, Any] = {
    "negative": lambda: arrays(labels=NUMBERS - 1),
    "from_one": lambda: arrays(labels=NUMBERS + 1),
    "gaps": lambda: arrays(labels=2 * NUMBERS),
    "identities": lambda: arrays(labels=NUMBERS + 10**9),
    "one_class": lambda: arrays(labels=0 * NUMBERS),
    "one_hot": lambda: arrays(labels=np.eye(CLASSES)[NUMBERS]),
    "one_hot_numbers": lambda: arrays(labels=np.eye(CLASSES, dtype=int)[NUMBERS]),
    "column": lambda: arrays(labels=NUMBERS[:, None]),
    "floats": lambda: arrays(labels=NUMBERS.astype(float)),
    "nan_labels": lambda: arrays(labels=np.where(NUMBERS == 2, np.nan, 1.0)),
    "short": lambda: arrays(labels=NUMBERS[:-3]),
    "two_names": lambda: arrays(labels=["cat", "dog"] * (COUNT // 2)),
    "mixed_names": lambda: arrays(labels=["cat", 1] * (COUNT // 2)),
    "names_in_test": lambda: arrays(test_labels=["cat"] * COUNT),
    "channels_first": lambda: arrays(images=pixels(3, 8, 8)),
    "grey_channels_first": lambda: arrays(images=pixels(1, 28, 28)),
    "colour": lambda: arrays(images=pixels(8, 8, 3)),
    "uint16": lambda: arrays(images=pixels(8, 8, 1, kind="uint16") * 200),
    "int64": lambda: arrays(images=pixels(8, 8, 1, kind="int64")),
    "bool": lambda: arrays(images=pixels(8, 8, 1) > 7),
    "complex": lambda: arrays(images=pixels(8, 8, 1, kind="complex128")),
    "nan": lambda: arrays(images=_with_nan()),
    "flat": lambda: arrays(images=pixels(64)),
    "constant": lambda: arrays(images=0 * pixels(8, 8, 1)),
    "empty": lambda: arrays(images=pixels(8, 8, 1)[:0], labels=NUMBERS[:0]),
    "ragged": lambda: arrays(images=[np.zeros((8, 8, 1)), np.zeros((8, 9, 1))]),
    "no_images": lambda: arrays(images=None),
    "other_test": lambda: arrays(test_images=pixels(9, 9, 1)),
    "renamed": lambda: {"x_train": pixels(8, 8, 1), "y_train": NUMBERS},
    "nothing": dict,
    "none": lambda: None,
    "pair": lambda: (pixels(8, 8, 1), NUMBERS),
    "shares": lambda: arrays(images=pixels(8, 8, 1, kind="float32") / 250),
}


def data(kind: str) -> Any:
    """Data with this fault."""
    return MADE[kind]()


def broken_data() -> None:
    """Fails with a long text of several lines."""
    raise ValueError("no such\nfile: " + "x" * 500)


class Net(nn.Module):
    """A small network for grey images."""

    def __init__(self, channels: int = 1, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(channels, 7, 3), nn.BatchNorm2d(7), nn.Linear(7, classes)

    def forward(self, x: Tensor) -> Any:
        """(N, 1, H, W) -> (N, classes)."""
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


class OfTwo(Net):
    """Wants a second input."""

    def forward(self, x: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        """See `Net`."""
        return super().forward(x) * mask


class Answers(Net):
    """Answers with something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        """What `kind` says instead of classes."""
        out = super().forward(x)
        if self.kind == "features in training":
            return (x, x) if self.training else out
        if self.kind == "fails in training" and self.training:
            raise RuntimeError("only for\neval mode")
        others: Mapping[str, Any] = {"dict": {"logits": out}, "tuple": (out, x), "scalar": out.sum()}
        more: Mapping[str, Any] = {"numbers": out.argmax(1), "nan": out * float("nan")}
        return {**others, **more}.get(self.kind, out)


def _on_meta() -> nn.Module:
    with torch.device("meta"):
        return Net()


NETWORKS: Mapping[str, Any] = {
    "class": lambda: Net,
    "state dict": lambda: Net().state_dict(),
    "none": lambda: None,
    "text": lambda: "Net",
    "list": lambda: [Net()],
    "layers": lambda: nn.ModuleList([Net()]),
    "optimizer": lambda: torch.optim.SGD(Net().parameters()),
    "meta": _on_meta,
    "no gradients": lambda: Net().requires_grad_(False),
    "two inputs": OfTwo,
    "colour": lambda: Net(channels=3),
    "five": lambda: Net(classes=5),
    "no weights": nn.Flatten,
    "ends": lambda: sys.exit("bye"),
}


def network(kind: str) -> Any:
    """A network with this fault, or something that is none."""
    return NETWORKS[kind]() if kind in NETWORKS else Answers(kind)


def build() -> nn.Module:
    """A network without a fault."""
    return Net()


def broken_network() -> None:
    """Fails."""
    raise RuntimeError("boom\nmore")


NAME = "a text"
