"""Batch norm in wide rows computes what torch's batch norm computes."""

import copy

import pytest
import torch
from torch import nn

from autoprune.training.batch_norm import _pixels_per_row, wide_norms


def layer(channels):
    norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.3)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    return norm


def images(channels, dtype):
    x = (torch.randn(6, channels, 8, 16) * 3 + 5).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def run(norm, x, grad):
    y = norm(x)
    y.backward(grad)
    return {
        "y": y,
        "x": x.grad,
        "w": norm.weight.grad,
        "b": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
    }


@pytest.mark.parametrize("channels", [1, 3, 7, 11, 13, 29])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_outputs_gradients_and_statistics(channels, dtype):
    torch.manual_seed(0)
    norm, x = layer(channels), images(channels, dtype)
    twin, grad = copy.deepcopy(norm), torch.randn(6, channels, 8, 16).to(dtype)

    expected = run(norm, x, grad)
    x.grad = None
    with wide_norms(nn.Sequential(twin)):
        assert type(twin) is not nn.BatchNorm2d
        actual = run(twin, x.detach().clone(memory_format=torch.preserve_format).requires_grad_(), grad)

    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
    assert norm.num_batches_tracked == twin.num_batches_tracked == 1
    assert type(twin) is nn.BatchNorm2d


def test_gradient_against_double_arithmetic():
    torch.manual_seed(0)
    norm, x = layer(7), images(7, torch.float32)
    grad = torch.randn(x.shape)
    double = copy.deepcopy(norm).double()
    expected = run(double, x.detach().double().requires_grad_(), grad.double())

    with wide_norms(norm):
        actual = run(norm, x, grad)

    torch.testing.assert_close(actual["x"].double(), expected["x"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((128, 7, 32, 32), 64), ((128, 12, 8, 8), 32), ((4, 29, 8, 8), 32), ((3, 7, 5, 5), 0), ((1, 7, 4, 8), 0)],
)
def test_rows_are_whole_vectors_or_there_are_none(shape, expected):
    x = torch.empty(shape)

    k = _pixels_per_row(x)

    assert expected == k
    assert k == 0 or (shape[0] * shape[2] * shape[3]) % k == 0


def test_uneven_batches_and_evaluation_take_the_usual_way():
    torch.manual_seed(0)
    norm = layer(7)
    twin = copy.deepcopy(norm)
    x = torch.randn(3, 7, 5, 5).contiguous(memory_format=torch.channels_last)

    with wide_norms(twin):
        assert torch.equal(norm(x), twin(x))
        norm.eval(), twin.eval()
        assert torch.equal(norm(x), twin(x))


def test_inplace_activation_may_follow_and_copies_are_independent():
    norm = layer(7)
    model = nn.Sequential(norm, nn.ReLU(inplace=True))

    with wide_norms(model):
        twin = copy.deepcopy(model)
        twin(images(7, torch.float32)).sum().backward()

    assert norm.weight.grad is None
    assert twin[0].weight.grad is not None


def test_wide_layers_are_left_to_torch():
    norm = layer(16)

    with wide_norms(norm):
        assert type(norm) is nn.BatchNorm2d
