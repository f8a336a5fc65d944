"""Detectors by name."""

from __future__ import annotations

import pytest
from torchvision.models.detection import FCOS

from autoprune.errors import InputError, ModelError
from autoprune.tasks.detection.networks import build_network, check_network


def test_torchvisions_detectors_start_without_a_download_and_with_the_classes_asked_for() -> None:
    net = build_network("torchvision/fcos_resnet50_fpn", (3, 64, 64), 7, {"min_size": 64, "max_size": 64}, "model")

    assert isinstance(net, FCOS)
    assert net.head.classification_head.num_classes == 7
    assert net.transform.min_size == (64,)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "resnet50", "unet"])
def test_networks_that_find_no_boxes_or_need_more_are_unknown(name: str) -> None:
    with pytest.raises(ModelError, match=rf"model\.name: unknown model '{name}'.*small_retinanet.*factory"):
        check_network(name, "model.name")


def test_a_constructor_that_refuses_is_quoted() -> None:
    with pytest.raises(ModelError, match=r"small_retinanet cannot be built: .*height"):
        build_network("small_retinanet", (1, 64, 64), 7, {"height": 3}, "model.name")


def test_arguments_that_torchvision_would_drop_in_silence_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown argument 'score_tresh' \(did you mean 'score_thresh'\?\)"):
        build_network("ssdlite320_mobilenet_v3_large", (3, 64, 64), 7, {"score_tresh": 0.1}, "model.name")
