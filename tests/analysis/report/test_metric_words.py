"""A metric in the words of a report, whatever it is."""

from __future__ import annotations

import pytest

from autoprune.analysis.report import metric_words
from autoprune.study.finalists import MeanOverSeeds
from autoprune.study.metric import ACCURACY, MetricSpec

RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, unit="cm", scale=1.4)
PSNR = MetricSpec(name="PSNR", best=None, worst=0.0, unit="dB", scale=30.0)
MAP = MetricSpec(name="mAP", unit="%")
MISS = MetricSpec(name="miss", direction="minimize", best=0.0, worst=7.0)


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_values_and_differences() -> None:
    assert [plain(metric_words.value_text(0.91371, ACCURACY, digits)) for digits in (1, 2)] == ["91.4 %", "91.37 %"]
    assert [plain(metric_words.value_text(28.4137, metric)) for metric in (PSNR, RMSE)] == ["28.41 dB", "28.41 cm"]
    assert plain(metric_words.difference_text(-0.0261, ACCURACY)) == "-2.6 points"
    assert plain(metric_words.difference_text(-0.0001, ACCURACY)) == "±0.0 points"
    assert plain(metric_words.difference_text(0.71234, RMSE)) == "+0.712 cm"
    assert plain(metric_words.difference_text(0.0, MISS)) == "±0"


def test_means_over_seeds() -> None:
    assert plain(metric_words.over_seeds(MeanOverSeeds.of([0.9, 0.92]), ACCURACY)) == "91.0 % ± 1.4"
    assert plain(metric_words.over_seeds(MeanOverSeeds.of([1.7, 1.9]), RMSE)) == "1.8 cm ± 0.14"
    assert plain(metric_words.over_seeds(MeanOverSeeds.of([1.7]), RMSE)) == "1.7 cm"


@pytest.mark.parametrize(
    ("metric", "title", "ticks", "heading", "reference"),
    [
        (ACCURACY, "Validation accuracy", ".1~%", "Accuracy", "accuracy 0"),
        (MAP, "Validation mAP", ".1~%", "mAP", "mAP 0"),
        (PSNR, "Validation PSNR (dB)", ".4~g", "PSNR", "PSNR 0 (that of the half height is 30 dB)"),
        (
            RMSE,
            "Validation rmse (cm, smaller is better)",
            ".4~g",
            "Rmse",
            "rmse without end (that of the half height is 1.4 cm)",
        ),
        (MISS, "Validation miss (smaller is better)", ".4~g", "Miss", "miss 7"),
    ],
    ids=lambda value: value.name if isinstance(value, MetricSpec) else "",
)
def test_axes_and_headings(metric: MetricSpec, title: str, ticks: str, heading: str, reference: str) -> None:
    assert metric_words.axis_title(metric, "Validation") == title
    assert metric_words.tick_format(metric) == ticks
    assert metric_words.heading(metric) == heading
    assert metric_words.reference_text(metric) == reference


def test_in_sentences() -> None:
    assert (metric_words.plural(ACCURACY), metric_words.one_value(ACCURACY)) == ("accuracies", "an accuracy")
    assert (metric_words.plural(MAP), metric_words.one_value(MAP)) == ("values of mAP", "a value of mAP")
