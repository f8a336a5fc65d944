"""The models the engine is held to: torchvision's classifiers, timm by family, dense prediction, other packages."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from autoprune.errors import InputError

BATCH = 2
#: Classification models of the torchvision this was written for: a new one must not go unseen.
CLASSIFIERS = 80

LIBRARIES = ("torchvision", "timm", "dense-prediction", "wild")

INSTALL = "pip install --no-deps"

#: What keeps packages from installing others, or from loading weights, by themselves.
OFFLINE = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "HF_HUB_OFFLINE": "1"}

#: Packages outside torchvision's classifiers and timm, and their models.
WILD = Path(__file__).with_name("zoo_wild.yaml")

#: Models that are built for one size (window attention, fixed pooling), or need more than 224 pixels.
SIZES = {
    "torchvision/inception_v3": 299,
    "torchvision/swin_v2_*": 256,
    "timm/*_224": 224,
    "timm/crossvit_tiny_240": 240,
    "timm/*_256": 256,
    "timm/legacy_xception": 299,
    "timm/inception_*": 299,
    "timm/bat_resnext26ts": 256,
    "timm/halonet26t": 256,
}

#: Models that take minutes or more than 4 GiB each; left out of a quick look.
BIG = ("regnet_y_128gf", "vit_h_14", "vit_l_*", "regnet_*_32gf", "efficientnet_b7", "convnext_large", "*101_64x4d")

#: timm model -> nothing but its name is needed. Small variants; convolutional families first.
TIMM: dict[str, str] = {
    "efficientnet": "efficientnet_b0",
    "mixnet": "mixnet_s",
    "mnasnet": "mnasnet_small",
    "fbnet": "fbnetc_100",
    "tinynet": "tinynet_e",
    "mobilenet v1, v2": "mobilenetv1_100",
    "mobilenet v3": "mobilenetv3_small_050",
    "mobilenet v4": "mobilenetv4_conv_small",
    "lcnet": "lcnet_050",
    "hardcorenas": "hardcorenas_a",
    "convnext": "convnext_atto",
    "convnext v2": "convnextv2_atto",
    "regnet": "regnetx_002",
    "resnet": "resnet18",
    "resnext": "resnext50_32x4d",
    "senet": "seresnet18",
    "eca, cbam": "ecaresnet26t",
    "resnet v2": "resnetv2_18",
    "resnest": "resnest14d",
    "res2net": "res2net50_14w_8s",
    "sknet": "skresnet18",
    "hrnet": "hrnet_w18_small",
    "densenet": "densenet121",
    "dla": "dla34",
    "dpn": "dpn48b",
    "ghostnet": "ghostnet_050",
    "repghostnet": "repghostnet_050",
    "mobileone": "mobileone_s0",
    "repvgg": "repvgg_a0",
    "gernet": "gernet_s",
    "byobnet": "resnet51q",
    "byoanet": "halonet26t",
    "cspnet": "cspdarknet53",
    "cspnext": "cspnext_tiny",
    "vovnet": "vovnet39a",
    "selecsls": "selecsls42b",
    "nfnet": "nfnet_l0",
    "nf_regnet, nf_resnet": "nf_regnet_b0",
    "fasternet": "fasternet_t0",
    "edgenext": "edgenext_xx_small",
    "starnet": "starnet_s1",
    "repvit": "repvit_m0_9",
    "rdnet": "rdnet_tiny",
    "hgnet": "hgnet_tiny",
    "inception": "inception_v3",
    "inception_next": "inception_next_atto",
    "xception": "legacy_xception",
    "rexnet": "rexnet_100",
    "tresnet": "tresnet_m",
    "vgg": "vgg11_bn",
    "pnasnet, nasnet": "pnasnet5large",
    "convmixer": "convmixer_768_32",
    "csatv2": "csatv2",
    "mambaout": "mambaout_femto",
    "metaformer": "poolformer_s12",
    "focalnet": "focalnet_tiny_srf",
    "fastvit": "fastvit_t8",
    "mobilevit": "mobilevit_xxs",
    "efficientvit": "efficientvit_b0",
    "efficientformer": "efficientformer_l1",
    "shvit": "shvit_s1",
    "swiftformer": "swiftformer_xs",
    "coat": "coat_lite_tiny",
    "coatnet, maxvit": "coatnet_nano_rw_224",
    "tiny_vit": "tiny_vit_5m_224",
    "pvt": "pvt_v2_b0",
    "visformer": "visformer_tiny",
    "levit": "levit_128s",
    "mlp_mixer": "mixer_s32_224",
    "vision_transformer": "vit_tiny_patch16_224",
    "deit": "deit_tiny_patch16_224",
    "swin": "swin_tiny_patch4_window7_224",
    "twins": "twins_svt_small",
    "xcit": "xcit_nano_12_p16_224",
}

SEGMENTATION = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large",
                "lraspp_mobilenet_v3_large")  # fmt: skip

#: Detectors resize what they are given; 128 pixels stay 128.
SMALL = {"min_size": 128, "max_size": 128}

#: Detector -> image size and arguments that make a net with random weights report boxes at all.
DETECTION: dict[str, tuple[int, dict[str, Any]]] = {
    "retinanet_resnet50_fpn": (128, {"score_thresh": 0.0, **SMALL}),
    "fcos_resnet50_fpn": (128, {"score_thresh": 0.0, **SMALL}),
    "fasterrcnn_resnet50_fpn": (128, {"box_score_thresh": 0.0, **SMALL}),
    "fasterrcnn_mobilenet_v3_large_fpn": (128, {"box_score_thresh": 0.0, **SMALL}),
    "maskrcnn_resnet50_fpn": (128, {"box_score_thresh": 0.0, **SMALL}),
    "keypointrcnn_resnet50_fpn": (128, {"box_score_thresh": 0.0, **SMALL}),
    "ssd300_vgg16": (300, {"score_thresh": 0.0}),
    "ssdlite320_mobilenet_v3_large": (320, {"score_thresh": 0.0}),
}


@dataclass(frozen=True)
class Entry:
    """One model of the list: how it is built and what it is run on; a value that travels to another process.

    Fields:
        function: `module:name` of what builds the architecture when called with `options`.
        size: pixels of the images, where `shapes` says nothing else.
        shapes: of the inputs, without the batch.
        install: the command that installs the package.
    """

    library: str
    name: str
    family: str
    function: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 224
    shapes: tuple[tuple[int, ...], ...] = ()
    install: str = ""

    @property
    def extent(self) -> str:
        """What the model is run on, for tables: pixels, or the shapes of its inputs."""
        return " + ".join("x".join(map(str, shape)) or "1" for shape in self.shapes) or str(self.size)

    @property
    def package(self) -> str:
        """The package that the model is of, by its name on the registry."""
        return self.install.removeprefix(INSTALL).split()[0] if self.install else self.library

    @property
    def big(self) -> bool:
        """Whether a quick run leaves this model out."""
        return any(fnmatchcase(self.name, pattern) for pattern in BIG)

    @property
    def detects(self) -> bool:
        """Whether the model takes a list of images and returns boxes."""
        return self.name in DETECTION

    def build(self) -> nn.Module:
        """The architecture with the initial weights of its library; nothing is downloaded.

        Raises `InputError` if a package is missing, with the command that installs it.
        """
        module, _, name = self.function.partition(":")
        try:
            return getattr(importlib.import_module(module), name)(**self.options)
        except ModuleNotFoundError as error:
            raise InputError(f"{self.name} cannot be built: {error}", allowed=self.install or "pip install") from error

    def inputs(self) -> tuple[Any, ...]:
        """Positional arguments of `forward`: (2, 3, size, size), a list of two images, or (2, *shape) of each shape."""
        generator = torch.Generator().manual_seed(1)
        if self.shapes:
            return tuple(torch.randn(BATCH, *shape, generator=generator) for shape in self.shapes)
        images = torch.randn(BATCH, 3, self.size, self.size, generator=generator)
        return ([image.sigmoid() for image in images],) if self.detects else (images,)

    def targets(self) -> tuple[Any, ...]:
        """The targets that a detector in train mode takes beside its inputs."""
        if not self.detects:
            return ()
        box = torch.tensor([[self.size * 0.2, self.size * 0.2, self.size * 0.8, self.size * 0.7]])
        target: dict[str, Tensor] = {"boxes": box, "labels": torch.ones(1, dtype=torch.long)}
        if self.name.startswith("maskrcnn"):
            target["masks"] = torch.ones(1, self.size, self.size, dtype=torch.uint8)
        if self.name.startswith("keypointrcnn"):
            target["keypoints"] = torch.full((1, 17, 3), self.size * 0.5)
        return ([target] * BATCH,)


def entries(library: str) -> list[Entry]:
    """The models of one library."""
    lists = {"torchvision": _torchvision_classifiers, "timm": _timm_models, "dense-prediction": _dense_prediction}
    return {**lists, "wild": _wild_models}[library]()


def select(found: list[Entry], patterns: list[str]) -> list[Entry]:
    """The models whose name matches one of the patterns; a pattern without a match is an error."""
    for pattern in patterns:
        if not any(fnmatchcase(entry.name, pattern) for entry in found):
            raise SystemExit(f"{pattern!r} matches no model of {', '.join(entry.name for entry in found)}")
    return [e for e in found if not patterns or any(fnmatchcase(e.name, pattern) for pattern in patterns)]


def _torchvision_classifiers() -> list[Entry]:
    from torchvision import models

    names = models.list_models(module=models)
    if len(names) != CLASSIFIERS:
        raise SystemExit(f"torchvision lists {len(names)} classification models, not {CLASSIFIERS}")
    slow = {name: {"init_weights": False} for name in ("googlenet", "inception_v3")}
    return [_of_torchvision("torchvision", name, _family_of(name), slow.get(name, {})) for name in names]


def _dense_prediction() -> list[Entry]:
    segmentation = [_of_torchvision("dense-prediction", n, "segmentation", {}, 128) for n in SEGMENTATION]
    detection = [
        _of_torchvision("dense-prediction", name, "detection", options, size)
        for name, (size, options) in DETECTION.items()
    ]
    return segmentation + detection


def _of_torchvision(library: str, name: str, family: str, options: dict[str, Any], size: int | None = None) -> Entry:
    bare = {"weights": None} if library == "torchvision" else {"weights": None, "weights_backbone": None}
    options = {"name": name, **bare, **options}
    return Entry(library, name, family, "torchvision.models:get_model", options, size or _image_size(library, name))


def _timm_models() -> list[Entry]:
    return [_of_timm(name, family) for family, names in TIMM.items() for name in names.split()]


def _of_timm(name: str, family: str) -> Entry:
    base, _, attention = name.partition("+")
    extra = {"block_args": {"attn_layer": attention}} if attention else {}
    options = {"model_name": base, "pretrained": False, **extra}
    return Entry("timm", name, family, "timm:create_model", options, _image_size("timm", name))


def _wild_models() -> list[Entry]:
    """Every model of every package of the list, with the command that installs this."""
    return [
        Entry("wild", name, package, model["function"], model.get("options", {}), 0, tuple(map(tuple, model["inputs"])),
              f"{INSTALL} {about['install']}")
        for package, about in yaml.safe_load(WILD.read_text(encoding="utf-8")).items()
        for name, model in about["models"].items()
    ]  # fmt: skip


def _family_of(name: str) -> str:
    return name.split("_", maxsplit=1)[0].rstrip("0123456789")


def _image_size(library: str, name: str) -> int:
    return next((size for pattern, size in SIZES.items() if fnmatchcase(f"{library}/{name}", pattern)), 224)
