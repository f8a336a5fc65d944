"""Metrics by name, reference and object: their numbers, and what they mean."""

import math

import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError
from user_tasks import evaluate

from autoprune.errors import DataError, InputError
from autoprune.study.metric import MetricSpec
from autoprune.tasks.metrics import read_metric

OUTPUTS, TARGETS = torch.tensor([[2.0], [5.0]]), torch.tensor([[1.0], [1.0]])


class Largest:
    """The user's own, with update and compute."""

    higher_is_better = False

    def __init__(self, start=0.0):
        self.largest = start

    def update(self, outputs, targets):
        self.largest = max(self.largest, (outputs - targets).abs().max().item())

    def compute(self):
        return self.largest


def value_of(spec, *pairs):
    metric = read_metric(spec, "metric").start(lambda batch: batch)
    for outputs, targets in pairs:
        metric.update(outputs, targets)
    return metric.value()


def test_torchmetrics_by_name_with_arguments():
    rmse = {"name": "MeanSquaredError", "squared": False}

    assert pytest.approx(((1 + 16) / 2) ** 0.5) == value_of(rmse, (OUTPUTS, TARGETS))


def test_images_are_compared_with_images():
    """Of 1x2x7 pixels from 0 to 1 one is off by 0.7, and one, at 3, is taken for 1."""
    targets = torch.zeros(2, 1, 7, 7).index_fill(3, torch.tensor([5]), 1.0)
    outputs = targets.clone()
    outputs[0, 0, 2, 3], outputs[1, 0, 0, 5] = 0.7, 3.0
    psnr = {"name": "PeakSignalNoiseRatio", "data_range": [0, 1]}
    ssim = {"name": "StructuralSimilarityIndexMeasure", "gaussian_kernel": False, "kernel_size": [3, 3]}

    assert pytest.approx(10 * math.log10(98 / 0.49)) == value_of(psnr, (outputs, targets))
    assert pytest.approx(10 * math.log10(98 / 4.49)) == value_of({**psnr, "data_range": 1.0}, (outputs, targets))
    assert pytest.approx((0.7 + 2) / 98) == value_of("MeanAbsoluteError", (outputs, targets))
    assert pytest.approx(1) == value_of({**ssim, "data_range": [0, 1]}, (targets, targets))
    assert value_of({**ssim, "data_range": [0, 1]}, (outputs, targets)) < 0.999


def test_each_start_counts_from_nothing():
    choice = read_metric(MeanSquaredError(), "metric")
    first, second = choice.start(lambda batch: batch), choice.start(lambda batch: batch)
    first.update(OUTPUTS, TARGETS)
    second.update(OUTPUTS, OUTPUTS)

    assert (8.5, 0.0) == (first.value(), second.value())


def test_labels_written_as_numbers_with_a_point_are_labels():
    scores, labels = torch.tensor([[3.0, -3.0], [3.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    f1 = {"name": "MultilabelF1Score", "num_labels": 2, "average": "micro"}

    assert pytest.approx(2 * 2 / (2 * 2 + 1)) == value_of(f1, (scores, labels))
    with pytest.raises(DataError, match="the targets hold parts of 1"):
        value_of(f1, (scores, labels / 2))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"name": "MulticlassAccuracy", "num_classes": 3},
            MetricSpec(name="MulticlassAccuracy", direction="maximize", best=1.0, worst=0.0),
        ),
        ("MeanSquaredError", MetricSpec(name="MeanSquaredError", direction="minimize", best=0.0, worst=None)),
        (
            {"name": "MeanSquaredError", "squared": False, "called": "RMSE", "worst": 7, "unit": "mm"},
            MetricSpec(name="RMSE", direction="minimize", best=0.0, worst=7.0, unit="mm"),
        ),
        ("MeanAbsoluteError", MetricSpec(name="MeanAbsoluteError", direction="minimize", best=0.0, worst=None)),
        (
            {"name": "PeakSignalNoiseRatio", "data_range": [0, 1], "called": "psnr"},
            MetricSpec(name="psnr", direction="maximize", best=None, worst=0.0, unit="dB"),
        ),
        (
            {"name": "PeakSignalNoiseRatio", "data_range": 7, "base": 2, "called": "psnr"},
            MetricSpec(name="psnr", direction="maximize", best=None, worst=0.0, unit=""),
        ),
        (
            {"name": "StructuralSimilarityIndexMeasure", "data_range": [0, 1], "called": "ssim"},
            MetricSpec(name="ssim", direction="maximize", best=1.0, worst=0.0),
        ),
        (
            {"name": "MulticlassCohenKappa", "num_classes": 7},
            MetricSpec(name="MulticlassCohenKappa", direction="maximize", best=1.0, worst=-1.0),
        ),
        ("ExplainedVariance", MetricSpec(name="ExplainedVariance", direction="maximize", best=1.0, worst=None)),
        ("BinaryHingeLoss", MetricSpec(name="BinaryHingeLoss", direction="minimize", best=0.0, worst=None)),
        (evaluate, MetricSpec(name="evaluate", direction="maximize", best=1.0, worst=0.0)),
        (
            {"function": evaluate, "direction": "minimize"},
            MetricSpec(name="evaluate", direction="minimize", best=0.0, worst=1.0),
        ),
        (
            {"function": evaluate, "direction": "minimize", "best": 0},
            MetricSpec(name="evaluate", direction="minimize", best=0.0, worst=None),
        ),
        (
            {"name": Largest, "best": 0, "start": 1.0},
            MetricSpec(name="Largest", direction="minimize", best=0.0, worst=None),
        ),
    ],
)
def test_what_the_number_means(spec, expected):
    assert expected == read_metric(spec, "metric").spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Accuracyy", "unknown metric 'Accuracyy'"),
        ({"name": "MultilabelF1Score"}, "MultilabelF1Score refuses its arguments.*num_labels"),
        ({"squared": False}, "missing key 'name'"),
        (7, "a int is no metric"),
        ("StructuralSimilarityIndexMeasure", "each batch's range of pixels; allowed: data_range: "),
        ({"function": evaluate, "direction": "up"}, "direction"),
        ({"function": evaluate, "best": None}, "range without ends"),
        ({"name": Largest}, "range without ends"),
        ({"name": MeanSquaredError(), "squared": False}, "made already takes no 'squared'"),
    ],
)
def test_what_is_no_metric_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        read_metric(spec, "task.metric")


def test_a_metric_that_does_not_say_which_way_is_better_is_asked():
    class Silent(Largest):
        higher_is_better = None

    with pytest.raises(InputError, match="Silent does not say whether larger is better; allowed: direction"):
        read_metric(Silent, "metric")


@pytest.mark.parametrize(
    ("spec", "pair", "message"),
    [
        (
            {"name": "MulticlassAccuracy", "num_classes": 3},
            (torch.eye(2), torch.arange(2)),
            "MulticlassAccuracy cannot use",
        ),
        (
            {"name": "MulticlassF1Score", "num_classes": 3, "average": None},
            (torch.eye(3), torch.arange(3)),
            "MulticlassF1Score gives 3 values; allowed: one number",
        ),
        ("MeanSquaredError", ((OUTPUTS, OUTPUTS), TARGETS), "cannot use outputs and targets"),
    ],
)
def test_a_metric_that_does_not_fit_says_so(spec, pair, message):
    with pytest.raises(DataError, match=message):
        value_of(spec, pair)


def test_a_function_gets_the_model_and_a_loader():
    batches = [(torch.tensor([[3.0, 1.0]]), torch.tensor([0])), (torch.tensor([[3.0, 1.0]]), torch.tensor([1]))]

    assert 0.5 == read_metric(evaluate, "metric").start(None).measure(nn.Identity(), batches)


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda model, loader: 1 / 0, "failed: ZeroDivisionError"), (lambda model, loader: "good", "gives a str")],
)
def test_a_function_that_fails_is_one_line(function, message):
    with pytest.raises(DataError, match=message):
        read_metric(function, "metric").start(None).measure(nn.Identity(), [])
