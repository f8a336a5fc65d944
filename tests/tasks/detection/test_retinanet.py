"""The small RetinaNet: pyramid and shared heads have one width each, and a cut model runs the same code."""

from __future__ import annotations

import pytest
import torch

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ModelError
from autoprune.tasks.detection.retinanet import PyramidBackbone, small_retinanet

SMALL = {"widths": (7, 11), "pyramid": 13, "anchors": (10.0, 20.0), "score_thresh": 0.0}


def test_the_pyramid_has_a_map_per_stage() -> None:
    maps = PyramidBackbone(1, (7, 11, 5), 13).eval()(torch.rand(2, 1, 32, 48))

    assert [tuple(found.shape) for found in maps.values()] == [(2, 13, 8, 12), (2, 13, 4, 6), (2, 13, 2, 3)]


def test_losses_in_training_and_boxes_otherwise() -> None:
    net = small_retinanet((1, 32, 32), 4, **SMALL)
    images = [torch.rand(1, 32, 32), torch.rand(1, 32, 32)]
    target = {"boxes": torch.tensor([[3.0, 4.0, 13.0, 20.0]]), "labels": torch.tensor([3])}

    losses, found = net.train()(images, [target, target]), net.eval()(images)

    assert sorted(losses) == ["bbox_regression", "classification"]
    assert len(found) == 2
    assert found[0]["boxes"].shape[1] == 4
    assert len(found[0]["scores"]) == 100  # with no threshold, as many as one image may have


def test_groups_reach_across_pyramid_and_heads_and_a_cut_model_runs() -> None:
    net = small_retinanet((1, 32, 32), 4, **SMALL).eval()
    graph = trace(net, ([torch.rand(1, 32, 32)],))
    by_layer = {layer: group for group in graph.prunable for layer in group.layers}

    # what all lateral convolutions add up to
    lateral = by_layer["backbone.pyramid.inner_blocks.0.0"]
    assert lateral is by_layer["backbone.pyramid.inner_blocks.1.0"]
    assert lateral.size == 13
    # what both heads read of every level
    shared = by_layer["backbone.pyramid.layer_blocks.0.0"]
    assert {"head.classification_head.conv.0.0", "head.regression_head.conv.0.0"} <= set(shared.layers)
    assert shared is by_layer["backbone.pyramid.layer_blocks.1.0"]

    cut = prune(net, graph, Keep.of({group.id: range(group.size - 2) for group in graph.prunable}))

    assert cut.backbone.pyramid.layer_blocks[1][0].weight.shape[:2] == (11, 11)
    assert cut.head.classification_head.cls_logits.weight.shape[:2] == (3 * 4, 11)
    assert len(cut([torch.rand(1, 32, 32)])[0]["boxes"]) == 100


def test_anchors_belong_to_stages() -> None:
    with pytest.raises(ModelError, match="2 anchors for 3 stages"):
        small_retinanet((1, 32, 32), 4, **{**SMALL, "widths": (7, 11, 13)})


def test_images_may_be_scaled_first_and_boxes_are_in_pixels_of_the_image() -> None:
    net = small_retinanet((1, 64, 96), 4, **SMALL, scale=0.5).eval()
    seen: list[torch.Size] = []
    net.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))

    (found,) = net([torch.rand(1, 64, 96)])

    assert seen == [(1, 1, 32, 64)]  # 32 x 48, and torchvision fills up to multiples of 32
    assert 48 < found["boxes"].max() <= 96


def test_heads_are_as_deep_as_asked() -> None:
    net = small_retinanet((1, 32, 32), 4, **SMALL, depth=1)

    assert len(net.head.classification_head.conv) == len(net.head.regression_head.conv) == 1
    with pytest.raises(ModelError, match="a head of depth 5; allowed: 0 to 4"):
        small_retinanet((1, 32, 32), 4, **SMALL, depth=5)
