"""Models by name: shapes, parameters by hand, option A, names of other libraries."""

import pytest
import torch
from torch.nn import functional as F

from autoprune.errors import ModelError
from autoprune.tasks import zoo

# by hand: convolutions k k c_in c_out, batch norm 2 c, linear (c_in + 1) classes
STAGE = {16: 9 * 16 * 16 + 32, 32: 9 * 32 * 32 + 64, 64: 9 * 64 * 64 + 128}


def resnet_parameters(n):
    stem, head = 9 * 3 * 16 + 32, 65 * 10
    widen = 9 * 16 * 32 + 64 + 9 * 32 * 64 + 128
    return stem + 2 * n * STAGE[16] + (2 * n - 1) * (STAGE[32] + STAGE[64]) + widen + head


PARAMETERS = {
    "resnet20": (269_722, (3, 32, 32)),
    "resnet32": (464_154, (3, 32, 32)),
    "resnet56": (853_018, (3, 32, 32)),
    "resnet110": (resnet_parameters(18), (3, 32, 32)),
    "lenet5": (20 * 26 + 50 * 501 + 500 * 801 + 10 * 501, (1, 28, 28)),
    # 13 of VGG-16's convolutions, their norms, one linear layer
    "vgg16_bn": (14_710_464 + 2 * 4_224 + 513 * 10, (3, 32, 32)),
    "digits_net": (None, (1, 8, 8)),
    "vgg13_bn": (None, (3, 32, 32)),
    "vgg19_bn": (None, (3, 32, 32)),
    "mobilenet_v1": (None, (3, 32, 32)),
    "mobilenet_v2": (None, (3, 32, 32)),
    "resnet18_small": (None, (3, 32, 32)),
    "resnet34_small": (None, (3, 32, 32)),
}


def test_every_model_of_the_zoo_is_listed_here():
    assert set(PARAMETERS) == set(zoo.names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_model_runs_and_has_as_many_parameters_as_counted(name):
    parameters, shape = PARAMETERS[name]
    model = zoo.build(name, shape, 10, {}, "model").eval()

    with torch.inference_mode():
        outputs = model(torch.zeros(2, *shape))

    assert (2, 10) == outputs.shape
    if parameters is not None:
        assert parameters == sum(p.numel() for p in model.parameters())


def test_resnet_formula_agrees_with_the_published_counts():
    assert (269_722, 464_154, 853_018) == tuple(resnet_parameters(n) for n in (3, 5, 9))


def test_digits_net_is_worth_pruning_and_has_a_depthwise_layer():
    model = zoo.build("digits_net", (1, 8, 8), 10, {}, "model")

    assert 100_000 < sum(p.numel() for p in model.parameters()) < 300_000
    assert any(getattr(m, "groups", 1) > 1 for m in model.modules())


def test_classes_and_channels_come_from_the_data():
    model = zoo.build("resnet20", (1, 28, 28), 7, {"widths": [7, 11, 13]}, "model").eval()

    assert (2, 7) == model(torch.zeros(2, 1, 28, 28)).shape
    assert (7, 1, 3, 3) == model.conv1.weight.shape


def test_vgg_of_another_width_has_as_many_parameters_as_counted():
    # 13 of VGG-16's convolutions without its 3 inputs are as the square of the width, norms and the rest as the width
    quarter = zoo.build("vgg16_bn", (3, 32, 32), 10, {"width": 0.25}, "model")
    by_hand = (14_710_464 - 9 * 3 * 64) // 16 + 9 * 3 * 16 + 2 * 4_224 // 4 + 129 * 10

    assert by_hand == sum(p.numel() for p in quarter.parameters())
    with pytest.raises(ModelError, match=r"width 0.*above 0, at most 8"):
        zoo.build("vgg16_bn", (3, 32, 32), 10, {"width": 0}, "model")


@pytest.mark.parametrize(("c_in", "c_out", "stride", "side"), [(16, 32, 2, 32), (7, 13, 2, 7), (5, 8, 1, 5)])
def test_option_a_is_the_padding_formula(c_in, c_out, stride, side):
    x = torch.randn(3, c_in, side, side)
    added = c_out - c_in

    expected = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, added // 2, added - added // 2))

    assert torch.equal(expected, zoo.PadShortcut(c_in, c_out, stride)(x))


def test_option_a_keeps_bfloat16_and_holds_no_state():
    shortcut = zoo.PadShortcut(7, 13, 2)

    assert torch.bfloat16 == shortcut(torch.zeros(2, 7, 4, 4, dtype=torch.bfloat16)).dtype
    assert {} == shortcut.state_dict()


def test_option_a_follows_buffers_that_were_cut():
    shortcut = zoo.PadShortcut(7, 13, 1)  # three zeros before, three behind
    shortcut.front, shortcut.back = shortcut.front[:, :1], shortcut.back[:, :0]

    assert (2, 8, 4, 4) == shortcut(torch.ones(2, 7, 4, 4)).shape


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "squeezenet1_1", "timm/test_resnet.r160_in1k"])
def test_names_of_other_libraries(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    model = zoo.build(name, (3, 64, 64), 7, {}, "model").eval()

    assert (2, 7) == model(torch.zeros(2, 3, 64, 64)).shape


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "message"),
    [
        ("resnet21", (3, 32, 32), {}, "unknown model"),
        ("torchvision/resnet21", (3, 32, 32), {}, "unknown model"),
        ("torchvision/resnet18", (1, 32, 32), {}, "takes 3 channels"),
        ("torchvision/resnet18", (3, 32, 32), {"nope": 1}, "cannot be built"),
        ("resnet20", (3, 32, 32), {"widths": [16, 32]}, "three widths"),
        ("lenet5", (1, 8, 8), {}, "too small"),
    ],
)
def test_models_that_cannot_be_built(name, shape, arguments, message):
    with pytest.raises(ModelError, match=message):
        zoo.build(name, shape, 10, arguments, "task.model.name")


def test_a_name_that_several_libraries_know_is_ours_then_torchvisions_then_timms():
    pytest.importorskip("timm")

    assert zoo.find("resnet20", "model") == ("autoprune", "resnet20")
    assert zoo.find("resnet50", "model") == ("torchvision", "resnet50")
    assert zoo.find("timm/resnet50", "model") == ("timm", "resnet50")
    assert zoo.find("resnetv2_50", "model") == ("timm", "resnetv2_50")
